package server

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// TestVoteThatWaitsHoldsUpNothingElse: while a client's vote waits for a lock,
// its own loads and those of others are answered.
func TestVoteThatWaitsHoldsUpNothingElse(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		b := s.newBystander(t)
		holder, p := s.connect(t, enc), s.connect(t, enc)
		oid := holder.newOID()
		tid := holder.commit(oid, 0, record("0"))
		held := holder.voted(oid, tid, record("1"))
		id := p.tpcBegin()
		p.store(id, oid, tid, record("2"))
		vote := p.begin("vote", id)
		s.waitForQueue(1)

		p.assertLoads(oid, tid, record("0"))
		p.call("ping")
		p.call("getTid", oid)
		p.call("history", oid, 5)
		b.assertFine() // it commits another object

		tid2 := holder.finish(held)
		// The vote finds a conflict with what the holder committed.
		list := tupleOf(t, p.result(vote))
		if len(list) != 1 {
			t.Fatalf("vote: %v, want one conflict", list)
		}
		d := dictOf(t, list[0])
		serials, _ := d.Get("serials")
		if pair := tupleOf(t, serials); tidOf(t, pair[0]) != tid2 || tidOf(t, pair[1]) != tid {
			t.Errorf("conflict with serials %v, want %v and %v", pair, tid2, tid)
		}
		p.call("tpc_abort", id)
	})
}

// TestStalledVoterDelaysOnlyThoseWhoWantTheSame also checks the order in which
// those are served.
func TestStalledVoterDelaysOnlyThoseWhoWantTheSame(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	b := s.newBystander(t)
	stalled := s.connect(t, zrpc.Pickle)
	oid := stalled.newOID()
	tid := stalled.commit(oid, 0, record("0"))
	held := stalled.voted(oid, tid, record("1"))
	var queue []*peer
	var votes []int64
	for i := range 3 {
		p := s.connect(t, encodings[i%2])
		id := p.tpcBegin()
		p.send("checkCurrentSerialInTransaction", oid, tid, id)
		p.store(id, zeolite.OID(0x5000+i), 0, record("own"))
		queue = append(queue, p)
		votes = append(votes, p.begin("vote", id))
		s.waitForQueue(i + 1)
		b.assertFine()
	}
	stalled.call("tpc_abort", held)
	for i, p := range queue {
		p.result(votes[i])
		s.waitForQueue(len(queue) - i - 1)
		b.assertFine()
		p.close()
		p.waitGone()
	}
}

// TestTransactionTimeout: who holds locks for too long is disconnected, with
// one line in the log, and who waited for them gets them.
func TestTransactionTimeout(t *testing.T) {
	t.Parallel()
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		t.Parallel()
		s := startServer(t, newMemory(t), Options{TransactionTimeout: 500 * time.Millisecond})
		b := s.newBystander(t)
		p := s.connect(t, enc)
		p.voted(b.oid, b.tid, record("never"))
		q := s.connect(t, enc)
		id := q.tpcBegin()
		q.store(id, b.oid, b.tid, record("later"))
		vote := q.begin("vote", id)
		p.waitClosed()
		p.assertOneLine("transaction timeout")
		q.result(vote)
		b.tid = q.finish(id)
		b.assertFine()
		// Time without locks does not count.
		id = q.tpcBegin()
		q.store(id, 0x9000, 0, record("x"))
		<-time.After(time.Second)
		q.call("vote", id)
		q.finish(id)
	})
}

// TestTransactionTimeoutOfVoter: while a vote waits in the storage for another
// client's transaction, it is that client's time which runs out. Time to resolve
// conflicts runs, and is not given anew by each vote.
func TestTransactionTimeoutOfVoter(t *testing.T) {
	t.Parallel()
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		t.Parallel()
		storage := newFaulty(newMemory(t))
		s := startServer(t, storage, Options{TransactionTimeout: 500 * time.Millisecond})
		b := s.newBystander(t)
		p := s.connect(t, enc)
		for _, seen := range []zeolite.TID{b.tid + 1, b.tid} { // a conflict, and none
			id := p.tpcBegin()
			p.store(id, b.oid, seen, record("waits"))
			release, waiting := storage.blocks(t, "vote")
			if seen != b.tid {
				if got := tupleOf(t, p.call("vote", id)); len(got) != 1 {
					t.Fatalf("vote: %v, want a conflict", got)
				}
				p.store(id, b.oid, b.tid, record("resolved"))
			}
			vote := p.begin("vote", id)
			<-waiting
			storage.on("vote", nil)
			stalls := s.connect(t, enc)
			stalls.voted(0x9000, 0, record("never"))
			stalls.waitClosed()
			release()
			if got := tupleOf(t, p.result(vote)); len(got) != 0 {
				t.Errorf("vote: %v", got)
			}
			if seen != b.tid {
				p.call("tpc_abort", id)
			}
		}
		p.waitClosed()
		p.assertOneLine("transaction timeout")
		b.assertFine()
	})
}

// TestSlowLoadHoldsUpNoOther: one load that hangs in the storage does not keep
// others from being answered, of the same client or of others.
func TestSlowLoadHoldsUpNoOther(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		storage := newFaulty(newMemory(t))
		s := startServer(t, storage, Options{})
		b := s.newBystander(t)
		p := s.connect(t, enc)
		oid := p.newOID()
		tid := p.commit(oid, 0, record("x"))
		release, waiting := storage.blocks(t, "serial")
		slow := p.begin("loadSerial", oid, tid)
		<-waiting
		p.assertLoads(oid, tid, record("x"))
		p.commit(oid, tid, record("y"))
		b.early = nil
		b.assertFine()
		release()
		if got := p.result(slow).([]byte); string(got) != string(record("x")) {
			t.Errorf("loadSerial: %q", got)
		}
	})
}

// TestWorkersAreBounded: a client gets no more calls run at once than the limit
// says, whatever it asks for.
func TestWorkersAreBounded(t *testing.T) {
	storage := newFaulty(newMemory(t))
	s := startServer(t, storage, Options{Limits: Limits{Workers: 3}})
	p := s.connect(t, zrpc.Msgpack)
	oid := p.newOID()
	tid := p.commit(oid, 0, record("x"))
	running := make(chan struct{}, 100)
	gate := make(chan struct{})
	storage.on("serial", func(context.Context) error {
		running <- struct{}{}
		<-gate
		<-running
		return nil
	})
	var calls []int64
	for range 20 {
		calls = append(calls, p.begin("loadSerial", oid, tid))
	}
	eventually(t, "three calls run", func() bool { return len(running) == 3 })
	for range 20 {
		if n := len(running); n > 3 {
			t.Errorf("%d calls run at once", n)
		}
		gate <- struct{}{}
	}
	for _, c := range calls {
		p.result(c)
	}
}

// TestSlowReaderIsDisconnected: invalidations for a client that does not read
// are bounded, and a committer does not wait for it.
func TestSlowReaderIsDisconnected(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{Limits: Limits{Outbox: 32 << 10}})
		b := s.newBystander(t)
		p := s.connect(t, enc)
		tids := map[int]zeolite.TID{}
		// Each commit makes an invalidation of some 20,000 bytes.
		for round := 0; s.exports["1"].publisher.count() == 2; round++ {
			id := b.tpcBegin()
			var last zeolite.TID
			for i := range 2000 {
				last = tids[i]
				b.store(id, zeolite.OID(0x10000+i), last, []byte("x"))
			}
			b.call("vote", id)
			tid := b.finish(id)
			for i := range 2000 {
				tids[i] = tid
			}
			if round > 2000 {
				t.Fatal("the client that does not read is still connected")
			}
		}
		p.waitGone()
		p.assertOneLine("outbox limit")
		if n := s.exports["1"].counters.slow.Load(); n != 1 {
			t.Errorf("%d slow clients counted, want 1", n)
		}
		b.assertFine()
	})
}

// TestSlowReaderIsCountedOnce: a client that was slow cannot leave at once, and
// transactions are published meanwhile.
func TestSlowReaderIsCountedOnce(t *testing.T) {
	storage := newFaulty(newMemory(t))
	s := startServer(t, storage, Options{Limits: Limits{Outbox: 32 << 10}})
	e := s.exports["1"]
	p := s.connect(t, zrpc.Msgpack)
	hang, waiting := make(chan struct{}), make(chan struct{})
	let := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(let)
	storage.on("vote", func(context.Context) error { // it does not listen to contexts
		close(waiting)
		<-hang
		return nil
	})
	id := p.tpcBegin()
	p.store(id, 1, 0, record("x"))
	p.begin("vote", id)
	<-waiting

	oids := make([]zeolite.OID, 2000)
	tid := zeolite.TID(0)
	publish := func() {
		tid++
		e.publish(nil, tid, oids, func() {}, func() {})
	}
	for ended := false; !ended; {
		publish()
		e.publisher.each(func(client *session) { ended = client.conn.Err() != nil })
	}
	publish()
	publish()
	let()
	p.waitGone()
	if n := e.counters.slow.Load(); n != 1 {
		t.Errorf("%d slow clients counted, want 1", n)
	}
}
