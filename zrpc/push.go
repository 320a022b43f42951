package zrpc

import (
	"slices"
	"sync/atomic"
)

// This file has how a message leaves an outbox without the writing goroutine:
// whoever posted it writes it, if the socket takes it at once. That saves waking
// a goroutine up, which costs more than the write.

// queue is put for a message that push sends.
func (o *outbox) queue(m *Message) error {
	m.seal()
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err := o.add(m)
	return err
}

// putNow is put, and push if nothing is held.
func (o *outbox) putNow(m *Message, direct *directWriter) error {
	m.seal()
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := o.add(m); err != nil {
		return err
	}
	return o.pushLocked(direct)
}

// putIf is put on a condition: see Conn.PostIf.
func (o *outbox) putIf(m *Message, gate *atomic.Uint64, want uint64, direct *directWriter) (bool, error) {
	m.seal()
	o.mu.Lock()
	defer o.mu.Unlock()
	if gate.Load() != want {
		m.free()
		return false, nil
	}
	if _, err := o.add(m); err != nil {
		return true, err
	}
	return true, o.pushLocked(direct)
}

// hold makes ordinary messages wait for flush.
func (o *outbox) hold() {
	o.mu.Lock()
	o.held = true
	o.mu.Unlock()
}

// flush ends hold and pushes what waits.
func (o *outbox) flush(direct *directWriter) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held = false
	return o.pushLocked(direct)
}

// push sends what waits in the calling goroutine, with writes that do not
// block, if that is all there is to do; what is left is for the writing
// goroutine. While a hold lasts it sends nothing.
func (o *outbox) push(direct *directWriter) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pushLocked(direct)
}

// maxPushes is how many writes of what others post meanwhile a push does.
const maxPushes = 2

func (o *outbox) pushLocked(direct *directWriter) error {
	if o.held || o.writing || o.flushing {
		o.signal()
		return nil
	}
	for range maxPushes {
		if o.ended || len(o.parts) != 1 || o.parts[0].joined == nil || direct == nil {
			break
		}
		whole, err := o.pushOne(direct)
		if err != nil {
			return err
		}
		if !whole {
			break
		}
	}
	// The writing goroutine waited, or what was posted meanwhile did.
	if len(o.parts) > 0 || len(o.turns)+len(o.series) > 0 || o.ended || o.finishing {
		o.more.Signal()
	}
	return nil
}

// pushOne writes the one buffer that waits. It is not whole if there was room
// for the beginning only.
func (o *outbox) pushOne(direct *directWriter) (whole bool, err error) {
	p := o.parts[0]
	b := p.joined
	o.parts[0] = part{}
	o.parts = o.parts[:0]
	o.taken = o.posted
	o.flushing = true
	o.mu.Unlock()
	n, err := direct.write(b.B)
	o.sent.Add(int64(n))
	o.mu.Lock()
	o.flushing = false
	whole = n == len(b.B)
	if !whole && err == nil {
		b.B = b.B[:copy(b.B, b.B[n:])]
		o.parts = slices.Insert(o.parts, 0, p)
		p.unasked = 0 // until all of it is written
	} else {
		b.Release()
	}
	o.wroteLocked(n, p.unasked)
	return whole, err
}
