package load

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Mixed says what goes on at the same time.
type Mixed struct {
	// Loads sends a load every Pace, if the one before is answered.
	Loads bool
	Pace  time.Duration
	// BlobSize, if it is not zero, downloads a blob of that size, over and
	// over: on the connection of the loads, or on another one.
	BlobSize       int64
	SameConnection bool
}

// MixedResult is what was measured.
type MixedResult struct {
	Loads Result
	Blob  Result
}

// MixedWork measures the latency of loads at a fixed pace, and the rate of a
// download, together or alone. The blob belongs to the object behind the last
// one that is loaded.
func MixedWork(o Options, x Mixed) (*MixedResult, error) {
	o.setDefaults()
	serials, err := Prepare(o)
	if err != nil {
		return nil, err
	}
	var d *download
	if x.BlobSize > 0 {
		b := o
		b.FirstOID, b.Size = o.FirstOID+uint64(o.Objects), x.BlobSize
		blob, err := prepareBlobs(b, 1)
		if err != nil {
			return nil, err
		}
		d = &download{oid: b.FirstOID, tid: blob[0], size: b.Size}
	}
	// Loads and blob have meters of their own, so the result is put together
	// here and not by measure.
	var loads, blob meter
	paced := func(with *download) worker {
		return func(c *Conn, m *meter) error {
			loads.window, blob.window = m.window, m.window
			return pacedLoads(c, o, x.Pace, serials, &loads, with, &blob)
		}
	}
	streaming := func(c *Conn, m *meter) error {
		d.enc = c.enc
		return o.repeat(m, func() error { return d.get(c, m) })
	}
	var workers []worker
	switch {
	case x.Loads && d != nil && x.SameConnection:
		workers = []worker{paced(d)}
	case x.Loads && d != nil:
		workers = []worker{paced(nil), streaming}
	case x.Loads:
		workers = []worker{paced(nil)}
	case d != nil:
		workers = []worker{streaming}
	default:
		return nil, errors.New("nothing to do")
	}
	r, err := o.run(workers)
	if err != nil {
		return nil, err
	}
	result := &MixedResult{Loads: Result{Seconds: r.Seconds}, Blob: Result{Seconds: r.Seconds, Bytes: r.Bytes + blob.bytes}}
	result.Loads.add(&loads)
	return result, nil
}

// pacedLoads sends a load at every tick unless one is under way, and keeps a
// download going on the same connection, if there is one to do.
func pacedLoads(c *Conn, o Options, pace time.Duration, serials []uint64, m *meter, d *download, blob *meter) error {
	p := &pacer{net: c.net, call: newLoadCall(c.enc, o.FirstOID), first: o.FirstOID, objects: uint64(o.Objects), start: m.window.start}
	stop := p.run(pace)
	defer stop()
	if d != nil {
		d.enc = c.enc
		c.onBlob = d.counted(c, blob)
		if err := startDownload(c, d); err != nil {
			return err
		}
	}
	for !m.window.over(time.Now()) {
		r, err := c.reply()
		if err != nil {
			return err
		}
		if r.pair == (pair{}) {
			if d == nil || r.id != int64(c.nextID) {
				return errors.New("a reply nobody asked for")
			}
			if err := d.complete(); err != nil {
				return err
			}
			if err := startDownload(c, d); err != nil {
				return err
			}
			continue
		}
		oid, sent := p.answered()
		if r.pair[0] != oid {
			return fmt.Errorf("a reply for object %d, not %d", r.pair[0], oid)
		}
		if err := checkLoad(c.enc, r.args, int(o.Size), oid, serials[oid-o.FirstOID]); err != nil {
			return err
		}
		m.done(sent, c.now, o.Size)
	}
	return nil
}

// A pacer sends loads from a goroutine of its own, because the one of the
// connection waits for the server.
type pacer struct {
	net            io.Writer
	call           loadCall
	first, objects uint64
	start          time.Time

	mu      sync.Mutex
	pending bool
	n       uint64 // loads that were sent
	sent    time.Time
}

// run sends until stop is called.
func (p *pacer) run(pace time.Duration) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(pace)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				if p.tick() != nil {
					return // who reads sees it, too
				}
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// tick sends a load unless one is under way.
func (p *pacer) tick() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending {
		return nil
	}
	p.n++
	p.call.set(p.oid())
	p.pending, p.sent = true, time.Now()
	_, err := p.net.Write(p.call.frame)
	return err
}

// oid is the object of the load that was sent last.
func (p *pacer) oid() uint64 { return p.first + p.n%p.objects }

// answered ends the load under way.
func (p *pacer) answered() (oid uint64, sent time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending = false
	return p.oid(), p.sent
}

// startDownload asks for a blob and does not wait.
func startDownload(c *Conn, d *download) error {
	d.state, d.received = 0, 0
	c.nextID++
	if err := c.send(c.nextID, false, "sendBlob", d.oid, d.tid); err != nil {
		return err
	}
	return c.flush()
}
