package server

import (
	"bytes"
	"sync/atomic"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// asked counts how often a storage was asked whether a vote could be run at
// once, and says whether it could.
type asked struct {
	zeolite.Storage
	times atomic.Int64
	ready bool
}

func (a *asked) VoteNow([]zeolite.OID, int) bool {
	a.times.Add(1)
	return a.ready
}

// TestVoteByTheReader commits with and without the storage being ready for it,
// and makes sure that the reader leaves alone what it must: votes for whose
// locks others wait, large transactions, and those of another id.
func TestVoteByTheReader(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		for _, ready := range []bool{true, false} {
			storage := &asked{Storage: newMemory(t), ready: ready}
			s := startServer(t, storage, Options{})
			p := s.connect(t, enc)
			tid := p.commit(1, 0, record("1"))
			tid = p.commit(1, tid, record("2"))
			if n := storage.times.Load(); n != 2 {
				t.Errorf("asked %d times for 2 votes", n)
			}
			// What is too large is not asked for.
			tid = p.commit(1, tid, bytes.Repeat([]byte("x"), nowBytes))
			id := p.tpcBegin()
			for i := range nowObjects + 5 {
				p.store(id, zeolite.OID(100+i), 0, record("many"))
			}
			p.call("vote", id)
			many := p.finish(id)
			if n := storage.times.Load(); n != 2 {
				t.Errorf("asked %d times, and not for small transactions alone", n)
			}
			p.assertLoads(100+nowObjects, many, record("many"))

			// A vote for another transaction takes no locks, or lets go of them.
			id = p.tpcBegin()
			p.store(id, 1, tid, record("3"))
			p.exception(p.begin("vote", id+1))
			q := s.connect(t, enc)
			other := q.voted(1, tid, record("4"))
			vote := p.begin("vote", id)
			s.waitForQueue(1)
			p.call("ping") // not held up
			q.call("tpc_abort", other)
			p.result(vote)
			p.finish(id)
			s.waitIdle()
		}
	})
}
