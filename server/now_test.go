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

func (a *asked) FinishNow(map[zeolite.OID]zeolite.BlobUpload) bool { return a.ready }

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

// TestFinishThatWaitsHoldsUpNothingElse has the reading goroutine finish a
// transaction when the storage hangs: the client's other calls are answered, and
// what belongs to its next transaction is done when the first is finished.
func TestFinishThatWaitsHoldsUpNothingElse(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		storage := newFaulty(newMemory(t))
		s := startServer(t, storage, Options{})
		b := s.newBystander(t)
		p := s.connect(t, enc)
		oid, other := p.newOID(), p.newOID()
		tid := p.commit(oid, 0, record("0"))
		for range 3 { // one goroutine after the other reads
			id := p.voted(oid, tid, record("0"))
			release, waiting := storage.blocks(t, "finish")
			finish := p.begin("tpc_finish", id)
			<-waiting
			next := p.tpcBegin()
			p.store(next, other, 0, record("next"))
			vote := p.begin("vote", next)

			p.assertLoads(oid, tid, record("0"))
			p.call("ping")
			p.call("history", oid, 5)
			for _, m := range p.early {
				if m.id == finish || m.id == vote {
					t.Errorf("while the storage hangs the answer is %v", m)
				}
			}

			release()
			tid = tidOf(t, p.result(finish))
			p.result(vote)
			p.call("tpc_abort", next)
			p.assertLoads(oid, tid, record("0"))
		}
		b.assertFine()
		s.waitIdle()
	})
}
