package filestorage

import (
	"sync"
	"time"
)

// What is behind the first blobDirect bytes of a blob may go past the page cache,
// where that is possible, in blocks of blobDirectBlock, each while the next one
// is received: finding memory for so much takes processor time, and drives out
// what is asked for more often. It takes memory for two blocks, so at most
// blobDirectMost uploads do it at a time.
const (
	blobDirect      = 4 << 20
	blobDirectBlock = 1 << 20
	blobDirectMost  = 2
)

const (
	blobTrial   = 16      // of so many uploads, one takes the other route
	blobMeasure = 8 << 20 // bytes behind the first blobDirect, from which on an upload tells something
)

// blobRoutes chooses the route of large uploads to the disk: through the page
// cache, or past it. Which one is faster depends on the disk: some take the many
// requests at once that the kernel makes of what is in its cache in half the
// time. So it goes by how long uploads waited for the disk that were alone, and
// prefers to go past the cache unless the other route is faster by a third. It
// is safe for concurrent use.
type blobRoutes struct {
	mu     sync.Mutex
	direct int        // uploads under way past the cache
	large  int        // all large uploads under way
	begun  uint64     // all that ever began
	since  int        // uploads that began alone since the last trial
	waits  [2]float64 // by route: time waited for a byte, in nanoseconds; 0 if not known
}

const (
	throughCache = iota
	pastCache
)

// blobTrip is the way of one large upload. It is used by one goroutine at a time.
type blobTrip struct {
	routes *blobRoutes
	route  int
	number uint64        // of the uploads that began
	alone  bool          // at its beginning
	from   int64         // bytes that were written before it
	waited time.Duration // for the disk
	slot   bool          // it counts as one past the cache
}

// begin chooses the route of an upload of which so many bytes were written.
func (r *blobRoutes) begin(written int64) *blobTrip {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun++
	t := &blobTrip{routes: r, route: pastCache, number: r.begun, alone: r.large == 0, from: written}
	r.large++
	cached, past := r.waits[throughCache], r.waits[pastCache]
	known := cached > 0 && past > 0
	if known && cached < past*3/4 {
		t.route = throughCache
	}
	if t.alone {
		if r.since++; r.since > blobTrial || !known && r.since > 1 {
			r.since = 0
			t.route = 1 - t.route
		}
	}
	switch {
	case t.route == throughCache:
	case r.direct == blobDirectMost:
		t.route = throughCache
	default:
		r.direct++
		t.slot = true
	}
	return t
}

// waitedSince counts the time from start on, which the upload waited. Before an
// upload is large nothing is counted.
func (t *blobTrip) waitedSince(start time.Time) {
	if t != nil {
		t.waited += time.Since(start)
	}
}

// leaveDirect says that the rest goes through the cache.
func (t *blobTrip) leaveDirect() {
	t.routes.mu.Lock()
	defer t.routes.mu.Unlock()
	if t.slot {
		t.slot = false
		t.routes.direct--
	}
}

// refused says that the file cannot be written past the cache: that tells
// nothing.
func (t *blobTrip) refused() {
	t.leaveDirect()
	t.alone = false
}

// durable says that all of the upload, so many bytes, is on the disk. It has
// told something if no other was under way meanwhile.
func (t *blobTrip) durable(written int64) {
	if t == nil || written-t.from < blobMeasure {
		return
	}
	r := t.routes
	r.mu.Lock()
	defer r.mu.Unlock()
	if !t.alone || r.begun != t.number {
		return
	}
	wait := max(float64(t.waited)/float64(written-t.from), 1e-9)
	if known := r.waits[t.route]; known > 0 {
		wait = known + (wait-known)/4
	}
	r.waits[t.route] = wait
}

// end is called when the upload has ended, whatever became of it.
func (t *blobTrip) end() {
	if t == nil {
		return
	}
	t.leaveDirect()
	t.routes.mu.Lock()
	defer t.routes.mu.Unlock()
	t.routes.large--
}
