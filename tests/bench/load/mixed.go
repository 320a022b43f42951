package load

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// MixedResult is what was measured.
type MixedResult struct {
	Loads Result
	Blob  Result
}

// Streams measures the rate of downloads, over and over, of a blob of so many
// bytes. It belongs to the object behind the last one that is loaded.
func Streams(o Options, size int64) (*Result, error) {
	o.setDefaults()
	d, err := prepareStream(o, size)
	if err != nil {
		return nil, err
	}
	o.Pace = 0
	return o.run([]worker{func(c *Conn, m *meter) error {
		d.enc = c.enc
		return o.repeat(m, func() error { return d.get(c, m) })
	}})
}

// MixedWork measures the latency of loads, one every Pace, beside such a
// stream on the same connection, and the rate of that.
func MixedWork(o Options, size int64) (*MixedResult, error) {
	o.setDefaults()
	serials, err := Prepare(o)
	if err != nil {
		return nil, err
	}
	d, err := prepareStream(o, size)
	if err != nil {
		return nil, err
	}
	// Loads and blob have meters of their own, so the result is put together
	// here and not by measure.
	var loads, blob meter
	r, err := o.run([]worker{func(c *Conn, m *meter) error {
		loads.window, blob.window = m.window, m.window
		return pacedLoads(c, o, serials, &loads, d, &blob)
	}})
	if err != nil {
		return nil, err
	}
	result := &MixedResult{Loads: Result{Seconds: r.Seconds}, Blob: Result{Seconds: r.Seconds, Bytes: blob.bytes}}
	result.Loads.add(&loads)
	return result, nil
}

// prepareStream makes sure that the blob is there.
func prepareStream(o Options, size int64) (*download, error) {
	o.FirstOID, o.Size = o.FirstOID+uint64(o.Objects), size
	serials, err := prepareBlobs(o, 1)
	if err != nil {
		return nil, err
	}
	return &download{oid: o.FirstOID, tid: serials[0], size: size}, nil
}

// pacedLoads sends a load every Pace unless one is under way, and keeps a
// download going.
func pacedLoads(c *Conn, o Options, serials []uint64, m *meter, d *download, blob *meter) error {
	p := &pacer{net: c.net, call: newLoadCall(c.enc, o.FirstOID), first: o.FirstOID, objects: uint64(o.Objects)}
	stop := p.run(o.Pace)
	defer stop()
	d.enc = c.enc
	c.onBlob = d.counted(c, blob)
	if err := startDownload(c, d); err != nil {
		return err
	}
	for !m.window.over(time.Now()) {
		r, err := c.reply()
		if err != nil {
			return err
		}
		if r.pair == (pair{}) {
			if r.id != int64(c.nextID) {
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

	mu      sync.Mutex
	pending bool
	n       uint64 // loads that were sent
	sent    time.Time
}

// run sends until stop is called.
func (p *pacer) run(pace time.Duration) (stop func()) {
	var stopped atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for b := (beat{pace: pace}); ; {
			b.wait()
			if stopped.Load() || p.tick() != nil { // who reads sees it, too
				return
			}
		}
	})
	return func() { stopped.Store(true); wg.Wait() }
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
