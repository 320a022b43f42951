package stubs

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// ChunkSize is the number of bytes of a blob that one message carries, except
// the last; from a file it may be more (zrpc.Message.FilePiece). A receiver takes
// any size.
const ChunkSize = 64 << 10

// fileBlob is a blob that is a file.
type fileBlob interface{ File() *os.File }

// chunks reads a blob piece by piece into messages.
type chunks struct {
	blob zeolite.Blob
	file *os.File // if the blob is one
	off  int64
	buf  *zrpc.Buffer
}

func newChunks(blob zeolite.Blob) chunks {
	c := chunks{blob: blob}
	if f, ok := blob.(fileBlob); ok {
		c.file = f.File()
	}
	return c
}

// next returns the next piece as a body for m, valid until the next call, and
// false at the end.
func (c *chunks) next(m *zrpc.Message) (zrpc.Body, bool, error) {
	size := ChunkSize
	if c.file != nil {
		size = m.FilePiece()
	}
	n := min(c.blob.Size()-c.off, int64(size))
	if n <= 0 {
		return zrpc.Body{}, false, nil
	}
	body := zrpc.Body{File: c.file, Off: c.off, N: int(n)}
	if c.file == nil {
		if c.buf == nil {
			c.buf = zrpc.GetBuffer(ChunkSize)
		}
		body.Bytes = c.buf.B[:n]
		if k, err := c.blob.ReadAt(body.Bytes, c.off); int64(k) < n {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return zrpc.Body{}, false, err
		}
	}
	c.off += n
	return body, true, nil
}

func (c *chunks) close() {
	c.buf.Release()
	c.buf = nil
	if c.blob != nil {
		c.blob.Close()
	}
}

// BlobDownload is the message iterator that answers sendBlob: receiveBlobStart,
// chunks, receiveBlobStop and the reply to the call. The blob is opened when the
// first message is asked for, so that a download that has to wait its turn holds
// nothing; if that fails the caller gets the exception and no message of the
// download. Opening, and reading unless the blob is a file, go on beside the
// connection's writing goroutine (zrpc.Waker).
type BlobDownload struct {
	call  *zrpc.Call
	oid   zeolite.OID
	tid   zeolite.TID
	ahead readAhead
	state int
	whole bool
	done  func(sent int64, whole bool)
}

// States of a blob stream.
const (
	blobStart = iota
	blobChunks
	blobReply
	blobEnd
)

// NewBlobDownload makes the answer to call, which becomes the iterator's. It
// begins at offset from. done is called at the end with the number of bytes
// sent, and whether that is all.
func NewBlobDownload(call *zrpc.Call, oid zeolite.OID, tid zeolite.TID, from int64, open func() (zeolite.Blob, error),
	done func(sent int64, whole bool)) *BlobDownload {
	return &BlobDownload{call: call, oid: oid, tid: tid, ahead: readAhead{open: open, from: from, off: from}, done: done}
}

// Held follows zrpc.Weighty.
func (b *BlobDownload) Held() int { return b.call.Size() }

// SetWake follows zrpc.Waker.
func (b *BlobDownload) SetWake(wake func()) { b.ahead.wake = wake }

// Next makes the next message. It follows zrpc.MessageIterator.
func (b *BlobDownload) Next(m *zrpc.Message) error {
	switch b.state {
	case blobStart:
		switch err := b.ahead.opened(); err {
		case nil:
		case zrpc.ErrNotReady:
			return err
		default:
			b.state = blobEnd
			call := b.call
			b.call = nil
			ReplyError(call, err)
			return io.EOF
		}
		b.state = blobChunks
		b.mention(m, "receiveBlobStart")
		return nil
	case blobChunks:
		body, more, err := b.ahead.take(m)
		switch {
		case err == zrpc.ErrNotReady:
			return err
		case err != nil:
			return b.Unreadable(err)
		}
		if more {
			m.BeginSend("receiveBlobChunk")
			m.Tuple(3)
			m.ID(uint64(b.oid))
			m.ID(uint64(b.tid))
			m.BytesBody(body)
			m.EndTuple(3)
			m.End()
			return nil
		}
		b.state = blobReply
		b.mention(m, "receiveBlobStop")
		return nil
	case blobReply:
		b.state = blobEnd
		b.whole = true
		if b.call.Async {
			return io.EOF // nobody waits for the reply
		}
		b.call.FillReply(m, nil)
		b.call = nil
		return nil
	}
	return io.EOF
}

// Unreadable is why the connection ends: not by the network. It must not look like
// the end of the stream, whatever the storage says. It follows zrpc.FileIterator.
func (b *BlobDownload) Unreadable(err error) error {
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, err)
	}
	return &zeolite.StorageError{Message: fmt.Sprintf("cannot read the blob of %v at %v", b.oid, b.tid), Err: err}
}

// mention makes a message that carries only the blob's name. The next one
// follows at once, as a rule.
func (b *BlobDownload) mention(m *zrpc.Message, name string) {
	m.JoinNext()
	m.BeginSend(name)
	m.Tuple(2)
	m.ID(uint64(b.oid))
	m.ID(uint64(b.tid))
	m.EndTuple(2)
	m.End()
}

// Close ends the download.
func (b *BlobDownload) Close() {
	if b.done != nil {
		b.done(b.ahead.sent(), b.whole)
	}
	b.ahead.close()
	if b.call != nil {
		b.call.Release()
		b.call = nil
	}
}

// blobUpload is the message iterator that stores a blob: storeBlobStart,
// chunks, storeBlobEnd.
type blobUpload struct {
	oid    zeolite.OID
	serial zeolite.TID
	data   []byte
	id     TxnID
	chunks chunks
	state  int
	sent   func(n int64)
	done   func(error)
	err    error
}

// StoreBlob queues the upload of a blob, with the record that belongs to it,
// behind earlier uploads of this connection; Vote goes behind it by itself. It
// does not wait. blob is closed in the end. data must not change before done is
// called. sent, which may be nil, is told how much of the blob has been handed
// to the network; done, whether all was.
func (s *StorageServerStub) StoreBlob(oid zeolite.OID, serial zeolite.TID, data []byte, id TxnID,
	blob zeolite.Blob, sent func(n int64), done func(error)) error {
	return s.conn.Stream(&blobUpload{oid: oid, serial: serial, data: data, id: id,
		chunks: newChunks(blob), sent: sent, done: done, err: zrpc.ErrClosed}, zrpc.OneByOne)
}

func (b *blobUpload) Next(m *zrpc.Message) error {
	switch b.state {
	case blobStart:
		b.state = blobChunks
		m.BeginSend("storeBlobStart")
		m.Tuple(0)
		m.EndTuple(0)
		m.End()
		return nil
	case blobChunks:
		if b.sent != nil && b.chunks.off > 0 {
			b.sent(b.chunks.off)
		}
		body, more, err := b.chunks.next(m)
		if err != nil {
			b.err = err
			return err
		}
		if more {
			m.BeginSend("storeBlobChunk")
			m.Tuple(1)
			m.BytesBody(body)
			m.EndTuple(1)
			m.End()
			return nil
		}
		b.state = blobEnd
		m.BeginSend("storeBlobEnd")
		m.Tuple(4)
		m.ID(uint64(b.oid))
		m.ID(uint64(b.serial))
		m.Bytes(b.data)
		m.Uint(uint64(b.id))
		m.EndTuple(4)
		m.End()
		return nil
	}
	b.err = nil
	return io.EOF
}

func (b *blobUpload) Close() {
	b.chunks.close()
	if b.done != nil {
		b.done(b.err)
	}
}
