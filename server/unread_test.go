package server

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// votesUnread has a client that does not read send many votes at once, each of
// which is answered with the same large conflict. It returns the client, the
// calls, and the largest number of bytes that waited for it when a vote began.
func votesUnread(t *testing.T, s *testServer, storage *faultyStorage, enc zrpc.Encoding, oid zeolite.OID) (*peer, []int64, *atomic.Int64) {
	p := s.connect(t, enc)
	conn := p.session().conn
	most := new(atomic.Int64)
	storage.on("store", func(context.Context) error {
		n := int64(conn.Queued())
		for was := most.Load(); n > was; was = most.Load() { // others vote, too
			if most.CompareAndSwap(was, n) {
				break
			}
		}
		return nil
	})
	id := p.tpcBegin()
	p.store(id, oid, zeolite.ZeroTID, make([]byte, 1<<20))
	var votes []int64
	var batch []byte
	for range 100 {
		p.lastID++
		votes = append(votes, p.lastID)
		payload := p.encode(zrpc.Tuple{p.lastID, false, "vote", zrpc.Tuple{id}})
		batch = append(zrpc.AppendFrameHeader(batch, len(payload)), payload...)
	}
	p.writeBytes(batch)
	eventually(t, "replies wait", func() bool { return conn.Queued() > 64<<10 })
	return p, votes, most
}

// TestRepliesToVotesAreBounded: calls that wait in the lane are not run as long as
// the client does not take the replies to those before, however small they are.
func TestRepliesToVotesAreBounded(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		storage := newFaulty(newMemory(t))
		s := startServer(t, storage, Options{Limits: Limits{Unread: 64 << 10}})
		b := s.newBystander(t)
		oid := b.newOID()
		b.commit(oid, 0, record("theirs"))
		p, votes, most := votesUnread(t, s, storage, enc, oid)
		for range 100 {
			b.assertFine() // time enough for the votes
		}
		if n := most.Load(); n > 3<<20 {
			t.Errorf("%d bytes of replies wait for a client that does not read", n)
		}
		for _, vote := range votes {
			if got := tupleOf(t, p.result(vote)); len(got) != 1 {
				t.Fatalf("vote: %v, want one conflict", got)
			}
		}
		if n := most.Load(); n > 3<<20 {
			t.Errorf("%d bytes of replies waited for a client that reads", n)
		}
		b.early = nil
		b.assertFine()
	})
}

// TestUnreadRepliesKeepNoLocks: whose calls wait until it reads may have locks. The
// time for its transaction runs, and a client that is gone waits for nothing.
func TestUnreadRepliesKeepNoLocks(t *testing.T) {
	for name, timeout := range map[string]time.Duration{"time is up": 500 * time.Millisecond, "gone": 0} {
		t.Run(name, func(t *testing.T) {
			storage := newFaulty(newMemory(t))
			s := startServer(t, storage, Options{Limits: Limits{Unread: 64 << 10}, TransactionTimeout: timeout})
			q := s.connect(t, zrpc.Msgpack)
			oid := q.newOID()
			tid := q.commit(oid, 0, record("theirs"))
			p, _, _ := votesUnread(t, s, storage, zrpc.Msgpack, oid)
			id := q.tpcBegin()
			q.store(id, oid, tid, record("later"))
			vote := q.begin("vote", id)
			if timeout == 0 {
				s.waitForQueue(1)
				p.close()
			}
			if got := tupleOf(t, q.result(vote)); len(got) != 0 {
				t.Errorf("vote: %v", got)
			}
			q.finish(id)
			p.waitGone()
			if timeout != 0 {
				p.assertOneLine("transaction timeout")
			}
		})
	}
}
