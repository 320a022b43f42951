package server

import (
	"context"
	"sync"
	"time"

	"github.com/zeolite-go/zeolite"
)

// commitLocks are the locks that a transaction holds from its vote until it
// finishes or aborts: on the objects it touches, or on the whole storage. So
// two clients with nothing in common commit at the same time, and one that
// stalls between vote and finish delays only those who want the same objects.
//
// The queue is fair: whoever asks gets the locks as soon as all those have let
// go who asked earlier and want some of the same. As a request enters the
// queues of all its objects in one step, nobody can wait for each other in a
// circle. It is safe for concurrent use.
type commitLocks struct {
	mu     sync.Mutex
	last   map[zeolite.OID]*commitLock // the last who asked for an object
	active map[*commitLock]struct{}    // all, waiting or holding
	whole  *commitLock                 // the last who asked for the whole storage

	waiting int
	held    int
	since   time.Time // when the storage went from unlocked to locked
}

// commitLock is one request for locks. Its fields belong to commitLocks.mu.
type commitLock struct {
	locks      *commitLocks
	oids       []zeolite.OID
	whole      bool
	blockers   int           // requests that must be released first
	dependents []*commitLock // requests that wait for this one
	granted    chan struct{}
	given      bool
	gone       bool        // released; or given up, which takes effect when granted
	kept       *time.Timer // releases locks that were kept,
	retried    bool        // unless they were taken again
}

func (c *commitLocks) init() {
	c.last = map[zeolite.OID]*commitLock{}
	c.active = map[*commitLock]struct{}{}
}

// acquire waits for the locks of some objects, or of the whole storage, until
// the context ends. oids may contain duplicates.
func (c *commitLocks) acquire(ctx context.Context, oids []zeolite.OID, whole bool) (*commitLock, error) {
	l := &commitLock{locks: c, oids: oids, whole: whole, granted: make(chan struct{})}
	c.mu.Lock()
	c.enqueue(l)
	c.mu.Unlock()
	select {
	case <-l.granted:
		return l, nil
	case <-ctx.Done():
		l.release()
		return nil, context.Cause(ctx)
	}
}

// try takes the locks of some objects, if that needs no waiting. It returns nil
// if it does.
func (c *commitLocks) try(oids []zeolite.OID) *commitLock {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.whole != nil {
		return nil
	}
	for _, oid := range oids {
		if c.last[oid] != nil {
			return nil
		}
	}
	l := &commitLock{locks: c, oids: oids, granted: make(chan struct{})}
	c.enqueue(l)
	return l
}

func (c *commitLocks) enqueue(l *commitLock) {
	if l.whole {
		for other := range c.active {
			l.waitFor(other)
		}
		c.whole = l
	} else {
		if c.whole != nil {
			l.waitFor(c.whole)
		}
		for _, oid := range l.oids {
			if other := c.last[oid]; other != nil && other != l {
				l.waitFor(other)
			}
			c.last[oid] = l
		}
	}
	c.active[l] = struct{}{}
	c.waiting++
	if l.blockers == 0 {
		c.grant(l)
	}
}

func (l *commitLock) waitFor(other *commitLock) {
	// Several objects in common make several entries, which cancel out.
	other.dependents = append(other.dependents, l)
	l.blockers++
}

func (c *commitLocks) grant(l *commitLock) {
	c.waiting--
	if l.gone {
		c.remove(l)
		return
	}
	l.given = true
	if c.held == 0 {
		c.since = time.Now()
	}
	c.held++
	close(l.granted)
}

// covers tells whether the locks are enough for these objects.
func (l *commitLock) covers(oids []zeolite.OID, whole bool) bool {
	if l.whole || whole {
		return l.whole
	}
	held := make(map[zeolite.OID]struct{}, len(l.oids))
	for _, oid := range l.oids {
		held[oid] = struct{}{}
	}
	for _, oid := range oids {
		if _, ok := held[oid]; !ok {
			return false
		}
	}
	return true
}

// release lets go of the locks, or of the place in the queue. It may be called
// more than once.
func (l *commitLock) release() {
	l.locks.mu.Lock()
	defer l.locks.mu.Unlock()
	l.releaseLocked()
}

func (l *commitLock) releaseLocked() {
	c := l.locks
	if l.gone {
		return
	}
	l.gone = true
	// One that still waits keeps its place, so that those behind it go on
	// waiting for those before it; it passes on the locks when they come.
	if l.given {
		c.held--
		c.remove(l)
	}
}

// keep lets whoever was granted locks hold them for a while after its
// transaction, for its next one. It does so once, and only if others wait for
// them, and more than so many for any; else they are as they were.
func (l *commitLock) keep(d time.Duration, many int) bool {
	l.locks.mu.Lock()
	defer l.locks.mu.Unlock()
	if l.gone || l.whole || l.retried || len(l.dependents) == 0 || l.locks.waiting <= many {
		return false
	}
	l.kept = time.AfterFunc(d, func() {
		l.locks.mu.Lock()
		defer l.locks.mu.Unlock()
		if !l.retried {
			l.releaseLocked()
		}
	})
	return true
}

// again takes locks that were kept, if they are still there and enough for these
// objects. Otherwise it releases them.
func (l *commitLock) again(oids []zeolite.OID, whole bool) bool {
	l.locks.mu.Lock()
	defer l.locks.mu.Unlock()
	l.kept.Stop()
	if !l.gone && l.covers(oids, whole) {
		l.retried = true
		return true
	}
	l.releaseLocked()
	return false
}

func (c *commitLocks) remove(l *commitLock) {
	delete(c.active, l)
	if c.whole == l {
		c.whole = nil
	}
	for _, oid := range l.oids {
		if c.last[oid] == l {
			delete(c.last, oid)
		}
	}
	for _, d := range l.dependents {
		if d.blockers--; d.blockers == 0 {
			c.grant(d)
		}
	}
	l.dependents = nil
}

// state returns how many transactions wait for locks and how many hold some,
// and since when the storage has been locked without a break.
func (c *commitLocks) state() (waiting, held int, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting, c.held, c.since
}
