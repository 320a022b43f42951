package filestorage

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
)

// An undo gives a blob a second name. If it cannot be synced then, the log stays for
// the sake of the first.
func TestUndoneBlobSyncFails(t *testing.T) {
	s, w := newCrashDB(t, Options{BlobDir: "blobs", SyncInterval: neverSyncs.SyncInterval})
	serials := map[zeolite.OID]zeolite.TID{}
	var names []string
	for _, contents := range []string{"first", "second"} {
		tid, err := w.commit(s, nil, map[zeolite.OID]string{1: contents}, serials)
		if err != nil {
			t.Fatal(err)
		}
		serials[1] = tid
		names = append(names, w.fs.rel(s.blobs.file(1, tid)))
	}
	for range looseUploads + 1 { // no more blobs go into the log
		u, err := s.CreateBlob(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Discard()
	}
	w.fs.fail = w.failing("sync", names[0])
	tx, err := s.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = tx.Undo(ctx, serials[1]); err == nil {
		t.Error("the undo has succeeded")
	}
	tx.Abort()
	s.Close()
	n := w.fs.count()
	for seed := range uint64(4) {
		w.check(t, n, w.fs.crash(n, rand.New(rand.NewPCG(seed, 1))), true)
	}
}

// fewFiles lets a process have no more files open than it has, as long as it lasts,
// and counts how often it wanted one of a blob.
type fewFiles struct {
	lasts atomic.Bool
	tries atomic.Int64
}

func (f *fewFiles) fail(op fsOp) error {
	if op.kind != "open" || !strings.HasSuffix(op.name, blobSuffix) || !f.lasts.Load() {
		return nil
	}
	f.tries.Add(1)
	return &fs.PathError{Op: "open", Path: op.name, Err: syscall.EMFILE}
}

// A blob that cannot even be opened to sync it behind its commit is synced later.
func TestLoggedBlobIsSyncedLater(t *testing.T) {
	s, w := newCrashDB(t, Options{BlobDir: "blobs", SyncInterval: time.Millisecond})
	var few fewFiles
	few.lasts.Store(true)
	w.fs.fail = few.fail
	if _, err := w.commit(s, nil, map[zeolite.OID]string{1: "first"}, nil); err != nil {
		t.Fatal(err)
	}
	for few.tries.Load() < 2 && !s.Info().ReadOnly {
		runtime.Gosched()
	}
	few.lasts.Store(false)
	for !s.data.reached(s.gen.Load().end.Load()) && !s.Info().ReadOnly {
		runtime.Gosched()
	}
	if _, err := w.commit(s, map[zeolite.OID]string{2: "second"}, nil, nil); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	w.crashes(t, 1, 1, true)
}

// If the log has no room for a commit because of that, just this one fails.
func TestLogHasNoRoom(t *testing.T) {
	s, w := newCrashDB(t, Options{BlobDir: "blobs", SyncInterval: neverSyncs.SyncInterval})
	defer s.Close()
	s.wal.segmentSize, s.wal.sizeMax = 3*walBlock, 7*walBlock
	var few fewFiles
	few.lasts.Store(true)
	w.fs.fail = few.fail
	oid := zeolite.OID(1)
	commit := func() error {
		_, err := w.commit(s, nil, map[zeolite.OID]string{oid: strings.Repeat("x", walBlock)}, nil)
		oid++
		return err
	}
	var err error
	for err == nil && oid < 10 {
		err = commit()
	}
	if !errors.Is(err, syscall.EMFILE) || errors.Is(err, zeolite.ErrInDoubt) {
		t.Errorf("got error %v", err)
	}
	few.lasts.Store(false)
	if err := commit(); err != nil {
		t.Error(err)
	}
	w.crashes(t, 1, 1, true)
}

// After a blob of a group that does not go into the log could not be synced, none of
// the group is tried again: a second sync would say that the blob is durable.
func TestGroupBlobSyncFails(t *testing.T) {
	s, w := newCrashDB(t, Options{BlobDir: "blobs", SyncInterval: neverSyncs.SyncInterval})
	defer s.Close()
	if _, err := w.commit(s, map[zeolite.OID]string{1: "first"}, nil, nil); err != nil {
		t.Fatal(err)
	}
	uploads := map[int]bool{}
	failed := false
	w.fs.fail = func(op fsOp) error {
		if op.kind == "create" {
			uploads[op.inode] = true
		}
		if op.kind == "sync" && uploads[op.inode] && !failed {
			failed = true
			return errors.New("the disk is on fire")
		}
		return nil
	}
	s.committer.lock <- struct{}{} // so that both commit together
	var wg sync.WaitGroup
	for _, oid := range []zeolite.OID{10, 20} {
		wg.Go(func() {
			data := map[zeolite.OID]string{oid: strings.Repeat("x", walGroupMax)}
			if _, err := w.commit(s, data, map[zeolite.OID]string{oid + 1: "a small blob"}, nil); !errors.Is(err, errSyncFailed) {
				t.Errorf("got error %v", err)
			}
		})
	}
	waiting := func() int {
		s.committer.mu.Lock()
		defer s.committer.mu.Unlock()
		return len(s.committer.queue)
	}
	for waiting() < 2 {
		runtime.Gosched()
	}
	<-s.committer.lock
	wg.Wait()
	if !failed {
		t.Error("no blob was synced")
	}
	n := w.fs.count()
	for seed := range uint64(4) {
		w.check(t, n, w.fs.crash(n, rand.New(rand.NewPCG(seed, 1))), true)
	}
	if s.Info().ReadOnly {
		t.Error("the storage is read-only")
	}
}

// A directory that a commit cannot sync may have the names of blobs that are in the
// log: nobody may believe that they are durable after the next sync of it.
func TestBlobDirectorySyncFails(t *testing.T) {
	for name, other := range map[string]struct{ data, blob int }{
		"a large blob":                  {10, logBlobMax + 1},
		"a group too large for the log": {walGroupMax, 10},
	} {
		t.Run(name, func(t *testing.T) {
			s, w := newCrashDB(t, Options{BlobDir: "blobs", SyncInterval: neverSyncs.SyncInterval})
			if _, err := w.commit(s, nil, map[zeolite.OID]string{1: "small"}, nil); err != nil {
				t.Fatal(err)
			}
			var failed atomic.Bool
			w.fs.fail = func(op fsOp) error {
				if op.kind == "syncdir" && strings.HasPrefix(op.name, "blobs") && failed.CompareAndSwap(false, true) {
					return errors.New("the disk is on fire")
				}
				return nil
			}
			blobs := map[zeolite.OID]string{2: strings.Repeat("y", other.blob)}
			_, err := w.commit(s, map[zeolite.OID]string{3: strings.Repeat("x", other.data)}, blobs, nil)
			if err == nil || errors.Is(err, zeolite.ErrInDoubt) {
				t.Errorf("got error %v", err)
			}
			if !failed.Load() || !s.Info().ReadOnly {
				t.Errorf("a sync failed: %v, and the storage is read-only: %v", failed.Load(), s.Info().ReadOnly)
			}
			if err := s.data.now(); err == nil || s.data.reached(s.gen.Load().end.Load()) {
				t.Errorf("blobs are said to be durable, %v", err)
			}
			s.Close()
			if !exists(s.walPath()) {
				t.Error("the log is gone")
			}
			n := w.fs.count()
			for seed := range uint64(4) {
				w.check(t, n, w.fs.crash(n, rand.New(rand.NewPCG(seed, 1))), true)
			}
		})
	}
}
