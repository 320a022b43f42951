package server

import (
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// TestLoadInAnUnusualPickle loads by calls whose name is a str of Python 2's, of
// which the storage can answer some at once and leaves the others to a worker.
func TestLoadInAnUnusualPickle(t *testing.T) {
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		s := startServer(t, open(t), Options{})
		p := s.connect(t, zrpc.Pickle)
		large := make([]byte, 2*quickRecord)
		p.commit(1, 0, record("small"))
		p.commit(2, 0, large)
		load := func(oid zeolite.OID) int64 {
			t.Helper()
			p.lastID++
			p.writeFrame([]byte("\x80\x02(K" + string(rune(p.lastID)) + "\x89U\x0aloadBeforeU\x08" + string(oid.Bytes()) +
				"U\x08" + string(zeolite.MaxTID.Bytes()) + "\x86t."))
			return p.lastID
		}
		for oid, want := range map[zeolite.OID][]byte{1: record("small"), 2: large} {
			if got := tupleOf(t, p.result(load(oid)))[0].([]byte); string(got) != string(want) {
				t.Errorf("object %v has %d bytes, want %d", oid, len(got), len(want))
			}
		}
		if e := p.exception(load(3)); e.Class != "ZODB.POSException.POSKeyError" {
			t.Errorf("an object that is not there: %v", e)
		}
	})
}
