package interop

import (
	"testing"

	"github.com/zeolite-go/zeolite/tests/peers"
)

// runSuite runs one of the test suites that come with ZEO and ZODB; with
// -short in one encoding only.
func runSuite(t *testing.T, suite string) {
	t.Parallel()
	for _, target := range peers.Targets(t) {
		if testing.Short() && target.Encoding != peers.Msgpack {
			continue
		}
		t.Run(target.String(), func(t *testing.T) {
			t.Parallel()
			peers.RunScript(t, "zodb_suites.py", target, peers.ScriptOptions{
				Args:  []string{suite},
				Known: known(target, "zodb_suites.py "+suite),
			})
		})
	}
}

func TestSuiteStorage(t *testing.T)       { runSuite(t, "storage") }
func TestSuiteRaces(t *testing.T)         { runSuite(t, "races") }
func TestSuiteOtherStorages(t *testing.T) { runSuite(t, "other_storages") }
func TestSuiteConnections(t *testing.T)   { runSuite(t, "connections") }
func TestSuiteReconnections(t *testing.T) { runSuite(t, "reconnections") }
func TestSuiteBlobs(t *testing.T)         { runSuite(t, "blobs") }
func TestSuiteDoctests(t *testing.T)      { runSuite(t, "doctests") }
