package gateway

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/server/memory"
)

// patient is a client without a time limit of its own: go test has one.
var patient = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// watched is a storage that counts what is opened and read of blobs, and may
// hide that they are files.
type watched struct {
	zeolite.Storage
	opaque bool
	opened atomic.Int64
	closed atomic.Int64
	read   atomic.Int64 // calls of ReadAt
	openIt func() error
	readIt func(off int64) error
}

func (w *watched) CreateBlob(ctx context.Context) (zeolite.BlobUpload, error) {
	return w.Storage.(zeolite.BlobStorage).CreateBlob(ctx)
}

func (w *watched) OpenBlob(ctx context.Context, oid zeolite.OID, tid zeolite.TID) (zeolite.Blob, error) {
	if w.openIt != nil {
		if err := w.openIt(); err != nil {
			return nil, err
		}
	}
	b, err := w.Storage.(zeolite.BlobStorage).OpenBlob(ctx, oid, tid)
	if err != nil {
		return nil, err
	}
	w.opened.Add(1)
	if w.opaque {
		return &watchedBlob{b, w}, nil
	}
	return &watchedFile{watchedBlob{b, w}}, nil
}

type watchedBlob struct {
	zeolite.Blob
	w *watched
}

func (b *watchedBlob) ReadAt(p []byte, off int64) (int, error) {
	b.w.read.Add(1)
	if b.w.readIt != nil {
		if err := b.w.readIt(off); err != nil {
			return 0, err
		}
	}
	return b.Blob.ReadAt(p, off)
}

func (b *watchedBlob) Close() error {
	b.w.closed.Add(1)
	return b.Blob.Close()
}

type watchedFile struct{ watchedBlob }

func (b *watchedFile) File() *os.File { return b.Blob.(interface{ File() *os.File }).File() }

func newMemory(t testing.TB) *watched {
	s := memory.New(memory.Options{BlobDir: t.TempDir()})
	t.Cleanup(func() { s.Close() })
	return &watched{Storage: s}
}

func newFileStorage(t testing.TB) *watched {
	dir := t.TempDir()
	s, err := filestorage.Open(filepath.Join(dir, "Data.fs"), filestorage.Options{Create: true, BlobDir: filepath.Join(dir, "blobs")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &watched{Storage: s}
}

// store commits a blob as the new revision of an object.
func store(t testing.TB, s zeolite.Storage, oid zeolite.OID, write func(io.Writer) error) zeolite.TID {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	txn, err := s.Begin(ctx, zeolite.TxnMeta{})
	must(err)
	serial, err := s.CurrentTID(ctx, oid)
	if err != nil {
		serial = 0
	}
	if write == nil {
		must(txn.Store(ctx, oid, serial, []byte("record")))
	} else {
		up, err := s.(zeolite.BlobStorage).CreateBlob(ctx)
		must(err)
		must(write(up))
		must(up.Complete())
		must(txn.StoreBlob(ctx, oid, serial, []byte("record"), up))
	}
	must(txn.Vote(ctx))
	tid, err := txn.Finish(ctx, nil)
	must(err)
	return tid
}

func storeBytes(t testing.TB, s zeolite.Storage, oid zeolite.OID, data []byte) zeolite.TID {
	t.Helper()
	return store(t, s, oid, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// eventually waits for a condition that the test has no event for.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// testKey is a key of the least length.
var testKey = []byte(strings.Repeat("k", MinKey))

func testKeys(t testing.TB) *Keys {
	t.Helper()
	keys, err := NewKeys(testKey)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// open are the options of a gateway that programs on this machine may use.
var open = Options{Blobs: true, Loopback: true}

// start serves a storage as "1".
func start(t testing.TB, s zeolite.Storage, opt Options) *httptest.Server {
	t.Helper()
	var log bytes.Buffer
	opt.Logger = slog.New(slog.NewTextHandler(&log, nil))
	server := httptest.NewServer(New(map[string]zeolite.Storage{"1": s}, opt))
	t.Cleanup(func() {
		server.Close() // waits for requests
		if t.Failed() {
			t.Logf("log:\n%s", &log)
		}
		if w, ok := s.(*watched); ok && w.opened.Load() != w.closed.Load() {
			t.Errorf("%d blobs were opened, %d closed", w.opened.Load(), w.closed.Load())
		}
	})
	return server
}

// answer is a response that was read to its end.
type answer struct {
	*http.Response
	body []byte
	err  error // of reading the body
}

// do sends a request with header lines "Name: value".
func do(t testing.TB, method, url string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	resp, err := patient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp, body, err}
}

// want checks a status and headers "Name: value"; an empty value says that
// there must be none.
func (a answer) want(t testing.TB, status int, headers ...string) {
	t.Helper()
	if a.StatusCode != status {
		t.Errorf("status is %d, want %d\n%.300s", a.StatusCode, status, a.body)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		name = strings.TrimSuffix(name, ":")
		if got := a.Header.Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
}
