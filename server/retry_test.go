package server

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// A crowd is three clients of which the first has voted and the others wait to
// vote on the same object.
type crowd struct {
	*testServer
	t       *testing.T
	oid     zeolite.OID
	old     zeolite.TID
	clients [3]*peer
	ids     [3]int64
	votes   [3]int64
}

func newCrowd(t *testing.T, enc zrpc.Encoding, kept time.Duration) *crowd {
	c := &crowd{testServer: startServer(t, newMemory(t), Options{}), t: t}
	c.retryFirst = kept
	for i := range c.clients {
		c.clients[i] = c.connect(t, enc)
	}
	c.oid = c.clients[0].newOID()
	c.old = c.clients[0].commit(c.oid, 0, record("old"))
	c.ids[0] = c.clients[0].voted(c.oid, c.old, record("0"))
	for i := 1; i < len(c.clients); i++ {
		c.vote(i, c.old)
		c.waitForQueue(i)
	}
	return c
}

// vote begins the vote of a transaction of client i.
func (c *crowd) vote(i int, serial zeolite.TID) {
	p := c.clients[i]
	c.ids[i] = p.tpcBegin()
	p.store(c.ids[i], c.oid, serial, record(strconv.Itoa(i)))
	c.votes[i] = p.begin("vote", c.ids[i])
}

// finish commits what client i voted.
func (c *crowd) finish(i int) zeolite.TID {
	return tidOf(c.t, c.clients[i].call("tpc_finish", c.ids[i]))
}

// conflicts takes the answer to the vote of client i, a conflict, and aborts.
func (c *crowd) conflicts(i int) {
	c.t.Helper()
	if got := tupleOf(c.t, c.clients[i].result(c.votes[i])); len(got) != 1 {
		c.t.Fatalf("the vote of client %d: %v, want a conflict", i, got)
	}
	c.clients[i].call("tpc_abort", c.ids[i])
}

// succeeds takes the answer to the vote of client i.
func (c *crowd) succeeds(i int) {
	c.t.Helper()
	if got := tupleOf(c.t, c.clients[i].result(c.votes[i])); len(got) != 0 {
		c.t.Fatalf("the vote of client %d: %v, want none", i, got)
	}
}

// TestRetryComesFirst: who met a conflict while others wait is let in before them
// when it comes back.
func TestRetryComesFirst(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		c := newCrowd(t, enc, time.Hour)
		tid := c.finish(0)
		c.conflicts(1)
		c.waitForQueue(1) // the other one waits still
		c.vote(1, tid)
		c.succeeds(1)
		c.waitForQueue(1)
		c.finish(1)
		c.conflicts(2)
		c.waitIdle() // with nobody else waiting it is as always
	})
}

// TestRetryWithOtherObjects: locks that are not enough for what the client wants
// next are released.
func TestRetryWithOtherObjects(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		c := newCrowd(t, enc, time.Hour)
		c.finish(0)
		c.conflicts(1)
		c.waitForQueue(1)
		p := c.clients[1]
		other := p.newOID()
		p.commit(other, 0, record("other"))
		c.conflicts(2)
		c.waitIdle()
	})
}

// TestRetryOnce: who comes back and meets a conflict again goes to the end of the
// queue.
func TestRetryOnce(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		c := newCrowd(t, enc, time.Hour)
		c.finish(0)
		c.conflicts(1)
		c.vote(1, c.old)
		c.conflicts(1)
		c.conflicts(2)
		c.waitIdle()
	})
}

// TestRetryNever: a client that does not come back holds up others no longer than
// it may, or than it is there.
func TestRetryNever(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		c := newCrowd(t, enc, time.Millisecond)
		c.finish(0)
		c.conflicts(1)
		c.conflicts(2)
		c.waitIdle()

		c = newCrowd(t, enc, time.Hour)
		c.finish(0)
		c.conflicts(1)
		c.waitForQueue(1)
		c.clients[1].close()
		c.conflicts(2)
		c.waitIdle()
	})
}

// TestRetriesAllCount lets many clients add to one counter, each as often as it
// takes: nothing gets lost.
func TestRetriesAllCount(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		const clients, each = 12, 15
		s := startServer(t, newMemory(t), Options{})
		first := s.connect(t, enc)
		oid := first.newOID()
		first.commit(oid, 0, []byte("0"))
		var conflicts atomic.Int64
		var wg sync.WaitGroup
		for range clients {
			p := s.connect(t, enc)
			wg.Go(func() {
				for n := 0; n < each; {
					rev := tupleOf(t, p.call("loadBefore", oid, zeolite.MaxTID))
					count, err := strconv.Atoi(string(rev[0].([]byte)))
					if err != nil {
						t.Error(err)
						return
					}
					id := p.tpcBegin()
					p.store(id, oid, tidOf(t, rev[1]), fmt.Append(nil, count+1))
					if got := tupleOf(t, p.call("vote", id)); len(got) > 0 {
						conflicts.Add(1)
						p.call("tpc_abort", id)
						continue
					}
					p.call("tpc_finish", id)
					n++
				}
			})
		}
		wg.Wait()
		rev := tupleOf(t, first.call("loadBefore", oid, zeolite.MaxTID))
		if got := string(rev[0].([]byte)); got != strconv.Itoa(clients*each) {
			t.Errorf("%d times 1 is %s", clients*each, got)
		}
		t.Logf("%d conflicts", conflicts.Load())
		s.waitIdle()
	})
}

// TestRetryKeeps: how long, and for whom.
func TestRetryKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := newLocks()
		// ends has a transaction end with a conflict while so many wait, and
		// returns how long the first of them has to wait then.
		ends := func(r *retry, held time.Duration, waiting int) time.Duration {
			t.Helper()
			l := enqueueNow(locks, false, 1, 2)
			var behind []*commitLock
			for range waiting {
				behind = append(behind, enqueueNow(locks, false, 2))
			}
			start := time.Now()
			if l = r.keep(l, held); l != nil {
				l.release()
			}
			for _, b := range behind {
				<-b.granted
				if b == behind[0] {
					held = time.Since(start)
				}
				b.release()
			}
			assertFree(t, locks)
			if waiting == 0 {
				return 0
			}
			return held
		}
		const ms = time.Millisecond
		r := &retry{first: retryFirst}
		for i, step := range []struct {
			back    time.Duration // when the client voted again after the step before; 0: it did not
			held    time.Duration
			waiting int
			want    time.Duration
		}{
			{0, ms, 0, 0},                // nobody to be kept waiting
			{0, ms, 1, retryFirst},       // nothing is known of the client
			{3 * ms, ms, 2, 6 * ms},      // it came back soon
			{3 * ms, ms, 1, 0},           // but it takes less to tell the one who waits
			{0, ms / 10, 14, 0},          // or these
			{0, ms / 10, 16, 6 * ms},     // but not these
			{ms / 10, ms, 2, ms},         // at least
			{101 * ms, 9 * ms, 60, 0},    // too slow
			{0, 9 * ms, 60, 0},           // still
			{100 * ms, ms, 60, 200 * ms}, // not too slow
		} {
			if step.back > 0 {
				r.told = time.Now().Add(-step.back)
				r.comes()
			}
			if got := ends(r, step.held, step.waiting); got != step.want {
				t.Errorf("step %d: locks were kept for %v, want %v", i, got, step.want)
			}
			r.kept = nil
		}
	})
}
