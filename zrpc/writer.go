package zrpc

import (
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
)

// writer is the writing goroutine of a connection.
type writer struct {
	nc    net.Conn
	out   *outbox
	enc   Encoding
	files *fileSender // nil where sendfile does not work
	below *belowTLS   // nil without TLS
	near  bool        // with files: the peer is near
	bufs  net.Buffers
	flow  int // bytes of streams since Gosched
	// owed is the end of a message whose body was sent by sendfile, and messages
	// of streams that said JoinNext. It leaves with what is sent next, which
	// saves calls and packets; or at once, if there is nothing.
	owed []byte
}

// run writes until the outbox ends or something fails.
func (w *writer) run() error {
	var parts []part
	for {
		var st *stream
		var ok bool
		if len(w.owed) > 0 && !w.out.ready() {
			if err := w.flush(); err != nil {
				return err
			}
		}
		parts, st, ok = w.out.take(parts)
		if !ok {
			return nil
		}
		w.below.cork()
		if len(parts) > 0 {
			if err := w.writeParts(parts); err != nil {
				return err
			}
		}
		if st != nil {
			if err := w.step(st); err != nil {
				return err
			}
		}
		if err := w.below.uncork(); err != nil {
			return err
		}
	}
}

// step sends the next message of a stream.
func (w *writer) step(st *stream) error {
	m := newMessage(w.enc)
	m.near = w.near
	defer m.free()
	err := st.it.Next(m)
	if err == nil {
		err = m.Err()
	}
	switch {
	case err == nil:
		m.seal()
		n := m.size()
		w.out.sent.Add(int64(n))
		if m.join && m.body.Len() == 0 {
			w.owed = append(w.owed, m.Buf...)
			return nil
		}
		err = w.writeMessage(m)
		w.rest(n)
		if err != nil && errors.As(err, new(unreadable)) {
			if it, ok := st.it.(FileIterator); ok {
				err = it.Unreadable(err)
			}
		}
		return err
	case errors.Is(err, io.EOF):
		// Who waits for the stream's end may end the connection then.
		if err := w.flush(); err != nil {
			return err
		}
		w.out.remove(st)
		st.it.Close()
		return nil
	case errors.Is(err, ErrNotReady):
		w.out.park(st)
		return nil
	}
	return err
}

// writeParts sends all parts in one system call, as far as they are in memory.
func (w *writer) writeParts(parts []part) error {
	var err error
	n, unasked := 0, 0
	w.bufs = w.bufs[:0]
	for _, p := range parts {
		unasked += p.unasked
		switch {
		case p.joined != nil:
			n += len(p.joined.B)
			w.bufs = append(w.bufs, p.joined.B)
		case p.shared != nil:
			n += len(p.shared)
			w.bufs = append(w.bufs, p.shared)
		case p.m.body.File != nil:
			n += p.m.size()
			if err == nil {
				err = w.flush()
			}
			if err == nil {
				err = w.writeMessage(p.m)
			}
		default:
			n += p.m.size()
			w.bufs = append(w.bufs, p.m.head())
			for _, b := range [...][]byte{p.m.body.Bytes, p.m.tail()} {
				if len(b) > 0 {
					w.bufs = append(w.bufs, b)
				}
			}
		}
	}
	if err == nil {
		err = w.flush()
	}
	for i, p := range parts {
		p.free()
		parts[i] = part{}
	}
	w.out.sent.Add(int64(n))
	w.out.wrote(n, unasked)
	return err
}

// flush sends what is owed, and bufs behind it.
func (w *writer) flush() error {
	if len(w.owed) > 0 {
		w.bufs = slices.Insert(w.bufs, 0, w.owed)
		w.owed = w.owed[:0]
	}
	switch len(w.bufs) {
	case 0:
		return nil
	case 1:
		if len(w.bufs[0]) > writeAtOnce {
			break
		}
		_, err := w.nc.Write(w.bufs[0])
		w.bufs = w.bufs[:0]
		return err
	}
	// What is written consumes the slice; keep ours.
	all := w.bufs
	err := w.writeBufs()
	clear(all)
	w.bufs = all[:0]
	return err
}

// writeAtOnce is how much is written before it is said how far a batch is.
const writeAtOnce = 1 << 20

// writeBufs writes bufs.
func (w *writer) writeBufs() error {
	for {
		k, n := 0, 0
		for k < len(w.bufs) && n+len(w.bufs[k]) <= writeAtOnce {
			n += len(w.bufs[k])
			k++
		}
		if k == len(w.bufs) {
			_, err := w.bufs.WriteTo(w.nc)
			return err
		}
		some := w.bufs[:k]
		if k == 0 {
			some, n = net.Buffers{w.bufs[0][:writeAtOnce]}, writeAtOnce
			w.bufs[0] = w.bufs[0][writeAtOnce:]
		}
		if _, err := some.WriteTo(w.nc); err != nil {
			return err
		}
		w.bufs = w.bufs[k:]
		w.out.took.Add(int64(n))
	}
}

// writeMessage sends one message. If its body is in a file, that is done by
// sendfile, or by copying the body behind the head, so that it is one write.
func (w *writer) writeMessage(m *Message) error {
	if m.body.File != nil && w.files != nil && m.body.Len() >= sendfileFrom {
		head := m.head()
		if len(w.owed) > 0 {
			w.owed = append(w.owed, head...)
			head = w.owed
		}
		err := w.files.write(head, m)
		w.owed = append(w.owed[:0], m.tail()...)
		return err
	}
	n := m.body.Len()
	if n == 0 {
		w.bufs = append(w.bufs, m.Buf)
		return w.flush()
	}
	buf := GetBuffer(len(w.owed) + m.size())
	defer buf.Release()
	at := copy(buf.B, w.owed)
	w.owed = w.owed[:0]
	at += copy(buf.B[at:], m.head())
	body := buf.B[at : at+n]
	if m.body.File != nil {
		if err := m.body.readAt(body, m.body.Off); err != nil {
			return err
		}
	} else {
		copy(body, m.body.Bytes)
	}
	copy(buf.B[at+n:], m.tail())
	_, err := w.nc.Write(buf.B)
	return err
}

// lookAfter is how many bytes of streams are sent before others have their turn.
const lookAfter = 256 << 10

// rest is called when n bytes of a stream were sent, and lets others have the
// processor: threads, and every now and then goroutines. A stream whose peer is
// fast never blocks, and while it runs nothing makes Go's scheduler look at the
// network, not even on an idle processor: a call on another connection was
// noticed after 10 to 20 ms. Gosched wakes a thread that looks.
func (w *writer) rest(n int) {
	if w.flow += n; w.flow >= lookAfter {
		w.flow = 0
		runtime.Gosched()
	}
	yield()
}
