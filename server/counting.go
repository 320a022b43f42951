package server

import (
	"sync/atomic"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// This file has what counts; stats.go has what can be read of it. Counting
// allocates nothing and takes no locks.

// serverCounters count what happens at a server as a whole. They are safe for
// concurrent use.
type serverCounters struct {
	accepted atomic.Int64
	refused  atomic.Int64
	received atomic.Int64
	sent     atomic.Int64               // on connections that have ended
	methods  map[string]*methodCounters // of every method; never changes
}

// methodCounters count the calls of one method.
type methodCounters struct {
	errors  atomic.Int64
	running atomic.Int64
	time    histogram
}

func (c *serverCounters) init() {
	c.methods = map[string]*methodCounters{}
	for _, name := range stubs.StorageServerMethods {
		c.methods[name] = &methodCounters{}
	}
}

// running is a call that is being run.
type running struct {
	method *methodCounters
	start  time.Time
}

// begin counts a call that is about to be run. end belongs to it.
func (c *serverCounters) begin(call *zrpc.Call) running {
	c.received.Add(int64(call.Size()) + frameHeader)
	method := c.methods[string(call.Name)]
	if method == nil {
		return running{}
	}
	method.running.Add(1)
	return running{method, time.Now()}
}

// frameHeader is the length in bytes of what is in front of a message.
const frameHeader = 4

func (r running) end() {
	if r.method != nil {
		r.method.running.Add(-1)
		r.method.time.observe(time.Since(r.start))
	}
}

// takeBack undoes begin: somebody else will run the call.
func (c *serverCounters) takeBack(call *zrpc.Call, r running) {
	c.received.Add(-int64(call.Size()) - frameHeader)
	if r.method != nil {
		r.method.running.Add(-1)
	}
}

// failed counts a call that is answered with an exception.
func (c *serverCounters) failed(call *zrpc.Call) {
	if m := c.methods[string(call.Name)]; m != nil {
		m.errors.Add(1)
	}
}

// bounds are the upper ends of the buckets of every histogram.
var bounds = [...]time.Duration{
	100 * time.Microsecond, 300 * time.Microsecond,
	time.Millisecond, 3 * time.Millisecond,
	10 * time.Millisecond, 30 * time.Millisecond,
	100 * time.Millisecond, 300 * time.Millisecond,
	time.Second, 3 * time.Second, 10 * time.Second, 30 * time.Second,
}

// histogram counts durations by size. It is safe for concurrent use.
type histogram struct {
	sum     atomic.Int64
	buckets [len(bounds) + 1]atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.sum.Add(int64(d))
	h.buckets[i].Add(1)
}

// streamCounters count blobs on their way to clients.
type streamCounters struct {
	active atomic.Int64
	whole  atomic.Int64
	failed atomic.Int64
	bytes  atomic.Int64
}

// packCounters describe the packs of a storage.
type packCounters struct {
	succeeded atomic.Int64
	failed    atomic.Int64
	last      atomic.Int64 // how long the last one took
	started   atomic.Int64 // UnixNano of the one that runs, else 0
	progress  atomic.Pointer[zeolite.PackProgress]
}

// begin counts a pack. end belongs to it.
func (p *packCounters) begin() { p.started.Store(time.Now().UnixNano()) }

// step takes down how far the pack is; it is a zeolite.PackOptions.Progress.
func (p *packCounters) step(progress zeolite.PackProgress) { p.progress.Store(&progress) }

func (p *packCounters) end(err error) {
	p.last.Store(time.Now().UnixNano() - p.started.Swap(0))
	p.progress.Store(nil)
	if err != nil {
		p.failed.Add(1)
	} else {
		p.succeeded.Add(1)
	}
}

// download counts a blob on its way to a client. The result is to be called at
// its end.
func (e *export) download() (done func(sent int64, whole bool)) {
	c := &e.counters.downloads
	c.active.Add(1)
	return func(sent int64, whole bool) {
		c.active.Add(-1)
		c.bytes.Add(sent)
		if whole {
			c.whole.Add(1)
		} else {
			c.failed.Add(1)
		}
	}
}
