package server

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeolite-go/zeolite/zrpc"
)

// orderedLane runs calls one after another, in the order in which they came. It
// has a goroutine only while there are some.
type orderedLane struct {
	run     func(*zrpc.Call)
	push    func() // sends what run has queued
	room    func() // waits while the client leaves too much unread
	workers *workers

	mu      sync.Mutex
	changed sync.Cond
	calls   []*zrpc.Call
	bytes   int
	running bool
	closed  bool
}

// orderedBytes bounds what waits in an ordered lane: a piece of an upload or
// two, while the one before goes to disk.
const orderedBytes = 256 << 10

func (l *orderedLane) init(run func(*zrpc.Call), push, room func(), w *workers) {
	l.run, l.push, l.room, l.workers = run, push, room, w
	l.changed.L = &l.mu
}

// put adds a call. It blocks the reader of the connection while much waits
// already: the client would only fill our memory.
func (l *orderedLane) put(call *zrpc.Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.bytes >= orderedBytes && !l.closed {
		l.changed.Wait()
	}
	if l.closed {
		call.Release()
		return
	}
	l.calls = append(l.calls, call)
	l.bytes += call.Size()
	if !l.running {
		l.running = true
		l.workers.do(job{l, nil})
	}
}

// enter lets the caller, who is the only one to put, run a call itself if
// nothing runs or waits. leave follows.
func (l *orderedLane) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running || l.closed {
		return false
	}
	l.running = true
	return true
}

// leave gives the lane back, to calls that came meanwhile, if there are any.
func (l *orderedLane) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = len(l.calls) > 0 && !l.closed
	l.changed.Broadcast()
	if l.running {
		l.workers.do(job{l, nil})
	}
}

// work runs the calls that wait, until there are none. Of each it sends what it
// queued, and of the last one when the lane is at rest: so that what comes next
// finds it so. It waits for room before each but the first, for which the reader
// of the connection has: a small call may have a large reply.
func (l *orderedLane) work(*zrpc.Call) {
	l.mu.Lock()
	for len(l.calls) > 0 && !l.closed {
		call := l.calls[0]
		l.calls[0] = nil
		l.calls = l.calls[1:]
		size := call.Size()
		l.mu.Unlock()
		l.run(call)
		l.mu.Lock()
		l.bytes -= size
		l.changed.Broadcast()
		if len(l.calls) > 0 {
			l.mu.Unlock()
			l.push()
			l.room()
			l.mu.Lock()
		}
	}
	l.calls = nil
	l.running = false
	l.changed.Broadcast()
	l.mu.Unlock()
	l.push()
}

// waiting returns the number of calls that wait for the one that runs.
func (l *orderedLane) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.calls)
}

// idle waits until nothing runs or waits in the lane, until the deadline.
func (l *orderedLane) idle(deadline time.Time) {
	timer := time.AfterFunc(time.Until(deadline), func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.changed.Broadcast()
	})
	defer timer.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.running && time.Now().Before(deadline) {
		l.changed.Wait()
	}
}

// close drops what waits, and waits for the call that runs.
func (l *orderedLane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.changed.Broadcast()
	for l.running {
		l.changed.Wait()
	}
}

// freeLane runs calls by up to a number of workers. Only the reader of the
// connection puts calls into it.
type freeLane struct {
	run     func(*zrpc.Call)
	workers *workers
	slots   chan struct{}
	ended   <-chan struct{} // the connection's end
	busy    sync.WaitGroup
}

func (l *freeLane) init(run func(*zrpc.Call), w *workers, most int, ended <-chan struct{}) {
	l.run, l.workers, l.ended = run, w, ended
	l.slots = make(chan struct{}, most)
}

// put runs a call, as soon as fewer than the most are running. It is never
// called after close.
func (l *freeLane) put(call *zrpc.Call) {
	select {
	case l.slots <- struct{}{}:
	case <-l.ended:
		call.Release()
		return
	}
	l.busy.Add(1)
	l.workers.do(job{l, call})
}

func (l *freeLane) work(call *zrpc.Call) {
	defer l.busy.Done()
	defer func() { <-l.slots }()
	l.run(call)
}

// close waits for the calls that run.
func (l *freeLane) close() { l.busy.Wait() }

// job is what a lane has to do: a call, for a free one.
type job struct {
	lane interface{ work(call *zrpc.Call) }
	call *zrpc.Call
}

// workers are the goroutines that run the calls of all lanes. How many may run
// is up to the lanes; here those that have nothing to do are kept for the next
// call, so that a call costs no new goroutine, whose stack would have to grow
// first. It is safe for concurrent use.
type workers struct {
	jobs   chan job
	parked atomic.Int32
}

// maxParked is how many goroutines are kept.
const maxParked = 64

func (w *workers) init() { w.jobs = make(chan job) }

// do runs a job in a goroutine of its own.
func (w *workers) do(j job) {
	select {
	case w.jobs <- j:
	default:
		go w.work(j)
	}
}

func (w *workers) work(j job) {
	for {
		j.lane.work(j.call)
		if w.parked.Add(1) > maxParked {
			w.parked.Add(-1)
			return
		}
		next, ok := <-w.jobs
		w.parked.Add(-1)
		if !ok {
			return
		}
		j = next
	}
}

// close ends the goroutines that have nothing to do. No job comes any more.
func (w *workers) close() { close(w.jobs) }
