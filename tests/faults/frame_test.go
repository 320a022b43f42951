package faults

import (
	"encoding/json"
	"testing"

	"github.com/zeolite-go/zeolite/tests/vectors"
)

// Sessions of hand-made peers contain messages that Name need not understand.
var odd = map[string]bool{"raw_ruok_and_odd": true}

func TestNameOfEveryRecordedMessage(t *testing.T) {
	for _, session := range vectors.Names() {
		for _, enc := range vectors.Encodings {
			for _, f := range vectors.Load(t, session+"."+enc) {
				if f.Kind != vectors.Message {
					continue
				}
				got, err := Name(f.Payload)
				if odd[session] {
					continue
				}
				var want []json.RawMessage
				var name string
				if json.Unmarshal(f.Decoded, &want) != nil || len(want) != 4 || json.Unmarshal(want[2], &name) != nil {
					continue // undecodable on purpose
				}
				if err != nil || got != name {
					t.Errorf("%s.%s:%d: name is %q (%v), want %q", session, enc, f.Line, got, err, name)
				}
			}
		}
	}
}

func TestNameOfTruncatedMessages(t *testing.T) {
	for _, enc := range vectors.Encodings {
		for _, payload := range vectors.LoadMessages(t, "connect_load."+enc, vectors.ClientToServer) {
			whole, err := Name(payload)
			if err != nil {
				t.Fatal(err)
			}
			for n := range payload {
				if got, err := Name(payload[:n]); err == nil && got != whole {
					t.Errorf("%s: %d of %d bytes give the name %q, want %q or an error", enc, n, len(payload), got, whole)
				}
			}
		}
	}
}
