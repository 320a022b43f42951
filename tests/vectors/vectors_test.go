package vectors

import (
	"bytes"
	"strings"
	"testing"
)

func TestEverySessionLoads(t *testing.T) {
	names := Names()
	if len(names) < 23 {
		t.Fatalf("only %d sessions: %v", len(names), names)
	}
	for _, name := range names {
		for _, enc := range Encodings {
			frames := Load(t, name+"."+enc)
			if len(frames) < 4 {
				t.Errorf("%s.%s: only %d frames", name, enc, len(frames))
			}
			// The server always speaks first, with five as the version.
			first := frames[0]
			if first.Kind != Handshake || first.Dir != ServerToClient ||
				!strings.EqualFold(string(first.Payload), enc) {
				t.Errorf("%s.%s: starts with %v %q from %v", name, enc, first.Kind, first.Payload, first.Dir)
			}
		}
	}
}

func TestLoadMessages(t *testing.T) {
	calls := LoadMessages(t, "commit.z5", ClientToServer)
	if len(calls) == 0 || !bytes.Contains(calls[0], []byte("register")) {
		t.Fatalf("the first call is not register: %q", calls)
	}
	for _, m := range calls {
		if !bytes.HasPrefix(m, []byte("\x80\x03")) || m[len(m)-1] != '.' {
			t.Errorf("not a pickle of protocol 3: %q", m)
		}
	}
}

func TestMalformedLines(t *testing.T) {
	for name, line := range map[string]string{
		"not JSON":          `{"conn": 1`,
		"no connection":     `{"dir": "c2s", "kind": "message", "hex": "00"}`,
		"unknown direction": `{"conn": 1, "dir": "up", "kind": "message", "hex": "00"}`,
		"unknown kind":      `{"conn": 1, "dir": "c2s", "kind": "song", "hex": "00"}`,
		"no payload":        `{"conn": 1, "dir": "c2s", "kind": "message"}`,
		"odd hex":           `{"conn": 1, "dir": "c2s", "kind": "message", "hex": "000"}`,
	} {
		if _, err := parse("x", []byte(line+"\n")); err == nil {
			t.Errorf("%s: accepted", name)
		} else if !strings.HasPrefix(err.Error(), "x.jsonl:1: ") {
			t.Errorf("%s: error does not say where: %v", name, err)
		}
	}
	if _, err := load("no_such_session.z5"); err == nil {
		t.Error("an unknown session loads")
	}
}
