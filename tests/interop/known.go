// Package interop tests zeolite with real Python peers: ZEO's client and
// ZODB's own test suites against our server, and all of it against Python's
// server too, which proves the tests. README.md says how to run it.
package interop

import (
	"github.com/zeolite-go/zeolite/tests/peers"
)

// known returns the checks of a program that fail with a server, with reasons.
func known(target peers.Target, script string) []peers.Known {
	return knownFailures[target.Kind][script]
}

// knownFailures lists, by server and program, each check that fails. Faults of
// Python's server stand under RunZEO; where ours differs on purpose, the
// difference stands under Zeolite.
var knownFailures = map[peers.Kind]map[string][]peers.Known{
	peers.RunZEO:  {},
	peers.Zeolite: {},
}
