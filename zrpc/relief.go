package zrpc

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// This file has how the reading goroutine does what can take long, but seldom
// does: write to a disk. As a rule it is back before another goroutine would have
// begun with it, with no thread woken; if not, another one takes over the reading.

// reliefPeriod is the time between two looks at whether the reading goroutine is
// back. It is missed at the second one.
const reliefPeriod = 5 * time.Millisecond

// errRelieved ends a reading goroutine that another one has taken over from.
var errRelieved = errors.New("zrpc: another goroutine reads")

// relief watches the reading goroutine of a connection while that is away. It
// is safe for concurrent use.
type relief struct {
	reader atomic.Int64 // the number of the goroutine that reads; changes with mu held

	mu    sync.Mutex
	timer *time.Timer // looks, while armed
	armed bool
	away  bool // the reader is in MayBlock
	fresh bool // it went there since the last look
}

// MayBlock runs f in the reading goroutine. f may wait, for a disk or a lock, but
// seldom does so for long; when it has not returned after some milliseconds,
// another goroutine reads on. Only a handler may call it, as the last thing it
// does. What it held is sent before f, what f queues is sent behind it.
func (c *Conn) MayBlock(f func()) {
	c.Flush()
	r := &c.relief
	r.mu.Lock()
	reader := r.reader.Load()
	r.away, r.fresh = true, true
	if !r.armed {
		r.armed = true
		if r.timer == nil {
			r.timer = time.AfterFunc(reliefPeriod, c.relieve)
		} else {
			r.timer.Reset(reliefPeriod)
		}
	}
	r.mu.Unlock()

	f()

	r.mu.Lock()
	if r.reader.Load() == reader {
		r.away = false
	}
	r.mu.Unlock()
	c.Push()
}

// relieve is what the timer does. If the reading goroutine has not gone away since
// the last look, it looks no more, and starts another one if it is away still.
func (c *Conn) relieve() {
	r := &c.relief
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fresh {
		r.fresh = false
		r.timer.Reset(reliefPeriod)
		return
	}
	r.armed = false
	if r.away {
		r.away = false
		reader := r.reader.Add(1)
		// Nobody waits in vain: the goroutine that is away is counted still.
		c.goroutines.Go(func() { c.read(reader) })
	}
}

// read reads until the connection ends, or somebody else does.
func (c *Conn) read(reader int64) {
	if err := c.readAll(reader); !errors.Is(err, errRelieved) {
		c.End(err)
	}
}
