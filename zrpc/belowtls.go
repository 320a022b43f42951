package zrpc

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
)

// BelowTLS returns what crypto/tls is to use in place of nc. TLS reads and writes
// record by record, of at most 16 KiB, each with a system call; with this below it,
// the records of what is sent together leave together, and so do those come that
// arrive together.
func BelowTLS(nc net.Conn) net.Conn { return &belowTLS{Conn: nc} }

// tlsBuffer is the size of what is read and written at once, in bytes: of a piece
// of a blob with all that is around it.
const tlsBuffer = 72 << 10

// belowTLS is the connection between TLS and the socket. Read is for one goroutine
// at a time, cork and uncork are for the writing goroutine of a Conn, and the rest
// is safe for concurrent use: TLS says goodbye, or changes its keys, when it likes.
type belowTLS struct {
	net.Conn

	arrived *Buffer // what was read ahead and not taken; nil if nothing
	taken   int     // of it
	more    bool    // what was read last was all there was room for

	mu     sync.Mutex
	corked bool
	out    *Buffer // while corked; nil if there is nothing
	err    error   // of the socket, which gets nothing any more

	flushing  atomic.Bool // by uncork, of which TLS does not know
	abandoned atomic.Bool
}

// under returns what BelowTLS made, if nc is a TLS connection on it.
func under(nc net.Conn) *belowTLS {
	if tc, ok := nc.(*tls.Conn); ok {
		if b, ok := tc.NetConn().(*belowTLS); ok {
			return b
		}
	}
	return nil
}

// NetConn returns the connection below, as that of tls.Conn does.
func (b *belowTLS) NetConn() net.Conn { return b.Conn }

// Read reads into p while little arrives, so that a connection that rests has no
// buffer, and reads ahead when there is more at hand.
func (b *belowTLS) Read(p []byte) (int, error) {
	if b.arrived == nil {
		if !b.more {
			n, err := b.Conn.Read(p)
			b.more = n == len(p)
			return n, err
		}
		in := GetBuffer(tlsBuffer)
		n, err := b.Conn.Read(in.B)
		b.more = n == len(in.B)
		if n == 0 {
			in.Release()
			return 0, err
		}
		in.B = in.B[:n] // an error comes again
		b.arrived, b.taken = in, 0
	}
	n := copy(p, b.arrived.B[b.taken:])
	if b.taken += n; b.taken == len(b.arrived.B) {
		b.arrived.Release()
		b.arrived = nil
	}
	return n, nil
}

// Write sends a record, or keeps it until uncork.
func (b *belowTLS) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.corked {
		if err := b.flush(); err != nil { // left there by abandon
			return 0, err
		}
		return b.send(p)
	}
	if b.out != nil && len(b.out.B)+len(p) > tlsBuffer {
		if err := b.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) > tlsBuffer {
		return b.send(p)
	}
	if b.out == nil {
		b.out = GetBuffer(tlsBuffer)
		b.out.B = b.out.B[:0]
	}
	b.out.B = append(b.out.B, p...)
	return len(p), nil
}

// send writes to the socket. The caller holds mu.
func (b *belowTLS) send(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	n, b.err = b.Conn.Write(p)
	return n, b.err
}

// flush sends what was kept. The caller holds mu.
func (b *belowTLS) flush() error {
	out := b.out
	if out == nil {
		return b.err
	}
	b.out = nil
	defer out.Release()
	_, err := b.send(out.B)
	return err
}

// cork keeps what is written from now on. Nil is a connection without TLS.
func (b *belowTLS) cork() {
	if b != nil {
		b.mu.Lock()
		b.corked = true
		b.mu.Unlock()
	}
}

// uncork sends what was kept.
func (b *belowTLS) uncork() error {
	if b == nil {
		return nil
	}
	b.flushing.Store(true)
	defer b.flushing.Store(false)
	if b.abandoned.Load() {
		return net.ErrClosed
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.corked = false
	return b.flush()
}

// abandon is called before the TLS connection is closed. As TLS does with a write
// of its own, it breaks off one of uncork: else the goodbye would wait behind what
// the peer does not read. What was kept leaves with the goodbye, for which TLS
// takes a few seconds at most.
func (b *belowTLS) abandon() {
	if b == nil {
		return
	}
	b.abandoned.Store(true)
	if b.flushing.Load() {
		_ = b.Conn.Close()
		return
	}
	if b.mu.TryLock() { // else TLS is writing, and closes at once
		b.corked = false
		b.mu.Unlock()
	}
}
