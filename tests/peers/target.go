package peers

import (
	"os"
	"strings"
	"testing"
)

// Kind names a server program.
type Kind string

// The servers: Python's own, which is the oracle, and ours.
const (
	RunZEO  Kind = "runzeo"
	Zeolite Kind = "zeolite"
)

// Encoding is what a server announces first: "Z5" (pickle) or "M5" (msgpack).
type Encoding string

// The two encodings.
const (
	Pickle  Encoding = "Z5"
	Msgpack Encoding = "M5"
)

// Target is a server program that speaks one encoding.
type Target struct {
	Kind     Kind
	Encoding Encoding
}

func (t Target) String() string { return string(t.Kind) + "-" + string(t.Encoding) }

// Targets returns the servers to test, each in both encodings, as
// ZEOLITE_TEST_SERVERS chooses.
func Targets(t testing.TB) []Target {
	t.Helper()
	names := os.Getenv("ZEOLITE_TEST_SERVERS")
	if names == "" {
		names = string(Zeolite)
	}
	var targets []Target
	for name := range strings.SplitSeq(names, ",") {
		kind := Kind(name)
		if kind != RunZEO && kind != Zeolite {
			t.Fatalf("ZEOLITE_TEST_SERVERS names %q, want runzeo or zeolite", name)
		}
		targets = append(targets, Target{kind, Pickle}, Target{kind, Msgpack})
	}
	return targets
}
