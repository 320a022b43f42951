package zrpc

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
)

// Body is a run of bytes that a message carries without encoding it: the
// content of a bytes value, in memory or as a section of a file. It must not
// change until it was sent.
type Body struct {
	Bytes []byte
	// If File is not nil the body is N bytes of it from offset Off on.
	File *os.File
	Off  int64
	N    int
}

// Len returns the number of bytes of the body.
func (b *Body) Len() int {
	if b.File != nil {
		return b.N
	}
	return len(b.Bytes)
}

// unreadable is an error of reading a body's file, rather than of the network.
type unreadable struct{ error }

func (u unreadable) Unwrap() error { return u.error }

// readAt reads from the body's file. Its errors name the file.
func (b *Body) readAt(p []byte, off int64) error {
	n, err := b.File.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF): // the file has become shorter
		err = &fs.PathError{Op: "read", Path: b.File.Name(), Err: io.ErrUnexpectedEOF}
	}
	return unreadable{err}
}

// Message is a frame being made: an Encoder to fill, and at most one body that
// is sent from where it is. It belongs to one goroutine until it is sent.
type Message struct {
	Encoder
	body   Body
	bodyAt int // where in Buf the body goes, if it is not empty
	near   bool
	join   bool
	reply  bool
	// release, if set, is called when the body has been sent or dropped.
	release func()
}

var messagePool = sync.Pool{New: func() any { return &Message{} }}

// newMessage returns an empty message with room for the frame header.
func newMessage(enc Encoding) *Message {
	m := messagePool.Get().(*Message)
	m.Encoder = NewEncoder(enc, append(m.Buf[:0], 0, 0, 0, 0))
	return m
}

// BytesBody adds a bytes value whose content is sent from where it is.
func (m *Message) BytesBody(b Body) {
	m.BytesHeader(b.Len())
	m.body, m.bodyAt = b, len(m.Buf)
}

// Sizes in bytes of a body that is a piece of a file: the larger it is the less
// its head costs, and the longer others wait behind it.
const (
	filePiece     = 64 << 10
	nearFilePiece = 256 << 10 // for a peer that is near, which has it at once
)

// FilePiece returns how many bytes of a file a message of a stream should have
// for its body.
func (m *Message) FilePiece() int {
	if m.near {
		return nearFilePiece
	}
	return filePiece
}

// JoinNext says of a message of a stream that it may leave with the next one,
// which is asked for before this one was written. It is for small messages.
func (m *Message) JoinNext() { m.join = true }

// seal fills in the frame header.
func (m *Message) seal() {
	PutFrameHeader(m.Buf, m.size()-FrameHeaderLen)
}

// size is the length of the whole frame.
func (m *Message) size() int { return len(m.Buf) + m.body.Len() }

// head and tail are the encoded bytes before and after the body.
func (m *Message) head() []byte {
	if m.bodyAt == 0 {
		return m.Buf
	}
	return m.Buf[:m.bodyAt]
}

func (m *Message) tail() []byte {
	if m.bodyAt == 0 {
		return nil
	}
	return m.Buf[m.bodyAt:]
}

// free returns the message to its pool.
func (m *Message) free() {
	if m.release != nil {
		m.release()
	}
	buf := m.Buf
	if cap(buf) > 64<<10 {
		buf = nil
	}
	*m = Message{}
	m.Buf = buf[:0]
	messagePool.Put(m)
}

// Frame makes a whole frame of a one-way call, to be posted to any number of
// connections of that encoding. fill adds the arguments, as one tuple.
func Frame(enc Encoding, name string, fill func(*Encoder)) ([]byte, error) {
	m := Message{Encoder: NewEncoder(enc, make([]byte, FrameHeaderLen, 128))}
	m.BeginSend(name)
	fill(&m.Encoder)
	m.End()
	m.seal()
	return m.Buf, m.Err()
}
