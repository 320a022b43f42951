package load

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/stats"
)

// An event is an invalidation that arrived, and was read.
type event struct {
	tid      uint64
	at, read time.Time
}

// FanOut measures how long it takes from the moment a client asks to finish a
// transaction of Records records until the invalidation has arrived at each of
// Conns listeners. The client commits every pace, unless the one before is not
// done yet.
func FanOut(o Options, pace time.Duration) (*Result, error) {
	o.setDefaults()
	one := o
	one.Conns, one.Depth, one.Objects = 1, 1, o.Records // the listeners have none of their own
	serials, err := Prepare(one)
	if err != nil {
		return nil, err
	}
	writer, err := Dial(o.Target)
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	listeners, err := dialAll(o.Target, o.Conns)
	if err != nil {
		return nil, err
	}
	defer closeAll(listeners)
	for _, c := range listeners {
		if c.arrivals, err = newArrivals(c.net); err != nil {
			return nil, err
		}
	}
	heard := make([][]event, len(listeners))
	errs := make([]error, len(listeners))
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, c := range listeners {
		wg.Go(func() { heard[i], errs[i] = c.listen() })
	}
	w := &committer{options: o, first: o.FirstOID, serials: serials}
	sent, err := w.paced(writer, pace)
	if err != nil {
		closeAll(listeners)
		return nil, err
	}
	// The reply to a ping comes after the invalidations of all that was
	// committed before.
	for _, c := range listeners {
		if _, err := c.net.Write(appendCall(nil, c.enc, 1, false, "ping")); err != nil {
			return nil, err
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	r, err := fanOut(o, sent, heard)
	if err != nil {
		return nil, err
	}
	for _, c := range listeners {
		r.Disordered += c.disordered
	}
	return r, nil
}

// arrival is when what was received last had come, as well as is known.
func (c *Conn) arrival() time.Time {
	if c.arrivals == nil {
		return c.now
	}
	return c.arrived
}

// listen takes invalidations until there is a reply.
func (c *Conn) listen() (heard []event, err error) {
	c.onInvalidation = func(tid uint64, now time.Time) { heard = append(heard, event{tid, c.arrival(), now}) }
	_, err = c.reply()
	return heard, err
}

// paced commits at a fixed pace, and returns when each tid was asked for, of
// those in the measured time.
func (w *committer) paced(c *Conn, pace time.Duration) (map[uint64]time.Time, error) {
	o := w.options
	sent := map[uint64]time.Time{}
	start := time.Now().Add(o.Warmup)
	probed := false
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for now := time.Now(); now.Before(start.Add(o.Time)); now = <-ticker.C {
		if !probed && !now.Before(start) && o.Probe != nil {
			o.Probe()
			probed = true
		}
		t, err := w.store(c)
		if err != nil {
			return nil, err
		}
		if ok, err := t.vote(); err != nil {
			return nil, err
		} else if !ok {
			return nil, errConflict
		}
		asked := time.Now()
		tid, err := t.finish()
		if err != nil {
			return nil, err
		}
		for i := range w.serials {
			w.serials[i] = tid
		}
		if !asked.Before(start) {
			sent[tid] = asked
		}
	}
	if o.Probe != nil {
		o.Probe()
	}
	return sent, nil
}

// fanOut compares when transactions were asked for with when they were heard
// of.
func fanOut(o Options, sent map[uint64]time.Time, heard [][]event) (*Result, error) {
	r := &Result{Seconds: o.Time.Seconds()}
	var latency, read stats.Histogram
	for i, events := range heard {
		n := 0
		for _, e := range events {
			if asked, ok := sent[e.tid]; ok {
				latency.Add(e.at.Sub(asked))
				read.Add(e.read.Sub(asked))
				n++
			}
		}
		if n != len(sent) {
			return nil, fmt.Errorf("listener %d heard of %d transactions, of %d", i, n, len(sent))
		}
	}
	r.Ops, r.Latency, r.Read = latency.Count(), latency, read
	return r, nil
}

// Idle opens Conns connections that do nothing, and calls with between: then
// they are there.
func Idle(o Options, with func() error) error {
	conns, err := dialAll(o.Target, o.Conns)
	if err != nil {
		return err
	}
	defer closeAll(conns)
	return with()
}
