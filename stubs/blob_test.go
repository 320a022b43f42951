package stubs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// testBlob is a Blob in memory that may lie about its size.
type testBlob struct {
	*bytes.Reader
	size   int64
	closed int
}

func newTestBlob(data []byte) *testBlob {
	return &testBlob{Reader: bytes.NewReader(data), size: int64(len(data))}
}

func (b *testBlob) Size() int64 { return b.size }

func (b *testBlob) Close() error {
	b.closed++
	return nil
}

// fileTestBlob is a Blob that is a file.
type fileTestBlob struct {
	*testBlob
	file *os.File
}

func (b fileTestBlob) File() *os.File { return b.file }

func blobData(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i*7 + i>>8)
	}
	return data
}

// blobsOf makes the same blob in memory and as a file.
func blobsOf(t *testing.T, data []byte) []zeolite.Blob {
	t.Helper()
	name := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return []zeolite.Blob{newTestBlob(data), fileTestBlob{newTestBlob(data), f}}
}

func closedTimes(b zeolite.Blob) int {
	switch b := b.(type) {
	case *testBlob:
		return b.closed
	case fileTestBlob:
		return b.closed
	}
	return -1
}

var blobSizes = []int{0, 1, ChunkSize - 1, ChunkSize, ChunkSize + 1, 3*ChunkSize + 5}

// download handles sendBlob with a BlobDownload and leaves the rest to rec.
func download(rec *recorder, open func() (zeolite.Blob, error), done func(int64, bool)) handlerFunc {
	return func(call *zrpc.Call) {
		if string(call.Name) != "sendBlob" {
			DispatchStorageServer(bg, rec, call)
			return
		}
		_ = call.Conn().Stream(NewBlobDownload(call, oid1, tid1, 0, open, done), zrpc.InTurns)
	}
}

func TestBlobDownload(t *testing.T) {
	for _, enc := range encodings {
		for _, n := range blobSizes {
			data := blobData(n)
			for _, blob := range blobsOf(t, data) {
				got := &recorder{}
				sent, whole := int64(-1), false
				conn, back := linked(t, enc, clientSide(got), download(&recorder{}, func() (zeolite.Blob, error) { return blob, nil },
					func(n int64, all bool) { sent, whole = n, all }))
				if err := NewStorageServerStub(conn).SendBlob(bg, oid1, tid1); err != nil {
					t.Fatalf("%v %d bytes: %v", enc, n, err)
				}
				name := show([]any{oid1, tid1})
				want := []string{"receiveBlobStart" + name}
				for off := 0; off < n; off += ChunkSize {
					want = append(want, "receiveBlobChunk"+show([]any{oid1, tid1, data[off:min(off+ChunkSize, n)]}))
				}
				want = append(want, "receiveBlobStop"+name)
				if calls := got.take(); strings.Join(calls, "\n") != strings.Join(want, "\n") {
					t.Errorf("%v %d bytes arrive by %d messages, want %d", enc, n, len(calls), len(want))
				}
				back.Close()
				if closedTimes(blob) != 1 || sent != int64(n) || !whole {
					t.Errorf("%v %d bytes: closed %d times, %d bytes reported, whole %v", enc, n, closedTimes(blob), sent, whole)
				}
			}
		}
	}
}

// TestBlobDownloadFails: what fails before the first message is an exception,
// what fails later ends the connection.
func TestBlobDownloadFails(t *testing.T) {
	for _, enc := range encodings {
		got := &recorder{}
		sent, whole := int64(-1), true
		done := func(n int64, all bool) { sent, whole = n, all }
		missing := func() (zeolite.Blob, error) {
			return nil, &zeolite.NotFoundError{OID: oid1, TID: tid1, Blob: true}
		}
		conn, back := linked(t, enc, clientSide(got), download(&recorder{}, missing, done))
		stub := NewStorageServerStub(conn)
		var notFound *zeolite.NotFoundError
		if err := stub.SendBlob(bg, oid1, tid1); !errors.As(err, &notFound) || !notFound.Blob || notFound.OID != oid1 || notFound.TID != tid1 {
			t.Errorf("%v: a missing blob: %v", enc, err)
		}
		if err := stub.Ping(bg); err != nil {
			t.Errorf("%v: after it: %v", enc, err)
		}
		back.Close()
		if sent != 0 || whole || len(got.take()) > 0 {
			t.Errorf("%v: something of a missing blob was sent", enc)
		}

		for _, blob := range blobsOf(t, blobData(ChunkSize+10)) {
			switch b := blob.(type) {
			case *testBlob:
				b.size += 5
			case fileTestBlob:
				b.size += 5
			}
			got := &recorder{}
			conn, back := linked(t, enc, clientSide(got), download(&recorder{}, func() (zeolite.Blob, error) { return blob, nil }, done))
			if err := NewStorageServerStub(conn).SendBlob(bg, oid1, tid1); !errors.As(err, new(*zrpc.ConnError)) {
				t.Errorf("%v: a blob that is too short: %v", enc, err)
			}
			<-back.Done()
			if !errors.Is(back.Err(), io.ErrUnexpectedEOF) {
				t.Errorf("%v: ended for %v", enc, back.Err())
			}
			back.Close()
			for _, call := range got.take() {
				if strings.HasPrefix(call, "receiveBlobStop") {
					t.Errorf("%v: a blob that is too short was declared complete", enc)
				}
			}
			if closedTimes(blob) != 1 || whole {
				t.Errorf("%v: closed %d times, whole %v", enc, closedTimes(blob), whole)
			}
		}
	}
}

// TestOneWayDownload asks for a blob without waiting for the reply: none comes.
func TestOneWayDownload(t *testing.T) {
	for _, enc := range encodings {
		blob := newTestBlob(blobData(10))
		h := download(&recorder{}, func() (zeolite.Blob, error) { return blob, nil }, nil)
		answers, err := converse(t, enc, h, encode(enc, int64(0), true, "sendBlob", zrpc.Tuple{oid1.Bytes(), tid1.Bytes()}))
		if len(answers) != 3 || answers[2].Name != zrpc.Value("receiveBlobStop") || err != nil || blob.closed != 1 {
			t.Errorf("%v: %d messages, closed %d times, %v", enc, len(answers), blob.closed, err)
		}
	}
}

func TestBlobUpload(t *testing.T) {
	for _, enc := range encodings {
		for _, n := range blobSizes {
			data := blobData(n)
			for _, blob := range blobsOf(t, data) {
				rec := &recorder{}
				conn, _ := linked(t, enc, clientSide(&recorder{}), serverSide(rec))
				stub := NewStorageServerStub(conn)
				finished := make(chan error, 1)
				var told []int64
				if err := stub.StoreBlob(oid1, tid1, []byte("record"), txn1, blob, func(n int64) { told = append(told, n) },
					func(err error) { finished <- err }); err != nil {
					t.Fatal(err)
				}
				// The vote goes behind the upload by itself.
				if _, err := stub.Vote(bg, txn1); err != nil {
					t.Fatal(err)
				}
				if err := <-finished; err != nil {
					t.Errorf("%v %d bytes: done with %v", enc, n, err)
				}
				want := []string{"storeBlobStart()"}
				for off := 0; off < n; off += ChunkSize {
					want = append(want, "storeBlobChunk"+show([]any{data[off:min(off+ChunkSize, n)]}))
				}
				want = append(want, "storeBlobEnd"+show([]any{oid1, tid1, []byte("record"), txn1}), "vote"+show([]any{txn1}))
				if calls := rec.take(); strings.Join(calls, "\n") != strings.Join(want, "\n") {
					t.Errorf("%v %d bytes arrive by %d messages, want %d", enc, n, len(calls), len(want))
				}
				if closedTimes(blob) != 1 || n > 0 && (len(told) == 0 || told[len(told)-1] != int64(n)) {
					t.Errorf("%v %d bytes: closed %d times, told of %v", enc, n, closedTimes(blob), told)
				}
			}
		}
	}
}

func TestBlobUploadFails(t *testing.T) {
	for _, enc := range encodings {
		blob := newTestBlob(blobData(ChunkSize))
		blob.size *= 2
		conn, _ := linked(t, enc, clientSide(&recorder{}), serverSide(&recorder{}))
		stub := NewStorageServerStub(conn)
		finished := make(chan error, 2)
		done := func(err error) { finished <- err }
		_ = stub.StoreBlob(oid1, tid1, nil, txn1, blob, nil, done)
		if err := <-finished; err != io.ErrUnexpectedEOF || blob.closed != 1 {
			t.Errorf("%v: a blob that is too short: %v, closed %d times", enc, err, blob.closed)
		}
		conn.Close()
		// One that is not even begun.
		blob = newTestBlob(nil)
		if err := stub.StoreBlob(oid1, tid1, nil, txn1, blob, nil, done); err == nil {
			t.Errorf("%v: queued after the end", enc)
		}
		if err := <-finished; err == nil || blob.closed != 1 {
			t.Errorf("%v: after the end: %v, closed %d times", enc, err, blob.closed)
		}
	}
}
