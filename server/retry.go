package server

import (
	"time"

	"github.com/zeolite-go/zeolite"
)

// When many clients commit to the same objects at the same time, those that wait
// for the locks are going to meet a conflict, all but the first: when it commits,
// what they have seen is old. If each that was told so went to the end of the queue,
// all would have to be told again for each transaction that succeeds. So who is told
// keeps its locks for a moment, and when it comes back, having seen what is new, its
// next transaction is the one that succeeds. The others lose nothing by waiting: all
// they will get is bad news.
//
// That pays if many wait, and the client takes not much longer to come back than it
// would take to tell them all. Few do better without: the one that committed last
// need not load anything, and is soon back.

const (
	// retryQuick is the time within which a client must have come back the last
	// time: an application that runs its transaction again does. After a longer
	// time it is not likely to come back for that, and others waited for nothing.
	retryQuick = 100 * time.Millisecond
	// retryFirst is how long locks are kept for a client that has not met a
	// conflict before; afterwards it is retryTimes what it took the last time,
	// from retryLeast on.
	retryFirst = 10 * time.Millisecond
	retryLeast = time.Millisecond
	retryTimes = 2
)

// retry is what a client has between a transaction that met a conflict and the
// next one. It belongs to the client's ordered lane.
type retry struct {
	first time.Duration // retryFirst, but in tests

	kept *commitLock
	told time.Time     // when the transaction ended, zero if not with a conflict
	took time.Duration // until the vote of the next one, the last time
}

// keep takes over the locks of a transaction that met a conflict, if that pays, or
// else returns them. It follows the transaction's end; held is how long it has had
// the locks.
func (r *retry) keep(l *commitLock, held time.Duration) *commitLock {
	r.told = time.Now()
	if l == nil || r.took > retryQuick {
		return l
	}
	d := r.first
	if r.took > 0 {
		d = max(retryTimes*r.took, retryLeast)
	}
	if !l.keep(d, int(r.took/(2*max(held, 1)))) {
		return l
	}
	r.kept = l
	return nil
}

// comes takes down that the next vote is there.
func (r *retry) comes() {
	if !r.told.IsZero() {
		r.took = time.Since(r.told)
		r.told = time.Time{}
	}
}

// take returns the locks that were kept, if there are any still and they are
// enough for these objects.
func (r *retry) take(oids []zeolite.OID, whole bool) *commitLock {
	l := r.kept
	r.kept = nil
	if l == nil || !l.again(oids, whole) {
		return nil
	}
	return l
}

// drop releases what was kept.
func (r *retry) drop() {
	if r.kept != nil {
		r.kept.release()
		r.kept = nil
	}
}
