package stubs

import (
	"io"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// slowBlob is a Blob whose reads wait to be let on.
type slowBlob struct {
	data   []byte
	reads  chan struct{} // a read has begun
	letOn  chan struct{}
	closed chan struct{}
}

func newSlowBlob(n int) *slowBlob {
	return &slowBlob{data: blobData(n), reads: make(chan struct{}, 100), letOn: make(chan struct{}), closed: make(chan struct{})}
}

func (b *slowBlob) Size() int64 { return int64(len(b.data)) }

func (b *slowBlob) ReadAt(p []byte, off int64) (int, error) {
	b.reads <- struct{}{}
	<-b.letOn
	if n := copy(p, b.data[off:]); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}

func (b *slowBlob) Close() error {
	close(b.closed) // panics if it is closed twice
	return nil
}

// A blob that is slow to open, and to read, holds up nothing else on its
// connection.
func TestSlowBlobHoldsUpNothing(t *testing.T) {
	for _, enc := range encodings {
		blob, opening := newSlowBlob(3*ChunkSize), make(chan struct{})
		got := &recorder{}
		conn, _ := linked(t, enc, clientSide(got), download(&recorder{}, func() (zeolite.Blob, error) {
			opening <- struct{}{}
			<-opening
			return blob, nil
		}, nil))
		stub := NewStorageServerStub(conn)
		sent := make(chan error, 1)
		go func() { sent <- stub.SendBlob(bg, oid1, tid1) }()
		<-opening
		if err := stub.Ping(bg); err != nil {
			t.Fatalf("%v: while the blob is opened: %v", enc, err)
		}
		opening <- struct{}{}
		for i := range 3 {
			<-blob.reads
			if err := stub.Ping(bg); err != nil {
				t.Fatalf("%v: while chunk %d is read: %v", enc, i, err)
			}
			blob.letOn <- struct{}{}
		}
		if err := <-sent; err != nil {
			t.Fatalf("%v: %v", enc, err)
		}
		<-blob.closed
		if calls := got.take(); len(calls) != 5 || !strings.HasPrefix(calls[4], "receiveBlobStop") {
			t.Errorf("%v: %d messages arrived, want 5", enc, len(calls))
		}
	}
}

// When the connection goes, the blob is closed once, after the read that is
// under way.
func TestConnectionEndsWhileBlobIsRead(t *testing.T) {
	for _, enc := range encodings {
		blob := newSlowBlob(3 * ChunkSize)
		conn, back := linked(t, enc, clientSide(&recorder{}), download(&recorder{}, func() (zeolite.Blob, error) { return blob, nil }, nil))
		sent := make(chan error, 1)
		go func() { sent <- NewStorageServerStub(conn).SendBlob(bg, oid1, tid1) }()
		<-blob.reads
		back.Close()
		if err := <-sent; err == nil {
			t.Errorf("%v: half a download succeeded", enc)
		}
		select {
		case <-blob.closed:
			t.Errorf("%v: closed during a read", enc)
		default:
		}
		close(blob.letOn)
		<-blob.closed
	}
}

// So it is when the connection goes while the blob is opened.
func TestConnectionEndsWhileBlobIsOpened(t *testing.T) {
	for _, enc := range encodings {
		blob, opening := newSlowBlob(10), make(chan struct{})
		conn, back := linked(t, enc, clientSide(&recorder{}), download(&recorder{}, func() (zeolite.Blob, error) {
			opening <- struct{}{}
			<-opening
			return blob, nil
		}, nil))
		go func() { _ = NewStorageServerStub(conn).SendBlob(bg, oid1, tid1) }()
		<-opening
		back.Close()
		opening <- struct{}{}
		<-blob.closed
	}
}
