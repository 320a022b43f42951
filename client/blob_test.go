package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/tests/faults"
	"github.com/zeolite-go/zeolite/tests/peers"
)

// blobClients returns two clients with caches of their own, and a proxy that
// counts what the second one asks for.
func blobClients(t *testing.T) (writer, reader *Storage, proxy *faults.Proxy) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	o := testOptions(t, srv.addr)
	o.BlobDir = filepath.Join(t.TempDir(), "writer")
	writer = open(t, o)
	proxy, err := faults.NewProxy(srv.addr)
	must(t, err)
	t.Cleanup(proxy.Close)
	o = testOptions(t, proxy.Addr().String())
	o.BlobDir = filepath.Join(t.TempDir(), "reader")
	return writer, open(t, o), proxy
}

func TestBlobLayout(t *testing.T) {
	w, r, _ := blobClients(t)
	tid := putBlob(t, w, 1000, 0, []byte("blob"))
	waitTID(t, r, tid)
	wantBlob(t, r, 1000, tid, []byte("blob"))
	for _, s := range []*Storage{w, r} {
		dir := s.opt.BlobDir
		text, err := os.ReadFile(filepath.Join(dir, ".layout"))
		if string(text) != "zeocache" || err != nil {
			t.Errorf(".layout: %q, %v", text, err)
		}
		path := filepath.Join(dir, "3", fmt.Sprintf("1.%016x.blob", uint64(tid)))
		st, err := os.Stat(path)
		must(t, err)
		if st.Mode().Perm()&0o222 != 0 {
			t.Errorf("%s can be written: %v", path, st.Mode())
		}
		text, err = os.ReadFile(filepath.Join(dir, "3", ".lock"))
		if want := fmt.Sprintf(" %d\n", os.Getpid()); string(text) != want || err != nil {
			t.Errorf(".lock: %q, %v; want %q", text, err, want)
		}
		noTemporaryFiles(t, dir)
	}
}

// A download that a killed process left is not part of the next one.
func TestBlobStaleDownload(t *testing.T) {
	w, r, _ := blobClients(t)
	tid := putBlob(t, w, 1, 0, []byte("fresh"))
	waitTID(t, r, tid)
	path := r.blobs.path(blobKey{1, tid})
	must(t, os.MkdirAll(filepath.Dir(path), 0o777))
	must(t, os.WriteFile(path+".dl", bytes.Repeat([]byte("stale"), 1000), 0o400))
	wantBlob(t, r, 1, tid, []byte("fresh"))
	noTemporaryFiles(t, r.opt.BlobDir)
}

// Whoever wants a blob that is being downloaded waits, and does not download
// it again; a waiter whose context ends leaves.
func TestBlobOnce(t *testing.T) {
	w, r, proxy := blobClients(t)
	blob := bytes.Repeat([]byte("b"), 1<<20)
	tid := putBlob(t, w, 1, 0, blob)
	waitTID(t, r, tid)

	// Another process has the lock.
	dir := r.blobs.dirOf(1)
	must(t, os.MkdirAll(dir, 0o777))
	other := flock.New(filepath.Join(dir, ".lock"))
	if ok, err := other.TryLock(); !ok || err != nil {
		t.Fatal("cannot take the lock", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := r.OpenBlob(ctx, 1, tid)
		left <- err
	}()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { wantBlob(t, r, 1, tid, blob) })
	}
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("OpenBlob: got error %v, want context.Canceled", err)
	}
	if n := proxy.Counts(faults.ClientToServer)["sendBlob"]; n != 0 {
		t.Errorf("%d downloads without the lock", n)
	}
	must(t, other.Unlock())
	all.Wait()
	if n := proxy.Counts(faults.ClientToServer)["sendBlob"]; n != 1 {
		t.Errorf("%d downloads, want 1", n)
	}
}

// The least recently used blobs go when the cache is too large, and whoever
// reads one keeps it.
func TestBlobEviction(t *testing.T) {
	w, _, _ := blobClients(t)
	o := w.opt
	o.BlobDir = filepath.Join(t.TempDir(), "small")
	o.BlobCacheSize, o.BlobCacheSizeCheck = 100_000, 10
	s := open(t, o)
	var tids []zeolite.TID
	for i := range 9 {
		tids = append(tids, putBlob(t, w, zeolite.OID(i), 0, bytes.Repeat([]byte{byte(i)}, 10_000)))
	}
	waitTID(t, s, tids[8])
	first, err := s.OpenBlob(t.Context(), 0, tids[0])
	must(t, err)
	defer first.Close()
	for i, tid := range tids[:8] {
		wantBlob(t, s, zeolite.OID(i), tid, bytes.Repeat([]byte{byte(i)}, 10_000))
		// The age is what counts, and clocks of file systems are coarse.
		old := time.Now().Add(time.Duration(i-100) * time.Hour)
		must(t, os.Chtimes(s.blobs.path(blobKey{zeolite.OID(i), tid}), old, old))
	}
	until(t, "no check is running", func() bool { return !s.blobs.checking.Load() })
	extra := putBlob(t, s, 100, 0, bytes.Repeat([]byte("x"), 30_000))
	gone := func(i int) bool {
		_, err := os.Stat(s.blobs.path(blobKey{zeolite.OID(i), tids[i]}))
		return os.IsNotExist(err)
	}
	until(t, "the oldest blobs are removed", func() bool { return gone(0) && gone(1) && !s.blobs.checking.Load() })
	if gone(6) || gone(7) {
		t.Error("blobs that were used last are gone")
	}
	_, total, err := s.blobs.files()
	must(t, err)
	if total > 90_000 {
		t.Errorf("the cache has %d bytes", total)
	}
	got := make([]byte, 10_000)
	if _, err := first.ReadAt(got, 0); err != nil || !bytes.Equal(got, make([]byte, 10_000)) {
		t.Errorf("a blob that was open when it was removed: %v", err)
	}
	wantBlob(t, s, 0, tids[0], make([]byte, 10_000))
	wantBlob(t, s, 100, extra, bytes.Repeat([]byte("x"), 30_000))
}

// One process makes room at a time. Who finds another one at it does not wait,
// but makes it look again.
func TestBlobEvictionByOne(t *testing.T) {
	w, _, _ := blobClients(t)
	o := w.opt
	o.BlobDir = filepath.Join(t.TempDir(), "small")
	s := open(t, o)
	for i := range 5 {
		putBlob(t, s, zeolite.OID(i), 0, make([]byte, 10_000))
	}
	s.blobs.s.opt.BlobCacheSize = 30_000 // nothing else makes room meanwhile
	total := func() int64 {
		_, n, err := s.blobs.files()
		must(t, err)
		return n
	}
	attempt := filepath.Join(o.BlobDir, "check_size.attempt")

	other := newFlock(filepath.Join(o.BlobDir, "check_size.lock"))
	ok, err := other.TryLock()
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	must(t, s.blobs.makeRoom())
	if n := total(); n != 50_000 {
		t.Errorf("it made room, to %d bytes, while another process did", n)
	}
	if _, err := os.Stat(attempt); err != nil {
		t.Errorf("the other process does not learn that it has to look again: %v", err)
	}
	must(t, other.Unlock())
	must(t, s.blobs.makeRoom())
	if n := total(); n > 27_000 {
		t.Errorf("there are still %d bytes", n)
	}
	if _, err := os.Stat(attempt); !os.IsNotExist(err) {
		t.Errorf("the sign of the attempt is left: %v", err)
	}
}

// With the server's own directory nothing is transferred.
func TestSharedBlobDir(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	fs, err := filestorage.Open(filepath.Join(dir, "Data.fs"), filestorage.Options{BlobDir: filepath.Join(dir, "blobs")})
	must(t, err)
	t.Cleanup(func() { fs.Close() })
	srv := serve(t, fs, server.Options{}, "tcp")
	proxy, err := faults.NewProxy(srv.addr)
	must(t, err)
	defer proxy.Close()
	o := testOptions(t, proxy.Addr().String())
	o.BlobDir, o.SharedBlobDir = filepath.Join(dir, "blobs"), true
	s := open(t, o)
	tid := putBlob(t, s, 7, 0, []byte("shared"))
	wantBlob(t, s, 7, tid, []byte("shared"))
	second := putBlob(t, s, 7, tid, []byte("shared again"))
	wantBlob(t, s, 7, tid, []byte("shared"))
	wantBlob(t, s, 7, second, []byte("shared again"))
	var notFound *zeolite.NotFoundError
	if _, err := s.OpenBlob(t.Context(), 8, tid); !errors.As(err, &notFound) || !notFound.Blob {
		t.Errorf("OpenBlob: got error %v, want *NotFoundError of a blob", err)
	}
	c := proxy.Counts(faults.ClientToServer)
	if c["storeBlobShared"] != 2 || c["storeBlobStart"] != 0 || c["sendBlob"] != 0 {
		t.Errorf("calls: %v", c)
	}

	// Transactions that come to nothing, whatever the server saw of them.
	for i, cut := range []faults.Cut{
		{}, // none: it is just aborted
		{Dir: faults.ClientToServer, Name: "storeBlobShared", When: faults.Before},
		{Dir: faults.ClientToServer, Name: "vote", When: faults.After},
		{Dir: faults.ClientToServer, Name: "tpc_finish", When: faults.Before},
	} {
		up, err := s.CreateBlob(t.Context())
		must(t, err)
		must(t, up.Complete())
		tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
		must(t, err)
		must(t, tx.StoreBlob(t.Context(), zeolite.OID(20+i), 0, []byte("blob record"), up))
		if cut.Name != "" {
			must(t, proxy.CutAt(cut))
		}
		must(t, tx.Vote(t.Context())) // which is made once more
		if cut.Name == "tpc_finish" {
			_, err := tx.Finish(t.Context(), nil)
			tid, err := s.Outcome(t.Context(), err)
			if err != nil || tid != 0 {
				t.Errorf("Outcome: %v, %v", tid, err)
			}
		}
		tx.Abort()
		must(t, up.Discard())
		must(t, s.Sync(t.Context()))
	}
	third := putBlob(t, s, 7, second, []byte("shared again"))
	wantBlob(t, s, 7, third, []byte("shared again"))
	must(t, s.Close())
	srv.stop() // and with it what is left of transactions
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if strings.Contains(d.Name(), ".upload") || strings.Contains(d.Name(), ".tmp") {
			t.Errorf("%s is left", path)
		}
		return err
	}))
}

// A file is moved in, and what a dead process left is removed.
func TestBlobAdoptFile(t *testing.T) {
	w, _, _ := blobClients(t)
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte("adopted"), 0o666))
	up, err := w.AdoptFile(t.Context(), path)
	must(t, err)
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	tx, err := w.Begin(t.Context(), zeolite.TxnMeta{})
	must(t, err)
	must(t, tx.StoreBlob(t.Context(), 1, 0, []byte("record"), up))
	must(t, tx.Vote(t.Context()))
	tid, err := tx.Finish(t.Context(), nil)
	must(t, err)
	wantBlob(t, w, 1, tid, []byte("adopted"))

	stale := filepath.Join(w.opt.BlobDir, "tmp", uploadPrefix+"dead"+uploadSuffix)
	must(t, os.WriteFile(stale, []byte("x"), 0o666))
	live, err := w.CreateBlob(t.Context())
	must(t, err)
	again := open(t, w.opt)
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("a stale upload is still there: %v", err)
	}
	_, err = live.Write([]byte("alive"))
	must(t, err)
	must(t, live.Complete())
	if _, err := os.Stat(live.(*upload).path); err != nil {
		t.Errorf("a live upload is gone: %v", err)
	}
	must(t, live.Discard())
	must(t, again.Close())
}

// Whoever removes what dead processes left does not remove a file that is being
// adopted, whose name was that of another file a moment before.
func TestBlobAdoptFileNotStale(t *testing.T) {
	w, _, _ := blobClients(t)
	var stop atomic.Bool
	var all sync.WaitGroup
	defer all.Wait()
	defer stop.Store(true)
	for range 2 {
		all.Go(func() {
			for !stop.Load() {
				w.blobs.removeStale()
			}
		})
	}
	path := filepath.Join(t.TempDir(), "file")
	rounds := 50
	if peers.Long() {
		rounds = 2000
	}
	for range rounds {
		must(t, os.WriteFile(path, []byte("adopted"), 0o666))
		up, err := w.AdoptFile(t.Context(), path)
		must(t, err)
		if _, err := os.Stat(up.(*upload).path); err != nil {
			t.Fatal(err)
		}
		must(t, up.Discard())
	}
}

// A commit whose blob cannot be put into the cache is a commit, and the blob is
// downloaded when it is wanted.
func TestBlobNotKept(t *testing.T) {
	w, _, _ := blobClients(t)
	inTheWay := w.blobs.dirOf(1)
	must(t, os.WriteFile(inTheWay, nil, 0o666))
	tid := putBlob(t, w, 1, 0, []byte("blob"))
	must(t, os.Remove(inTheWay))
	noTemporaryFiles(t, w.opt.BlobDir)
	wantBlob(t, w, 1, tid, []byte("blob"))
}

// Another process may have the lock of a directory for as long as its download
// takes. A commit waits for that a moment, or until its context ends, and then
// succeeds; the blob gets its place later, and is not the caller's to discard any
// more. Close does not wait.
func TestBlobLockedByAnother(t *testing.T) {
	w, _, _ := blobClients(t)
	must(t, os.Mkdir(w.blobs.dirOf(1), 0o777))
	other := newFlock(filepath.Join(w.blobs.dirOf(1), ".lock"))
	must(t, other.Lock())
	defer other.Unlock()
	commit := func(oid zeolite.OID, giveUp bool) zeolite.TID {
		w.settleTime = time.Millisecond
		if giveUp {
			w.settleTime = time.Hour
		}
		up, err := w.CreateBlob(t.Context())
		must(t, err)
		must(t, up.Complete())
		tx, err := w.Begin(t.Context(), zeolite.TxnMeta{})
		must(t, err)
		must(t, tx.StoreBlob(t.Context(), oid, 0, []byte("blob record"), up))
		must(t, tx.Vote(t.Context()))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		type result struct {
			tid zeolite.TID
			err error
		}
		finished := make(chan result, 1)
		go func() {
			tid, err := tx.Finish(ctx, nil)
			finished <- result{tid, err}
		}()
		until(t, "it waits for the lock", func() bool {
			return inSelect(func(stack string) bool { return strings.Contains(stack, "client.(*blobCache).lock(") }) > 0
		})
		if giveUp {
			cancel()
		}
		select {
		case r := <-finished:
			must(t, r.err)
			must(t, up.Discard())
			return r.tid
		case <-time.After(20 * time.Second):
			t.Fatal("Finish waits for the lock")
			return 0
		}
	}
	for i, giveUp := range []bool{true, false} {
		oid := zeolite.OID(1 + i*zeocacheDirs)
		tid := commit(oid, giveUp)
		must(t, other.Unlock())
		until(t, "the blob is in the cache", func() bool {
			_, err := os.Stat(w.blobs.path(blobKey{oid, tid}))
			return err == nil
		})
		must(t, other.Lock())
	}
	commit(1+2*zeocacheDirs, false)
	must(t, w.Close())
	noTemporaryFiles(t, w.opt.BlobDir)
}

func TestBlobWrongLayout(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, ".layout"), []byte("bushy"), 0o666))
	o := testOptions(t, "localhost:1")
	o.BlobDir = dir
	if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "bushy") {
		t.Errorf("Open with a server's blob directory: %v", err)
	}
}

// Large blobs pass in little memory, with progress, and loads pass between
// their chunks.
func TestBlobMemory(t *testing.T) {
	size := int64(64 << 20)
	if peers.Long() {
		size = 1 << 30
	}
	noLeaks(t)
	// What counts is what is in use. The race detector lets pools forget buffers
	// at random, so there is more garbage than else.
	percent := debug.SetGCPercent(20)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	dir := t.TempDir()
	fs, err := filestorage.Open(filepath.Join(dir, "Data.fs"), filestorage.Options{BlobDir: filepath.Join(dir, "blobs")})
	must(t, err)
	t.Cleanup(func() { fs.Close() })
	srv := serve(t, fs, server.Options{}, "tcp")
	o := testOptions(t, srv.addr)
	o.BlobDir = filepath.Join(dir, "cache")
	var down, up, total atomic.Int64
	o.Progress = func(p BlobProgress) {
		if p.Upload {
			up.Store(p.Done)
		} else {
			down.Store(p.Done)
			total.Store(p.Total)
		}
	}
	s := open(t, o)
	serial := put(t, s, 1, 0, "x")
	ctx := t.Context()
	upload, err := s.CreateBlob(ctx)
	must(t, err)
	chunk := make([]byte, 1<<20)
	for n := int64(0); n < size; n += int64(len(chunk)) {
		chunk[0] = byte(n >> 20)
		_, err := upload.Write(chunk)
		must(t, err)
	}
	must(t, upload.Complete())

	peak := watchHeap()
	tx, err := s.Begin(ctx, zeolite.TxnMeta{})
	must(t, err)
	must(t, tx.StoreBlob(ctx, 2, 0, []byte("record"), upload))
	voted := make(chan error, 1)
	go func() { voted <- tx.Vote(ctx) }()
	loads := 0
	for waiting := true; waiting; loads++ {
		select {
		case err := <-voted:
			must(t, err)
			waiting = false
		default:
			if _, err := s.LoadSerial(ctx, 3, serial); !isAbsent(err) {
				t.Fatal(err)
			}
		}
	}
	tid, err := tx.Finish(ctx, nil)
	must(t, err)
	grown := peak()
	t.Logf("upload: %d bytes, %d loads meanwhile, the heap grew by %d KiB", size, loads, grown>>10)
	if grown > 8<<20 {
		t.Errorf("the heap grew by %d bytes during an upload", grown)
	}
	if loads < 10 {
		t.Errorf("%d loads were answered during the upload", loads)
	}

	must(t, os.Remove(s.blobs.path(blobKey{2, tid})))
	peak = watchHeap()
	opened := make(chan error, 1)
	go func() {
		b, err := s.OpenBlob(ctx, 2, tid)
		if err == nil {
			if b.Size() != size {
				err = fmt.Errorf("the blob has %d bytes", b.Size())
			}
			b.Close()
		}
		opened <- err
	}()
	loads = 0
	for waiting := true; waiting; loads++ {
		select {
		case err := <-opened:
			must(t, err)
			waiting = false
		default:
			if _, err := s.LoadSerial(ctx, 3, serial); !isAbsent(err) {
				t.Fatal(err)
			}
		}
	}
	grown = peak()
	t.Logf("download: %d loads meanwhile, the heap grew by %d KiB", loads, grown>>10)
	if grown > 8<<20 {
		t.Errorf("the heap grew by %d bytes during a download", grown)
	}
	if up.Load() != size || down.Load() != size || total.Load() != size {
		t.Errorf("progress ended at %d up, %d down of %d; want %d", up.Load(), down.Load(), total.Load(), size)
	}
}

// watchHeap returns a function that says by how much the heap has grown at
// most. Server and client are both in it.
func watchHeap() func() int64 {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	runtime.GC()
	before, most := heap(), int64(0)
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				most = max(most, heap()-before)
			}
		}
	}()
	return func() int64 {
		close(done)
		<-stopped
		return max(most, heap()-before)
	}
}
