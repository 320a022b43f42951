package server

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
)

func newLocks() *commitLocks {
	c := &commitLocks{}
	c.init()
	return c
}

// assertFree checks that nothing is left of any request.
func assertFree(t *testing.T, c *commitLocks) {
	t.Helper()
	if waiting, held, _ := c.state(); waiting != 0 || held != 0 {
		t.Errorf("%d wait, %d held, want none", waiting, held)
	}
	if len(c.last) > 0 || len(c.active) > 0 || c.whole != nil {
		t.Errorf("left over: %d objects, %d requests, whole %v", len(c.last), len(c.active), c.whole)
	}
}

// TestCommitLocksRandomly: whatever many goroutines acquire, give up and
// release, no two hold locks on the same object, whoever has the whole storage
// is alone, everybody gets what it waits for, and nothing is left in the end.
func TestCommitLocksRandomly(t *testing.T) {
	const workers, rounds, objects = 16, 150, 6
	c := newLocks()
	var holders [objects]atomic.Int32
	var all, whole atomic.Int32
	var granted atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			for range rounds {
				everything := rnd.IntN(12) == 0
				var oids []zeolite.OID
				for range rnd.IntN(4) { // also none, also the same twice
					oids = append(oids, zeolite.OID(rnd.IntN(objects)))
				}
				ctx, cancel := context.WithCancel(context.Background())
				if rnd.IntN(4) == 0 {
					if rnd.IntN(2) == 0 {
						cancel()
					} else {
						time.AfterFunc(time.Duration(rnd.IntN(200))*time.Microsecond, cancel)
					}
				}
				l, err := c.acquire(ctx, oids, everything)
				if err != nil {
					cancel()
					continue
				}
				granted.Add(1)
				if everything {
					if n := all.Load(); n != 0 {
						t.Errorf("%d hold locks beside one that has the whole storage", n)
					}
					whole.Add(1)
				} else if whole.Load() != 0 {
					t.Error("the whole storage is held beside locks on objects")
				}
				all.Add(1)
				distinct := map[zeolite.OID]bool{}
				for _, oid := range oids {
					distinct[oid] = true
				}
				if !everything {
					for oid := range distinct {
						if n := holders[oid].Add(1); n != 1 {
							t.Errorf("object %v is held by %d", oid, n)
						}
					}
				}
				for range rnd.IntN(3) {
					time.Sleep(0) // lets others run
				}
				if !everything {
					for oid := range distinct {
						holders[oid].Add(-1)
					}
				} else {
					whole.Add(-1)
				}
				all.Add(-1)
				l.release()
				if rnd.IntN(3) == 0 {
					l.release() // does nothing
				}
				cancel()
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("somebody waits in vain")
	}
	if granted.Load() < workers*rounds/2 {
		t.Errorf("only %d of %d requests were granted", granted.Load(), workers*rounds)
	}
	assertFree(t, c)
}

// enqueueNow asks for locks without waiting for them.
func enqueueNow(c *commitLocks, whole bool, oids ...zeolite.OID) *commitLock {
	l := &commitLock{locks: c, oids: oids, whole: whole, granted: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.enqueue(l)
	return l
}

func isGranted(l *commitLock) bool {
	select {
	case <-l.granted:
		return true
	default:
		return false
	}
}

// TestCommitLocksAreFair enters random requests in a known order and releases
// them in a random one: at every moment exactly those hold locks before which
// nobody is left who wants some of the same.
func TestCommitLocksAreFair(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(7, seed))
		c := newLocks()
		var queue []*commitLock
		conflict := func(a, b *commitLock) bool {
			if a.whole || b.whole {
				return true
			}
			for _, x := range a.oids {
				for _, y := range b.oids {
					if x == y {
						return true
					}
				}
			}
			return false
		}
		check := func(step string) {
			t.Helper()
			for i, l := range queue {
				want := true
				for _, earlier := range queue[:i] {
					want = want && !conflict(earlier, l)
				}
				// One that was given up is granted to nobody.
				if got := isGranted(l); got != want && !l.gone {
					t.Fatalf("seed %d, %s: request %d of %d: granted %v, want %v", seed, step, i, len(queue), got, want)
				}
			}
		}
		for range 40 {
			if len(queue) == 0 || rnd.IntN(3) > 0 {
				var oids []zeolite.OID
				for range rnd.IntN(4) {
					oids = append(oids, zeolite.OID(rnd.IntN(8)))
				}
				queue = append(queue, enqueueNow(c, rnd.IntN(8) == 0, oids...))
				check("after a request")
				continue
			}
			i := rnd.IntN(len(queue))
			l := queue[i]
			holds := isGranted(l)
			l.release()
			if holds {
				queue = append(queue[:i:i], queue[i+1:]...)
			}
			queue = dropGivenUp(queue, conflict)
			check("after a release")
		}
		for len(queue) > 0 {
			queue[0].release()
			queue = dropGivenUp(queue[1:], conflict)
		}
		assertFree(t, c)
	}
}

// dropGivenUp removes requests that were given up and whose turn has come:
// they pass on what they would have got.
func dropGivenUp(queue []*commitLock, conflict func(a, b *commitLock) bool) []*commitLock {
	for again := true; again; {
		again = false
		for i, l := range queue {
			first := true
			for _, earlier := range queue[:i] {
				first = first && !conflict(earlier, l)
			}
			if l.gone && first {
				queue = append(queue[:i:i], queue[i+1:]...)
				again = true
				break
			}
		}
	}
	return queue
}

// TestCommitLockGivesUpWithTheContext and says why.
func TestCommitLockGivesUpWithTheContext(t *testing.T) {
	c := newLocks()
	held, err := c.acquire(context.Background(), []zeolite.OID{1, 2}, false)
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("gone")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	if _, err := c.acquire(ctx, []zeolite.OID{2}, false); !errors.Is(err, why) {
		t.Errorf("acquire: %v, want %v", err, why)
	}
	behind := enqueueNow(c, false, 2)
	if isGranted(behind) {
		t.Error("one behind somebody who gave up has the lock of somebody who did not")
	}
	held.release()
	if !isGranted(behind) {
		t.Error("a lock got lost with somebody who gave up")
	}
	behind.release()
	assertFree(t, c)
}
