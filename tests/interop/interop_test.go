package interop

import (
	"os"
	"testing"

	"github.com/zeolite-go/zeolite/tests/peers"
)

func TestMain(m *testing.M) { os.Exit(peers.Main(m)) }

// runAll runs one scenario program against every server under test.
func runAll(t *testing.T, script string) {
	t.Parallel()
	for _, target := range peers.Targets(t) {
		t.Run(target.String(), func(t *testing.T) {
			t.Parallel()
			peers.RunScript(t, script, target, peers.ScriptOptions{Known: known(target, script)})
		})
	}
}

func TestObjects(t *testing.T)     { runAll(t, "objects.py") }
func TestBlobStory(t *testing.T)   { runAll(t, "blob_story.py") }
func TestConflicts(t *testing.T)   { runAll(t, "conflicts.py") }
func TestUndo(t *testing.T)        { runAll(t, "undo.py") }
func TestRecords(t *testing.T)     { runAll(t, "records.py") }
func TestErrors(t *testing.T)      { runAll(t, "errors.py") }
func TestLocks(t *testing.T)       { runAll(t, "locks.py") }
func TestReconnect(t *testing.T)   { runAll(t, "reconnect.py") }
func TestModes(t *testing.T)       { runAll(t, "modes.py") }
func TestSharedBlobs(t *testing.T) { runAll(t, "shared_blobs.py") }
