package memory_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		return storagetest.Harness{
			Storage:        memory.New(memory.Options{BlobDir: t.TempDir()}),
			ConcurrentTxns: true,
		}
	})
}

// The suite does not care about the clock: it may stand still.
func TestConformanceWithoutTime(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		return storagetest.Harness{
			Storage:        memory.New(memory.Options{BlobDir: t.TempDir(), Now: func() time.Time { return noon }}),
			ConcurrentTxns: true,
		}
	})
}

func commit(t *testing.T, s *memory.Storage, publish zeolite.Publish, fill func(tx zeolite.Txn) error) zeolite.TID {
	t.Helper()
	tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Abort()
	if err := fill(tx); err != nil {
		t.Fatal(err)
	}
	if err := tx.Vote(t.Context()); err != nil {
		t.Fatal(err)
	}
	tid, err := tx.Finish(t.Context(), publish)
	if err != nil {
		t.Fatal(err)
	}
	return tid
}

func TestTIDsFollowTheClock(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	s := memory.New(memory.Options{Name: "clock", Now: func() time.Time { return now }})
	defer s.Close()
	if name := s.Info().Name; name != "clock" {
		t.Errorf("name: %q", name)
	}
	empty := func(zeolite.Txn) error { return nil }
	first := commit(t, s, nil, empty)
	if want := zeolite.TIDFromTime(now); first != want {
		t.Errorf("tid: got %v, want %v", first, want)
	}
	now = now.Add(-time.Hour)
	if second := commit(t, s, nil, empty); second != first+1 {
		t.Errorf("tid after the clock went back: got %v, want %v", second, first+1)
	}
	now = now.Add(2 * time.Hour)
	if third, want := commit(t, s, nil, empty), zeolite.TIDFromTime(now); third != want {
		t.Errorf("tid: got %v, want %v", third, want)
	}
}

// A careless Publish cannot leave a transaction invisible or make it visible
// twice.
func TestPublishThatMiscounts(t *testing.T) {
	s := memory.New(memory.Options{})
	defer s.Close()
	for i, publish := range []zeolite.Publish{
		func(zeolite.TID, []zeolite.OID, func()) {},
		func(_ zeolite.TID, _ []zeolite.OID, visible func()) { visible(); visible() },
	} {
		oid := zeolite.OID(i + 1)
		tid := commit(t, s, publish, func(tx zeolite.Txn) error {
			return tx.Store(t.Context(), oid, 0, []byte("data"))
		})
		if infos, err := s.History(t.Context(), oid, 9); err != nil || len(infos) != 1 || infos[0].TID != tid {
			t.Errorf("history: %v, %v", infos, err)
		}
	}
}

// wantFiles checks how many files the storages with this BlobDir have.
func wantFiles(t *testing.T, dir string, want int) {
	t.Helper()
	n := 0
	subdirs, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range subdirs {
		files, err := os.ReadDir(dir + "/" + sub.Name())
		if err != nil {
			t.Fatal(err)
		}
		n += len(files)
	}
	if n != want {
		t.Errorf("%d files in the blob directory, want %d", n, want)
	}
}

func newUpload(t *testing.T, s *memory.Storage) zeolite.BlobUpload {
	t.Helper()
	up, err := s.CreateBlob(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.Write([]byte("blob")); err != nil {
		t.Fatal(err)
	}
	if err := up.Complete(); err != nil {
		t.Fatal(err)
	}
	return up
}

// storeBlob commits object 1 with a blob.
func storeBlob(t *testing.T, s *memory.Storage, serial zeolite.TID, up zeolite.BlobUpload) zeolite.TID {
	t.Helper()
	return commit(t, s, nil, func(tx zeolite.Txn) error {
		return tx.StoreBlob(t.Context(), 1, serial, storagetest.BlobRecord(), up)
	})
}

// Blob files are in BlobDir while they are needed, and never longer than the
// storage is open.
func TestBlobFiles(t *testing.T) {
	dir := t.TempDir()
	count := func(want int) {
		t.Helper()
		wantFiles(t, dir, want)
	}
	s := memory.New(memory.Options{BlobDir: dir})
	upload := func() zeolite.BlobUpload {
		t.Helper()
		return newUpload(t, s)
	}
	store := func(serial zeolite.TID, up zeolite.BlobUpload) zeolite.TID {
		return storeBlob(t, s, serial, up)
	}
	first := store(0, upload())
	second := store(first, upload())
	count(2)
	discarded := upload()
	count(3)
	if err := discarded.Discard(); err != nil {
		t.Fatal(err)
	}
	count(2)
	third := commit(t, s, nil, func(tx zeolite.Txn) error {
		_, err := tx.Undo(t.Context(), second)
		return err
	})
	count(3) // the undo has another link to the first blob
	aborted, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	if err == nil {
		_, err = aborted.Undo(t.Context(), third)
	}
	if err != nil {
		t.Fatal(err)
	}
	count(4)
	aborted.Abort()
	count(3)
	no := false
	if err := s.Pack(t.Context(), third, zeolite.PackOptions{GC: &no}); err != nil {
		t.Fatal(err)
	}
	count(1)
	open, err := s.OpenBlob(t.Context(), 1, third)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	upload() // and leave it
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left after Close: %v, %v", left, err)
	}
	got := make([]byte, 4)
	if _, err := open.ReadAt(got, 0); err != nil || string(got) != "blob" {
		t.Errorf("a blob that was open: %q, %v", got, err)
	}
}

// A blob that an undo brings back, and something else replaces in the same
// transaction, leaves no file.
func TestUndoneBlobThatIsReplaced(t *testing.T) {
	dir := t.TempDir()
	s := memory.New(memory.Options{BlobDir: dir})
	defer s.Close()
	first := storeBlob(t, s, 0, newUpload(t, s))
	second := storeBlob(t, s, first, newUpload(t, s))
	third := storeBlob(t, s, second, newUpload(t, s))
	undo := func(tx zeolite.Txn) error {
		_, err := tx.Undo(t.Context(), third)
		if err == nil {
			_, err = tx.Undo(t.Context(), second)
		}
		return err
	}
	aborted, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	if err == nil {
		err = undo(aborted)
	}
	if err != nil {
		t.Fatal(err)
	}
	aborted.Abort()
	wantFiles(t, dir, 3)
	undone := commit(t, s, nil, undo)
	wantFiles(t, dir, 4)
	blob, err := s.OpenBlob(t.Context(), 1, undone)
	if err != nil {
		t.Fatal(err)
	}
	blob.Close()
	commit(t, s, nil, func(tx zeolite.Txn) error {
		_, err := tx.Undo(t.Context(), undone)
		return errors.Join(err, tx.StoreBlob(t.Context(), 1, undone, storagetest.BlobRecord(), newUpload(t, s)))
	})
	wantFiles(t, dir, 5)
}

func TestUploadsThatCannotBeStored(t *testing.T) {
	s, other := memory.New(memory.Options{}), memory.New(memory.Options{})
	defer s.Close()
	defer other.Close()
	upload := func(s *memory.Storage) zeolite.BlobUpload {
		up, err := s.CreateBlob(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return up
	}
	foreign, incomplete, discarded := upload(other), upload(s), upload(s)
	if err := foreign.Complete(); err != nil {
		t.Fatal(err)
	}
	if err := discarded.Discard(); err != nil {
		t.Fatal(err)
	}
	tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Abort()
	for name, up := range map[string]zeolite.BlobUpload{
		"foreign": foreign, "incomplete": incomplete, "discarded": discarded, "nil": nil,
	} {
		if err := tx.StoreBlob(t.Context(), 1, 0, storagetest.BlobRecord(), up); err == nil {
			t.Errorf("stored an upload that is %s", name)
		}
	}
	if err := tx.Vote(context.Background()); err != nil {
		t.Errorf("Vote: %v", err)
	}
}
