package load

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/stats"
)

// Options say what to do to a server.
type Options struct {
	Target
	// Conns is the number of connections, Depth how many calls each has under
	// way.
	Conns, Depth int
	// Size of a record, or of a blob, in bytes.
	Size int64
	// Objects is how many objects there are to load, or to commit to.
	Objects int
	// Records is the number of records of a transaction.
	Records int
	// Overlap lets all connections commit to the same objects.
	Overlap bool
	// Piece is the size of the pieces in which blobs are sent.
	Piece int
	// FirstOID is the oid of the first object.
	FirstOID uint64
	// Warmup is not measured; Time is. A piece of work that takes long, as a
	// blob does, counts with the part of it that lies in this time.
	Warmup, Time time.Duration
	// Count, if it is not zero, measures so many blobs for each connection,
	// from the start of the first to the end of the last, instead of a time.
	Count int
	// Pace, if it is not zero, is how often a load, or an operation of Repeat,
	// begins on each connection, unless the one before is under way.
	Pace time.Duration
	// Ready, if set, is called when all is prepared; the warm-up begins when it
	// returns.
	Ready func()
	// Probe, if set, is called when the measured time starts and when it ends.
	Probe func()
}

// setDefaults fills in what is zero.
func (o *Options) setDefaults() {
	o.Conns = max(o.Conns, 1)
	o.Depth = max(o.Depth, 1)
	o.Objects = max(o.Objects, o.Conns*o.Depth)
	o.Records = max(o.Records, 1)
	if o.Size == 0 {
		o.Size = 1024
	}
	if o.Piece == 0 {
		o.Piece = 59000 // as Python's client
	}
	if o.FirstOID == 0 {
		o.FirstOID = 1
	}
	if o.Time == 0 {
		o.Time = 3 * time.Second
	}
}

// A Result is what was measured.
type Result struct {
	Ops       uint64 // calls, transactions or blobs
	Bytes     int64  // of records or blobs
	Conflicts uint64
	// Disordered counts invalidations, and ends of own commits, that came after
	// one with a larger tid: an error of the server.
	Disordered uint64
	Seconds    float64
	Latency    stats.Histogram
	// Read, of FanOut, is the latency until the generator had read the
	// invalidation. It shares the processors with the server.
	Read stats.Histogram
}

// A Summary is a result in figures, for people and for files.
type Summary struct {
	Ops        uint64
	Bytes      int64   `json:",omitempty"`
	Conflicts  uint64  `json:",omitempty"`
	Disordered uint64  `json:",omitempty"`
	Seconds    float64 // that were measured
	Rate       float64 // operations in a second
	// Latency in microseconds, from the sending of a call to the arrival of
	// its reply.
	P50, P90, P99, P999, Max float64
}

// Summary returns the figures.
func (r *Result) Summary() Summary {
	q := func(q float64) float64 { return float64(r.Latency.Quantile(q).Nanoseconds()) / 1e3 }
	return Summary{
		Ops: r.Ops, Bytes: r.Bytes, Conflicts: r.Conflicts, Disordered: r.Disordered, Seconds: r.Seconds, Rate: float64(r.Ops) / r.Seconds,
		P50: q(.5), P90: q(.9), P99: q(.99), P999: q(.999), Max: float64(r.Latency.Max().Nanoseconds()) / 1e3,
	}
}

// A meter is what one connection measures. It belongs to the connection's
// goroutine until that has ended.
type meter struct {
	window  *window
	latency stats.Histogram
	ops     uint64
	bytes   int64
	lost    uint64 // transactions that ended in a conflict
}

// done counts an operation that ended now.
func (m *meter) done(sent, now time.Time, bytes int64) {
	if m.window.includes(now) {
		m.ops++
		m.bytes += bytes
		m.latency.Add(now.Sub(sent))
	}
}

// A window is the time that is measured.
type window struct {
	start, end time.Time
	stopped    atomic.Bool // somebody failed
}

func (w *window) includes(now time.Time) bool { return !now.Before(w.start) && now.Before(w.end) }

// over tells that there is nothing more to do.
func (w *window) over(now time.Time) bool { return !now.Before(w.end) || w.stopped.Load() }

// A worker is what one connection does, until the window is over.
type worker func(c *Conn, m *meter) error

// run connects all workers, then lets them work at the same time.
func (o *Options) run(workers []worker) (*Result, error) {
	conns, err := dialAll(o.Target, len(workers))
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	tasks := make([]task, len(workers))
	for i, work := range workers {
		c := conns[i]
		c.enlarge()
		if err := c.net.SetDeadline(time.Now().Add(o.Warmup + o.Time + callTimeout + time.Duration(o.Count)*callTimeout)); err != nil {
			return nil, err
		}
		tasks[i] = func(m *meter) error { return work(c, m) }
	}
	r, err := o.measure(tasks, func() { closeAll(conns) })
	if err != nil {
		return nil, err
	}
	for _, c := range conns {
		r.Disordered += c.disordered
	}
	return r, nil
}

// A task is what one goroutine does, until the window is over.
type task func(m *meter) error

// measure runs all tasks at the same time. If one fails, giveUp makes the
// others return.
func (o *Options) measure(tasks []task, giveUp func()) (*Result, error) {
	if o.Ready != nil {
		o.Ready()
	}
	start := time.Now().Add(o.Warmup)
	w := &window{start: start, end: start.Add(o.Time)}
	if o.Count > 0 {
		w = &window{start: time.Now(), end: start.Add(countedTime)}
	}
	meters := make([]meter, len(tasks))
	errs := make([]error, len(tasks))
	var wg sync.WaitGroup
	for i, do := range tasks {
		meters[i].window = w
		wg.Go(func() {
			if errs[i] = do(&meters[i]); errs[i] != nil && !w.stopped.Swap(true) {
				giveUp()
			}
		})
	}
	o.probe(w)
	wg.Wait()
	if err := firstError(errs); err != nil {
		return nil, err
	}
	r := &Result{Seconds: o.Time.Seconds()}
	if o.Count > 0 {
		r.Seconds = time.Since(w.start).Seconds()
		if o.Probe != nil {
			o.Probe()
		}
	}
	for i := range meters {
		r.add(&meters[i])
	}
	return r, nil
}

// Repeat measures operations that are no calls of a ZEO server: each runs over
// and over in a goroutine of its own, and returns the bytes it carried. If one
// fails, giveUp makes the others return.
func Repeat(o Options, ops []func() (int64, error), giveUp func()) (*Result, error) {
	o.setDefaults()
	tasks := make([]task, len(ops))
	for i, op := range ops {
		tasks[i] = func(m *meter) error {
			return o.repeat(m, func() error {
				start := time.Now()
				n, err := op()
				m.done(start, time.Now(), n)
				return err
			})
		}
	}
	return o.measure(tasks, giveUp)
}

// countedTime is longer than any run that is counted takes.
const countedTime = time.Hour

// repeat does something Count times, or until the window is over, every Pace.
func (o *Options) repeat(m *meter, do func() error) error {
	b := beat{pace: o.Pace}
	for n := 0; ; n++ {
		b.wait()
		if m.window.over(time.Now()) || o.Count > 0 && n == o.Count {
			return nil
		}
		if err := do(); err != nil {
			return err
		}
	}
}

// probe calls Probe at the start of the window, and at its end unless that
// depends on the work.
func (o *Options) probe(w *window) {
	if o.Probe == nil {
		return
	}
	time.Sleep(time.Until(w.start))
	o.Probe()
	if o.Count > 0 {
		return
	}
	time.Sleep(time.Until(w.end))
	o.Probe()
}

func (r *Result) add(m *meter) {
	r.Ops += m.ops
	r.Bytes += m.bytes
	r.Conflicts += m.lost
	r.Latency.Merge(&m.latency)
}

// firstError returns the error that is not just a consequence of another one:
// a connection that was closed because of it.
func firstError(errs []error) error {
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	for i, e := range errs {
		if e != nil && !isClosed(e) {
			return fmt.Errorf("connection %d: %w", i, e)
		}
	}
	return err
}

// dialAll opens connections, a few at a time.
func dialAll(t Target, n int) ([]*Conn, error) {
	conns := make([]*Conn, n)
	errs := make([]error, n)
	turns := make(chan struct{}, 16)
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			conns[i], errs[i] = Dial(t)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		closeAll(conns)
		return nil, err
	}
	return conns, nil
}

func closeAll(conns []*Conn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}
