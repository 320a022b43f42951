package memory

import (
	"testing"

	"github.com/zeolite-go/zeolite"
)

// Whatever oid is handed out can be stored.
func TestLastOIDs(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	s.maxOID = 1<<63 - 4
	oids, err := s.NewOIDs(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, oid := range oids {
		if err := zeolite.CheckOID(oid, s.maxOID); err != nil {
			t.Error(err)
		}
	}
	if oids, err := s.NewOIDs(t.Context(), 1); err == nil {
		t.Errorf("handed out %v", oids)
	}
}
