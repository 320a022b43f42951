package interop

import (
	"strconv"
	"testing"

	"github.com/zeolite-go/zeolite/tests/peers"
)

// TestCrash kills the server while clients commit, ZEOLITE_TEST_KILLS times.
func TestCrash(t *testing.T) {
	t.Parallel()
	rounds := strconv.Itoa(peers.Kills(t))
	for _, target := range peers.Targets(t) {
		t.Run(target.String(), func(t *testing.T) {
			t.Parallel()
			peers.RunScript(t, "crash.py", target, peers.ScriptOptions{
				Args:  []string{rounds},
				Known: known(target, "crash.py"),
			})
		})
	}
}
