package memory_test

import (
	"errors"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// Of three objects, at first, the root refers to the second and third, and
// then to the second only.
func withGarbage(t *testing.T) (s *memory.Storage, garbage zeolite.TID) {
	t.Helper()
	s = memory.New(memory.Options{})
	t.Cleanup(func() { s.Close() })
	first := commit(t, s, nil, func(tx zeolite.Txn) error {
		for oid, rec := range [][]byte{storagetest.Record("root", 1, 2), storagetest.Record("1"), storagetest.Record("2")} {
			if err := tx.Store(t.Context(), zeolite.OID(oid), 0, rec); err != nil {
				return err
			}
		}
		return nil
	})
	second := storeRoot(t, s, first, storagetest.Record("root", 1))
	return s, second
}

func storeRoot(t *testing.T, s *memory.Storage, serial zeolite.TID, rec []byte) zeolite.TID {
	t.Helper()
	return commit(t, s, nil, func(tx zeolite.Txn) error {
		return tx.Store(t.Context(), zeolite.RootOID, serial, rec)
	})
}

func wantObject(t *testing.T, s *memory.Storage, oid zeolite.OID) {
	t.Helper()
	if _, err := s.LoadBefore(t.Context(), oid, zeolite.MaxTID); err != nil {
		t.Errorf("object %v is lost: %v", oid, err)
	}
}

// An object that was garbage at the time of the pack stays if a later revision
// refers to it.
func TestPackKeepsWhatWasRelinked(t *testing.T) {
	s, garbage := withGarbage(t)
	storeRoot(t, s, garbage, storagetest.Record("root", 1, 2))
	if err := s.Pack(t.Context(), garbage, zeolite.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	wantObject(t, s, 2)
}

// The same if that revision is committed while Pack runs. Progress is the
// moment between marking and sweeping.
func TestPackKeepsWhatIsRelinkedMeanwhile(t *testing.T) {
	s, garbage := withGarbage(t)
	calls := 0
	err := s.Pack(t.Context(), garbage, zeolite.PackOptions{Progress: func(zeolite.PackProgress) {
		if calls++; calls == 1 {
			storeRoot(t, s, garbage, storagetest.Record("root", 1, 2))
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if calls == 0 {
		t.Error("Progress was never called")
	}
	wantObject(t, s, 2)
}

// The same if an undo that has begun brings that revision back.
func TestPackKeepsWhatAnUndoRelinks(t *testing.T) {
	s, second := withGarbage(t)
	undo := func(tx zeolite.Txn) error {
		_, err := tx.Undo(t.Context(), second)
		return err
	}
	aborted, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	if err == nil {
		err = undo(aborted)
	}
	if err != nil {
		t.Fatal(err)
	}
	third := commit(t, s, nil, func(tx zeolite.Txn) error {
		return errors.Join(undo(tx), s.Pack(t.Context(), second, zeolite.PackOptions{}))
	})
	wantObject(t, s, 2)
	aborted.Abort()
	// What is over does not count.
	last := storeRoot(t, s, third, storagetest.Record("root", 1))
	if err := s.Pack(t.Context(), last, zeolite.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := s.Info().Objects; n != 2 {
		t.Errorf("%d objects are left, want the root and one more", n)
	}
}

// A deleted object is forgotten entirely.
func TestPackForgetsDeletions(t *testing.T) {
	s, _ := withGarbage(t)
	serial, err := s.CurrentTID(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	deleted := commit(t, s, nil, func(tx zeolite.Txn) error { return tx.Delete(t.Context(), 1, serial) })
	if err := s.Pack(t.Context(), deleted, zeolite.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := s.Info().Objects; n != 1 {
		t.Errorf("%d objects are left, want the root alone", n)
	}
	if last := s.LastTID(); last != deleted {
		t.Errorf("LastTID: got %v, want %v", last, deleted)
	}
}

// One Pack at a time.
func TestPackRunsOnce(t *testing.T) {
	s, garbage := withGarbage(t)
	err := s.Pack(t.Context(), garbage, zeolite.PackOptions{Progress: func(zeolite.PackProgress) {
		if err := s.Pack(t.Context(), garbage, zeolite.PackOptions{}); err == nil {
			t.Error("a second Pack was not refused")
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// A record that is no pickle fails the pack, and nothing is lost.
func TestPackOfDamagedRecord(t *testing.T) {
	s, last := withGarbage(t)
	last = storeRoot(t, s, last, []byte("no pickle"))
	if err := s.Pack(t.Context(), last, zeolite.PackOptions{}); err == nil {
		t.Fatal("Pack understood a record that is no pickle")
	}
	for oid := range zeolite.OID(3) {
		wantObject(t, s, oid)
	}
	if infos, err := s.History(t.Context(), zeolite.RootOID, 9); err != nil || len(infos) != 3 {
		t.Errorf("history of the root: %v, %v", infos, err)
	}
}

// A blob that an undo brings back is there, though the revision it comes from
// was packed before the undo was finished.
func TestPackDuringUndo(t *testing.T) {
	s := memory.New(memory.Options{BlobDir: t.TempDir()})
	defer s.Close()
	store := func(serial zeolite.TID, text string) zeolite.TID {
		return commit(t, s, nil, func(tx zeolite.Txn) error {
			up, err := s.CreateBlob(t.Context())
			if err == nil {
				_, err = up.Write([]byte(text))
			}
			if err == nil {
				err = up.Complete()
			}
			if err != nil {
				return err
			}
			return tx.StoreBlob(t.Context(), 1, serial, storagetest.BlobRecord(), up)
		})
	}
	first := store(0, "first")
	second := store(first, "second")
	undone := commit(t, s, nil, func(tx zeolite.Txn) error {
		if _, err := tx.Undo(t.Context(), second); err != nil {
			return err
		}
		return s.Pack(t.Context(), second, zeolite.PackOptions{GC: new(bool)})
	})
	if _, err := s.OpenBlob(t.Context(), 1, first); err == nil {
		t.Error("the first revision was not packed")
	}
	blob, err := s.OpenBlob(t.Context(), 1, undone)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	text := make([]byte, blob.Size())
	if _, err := blob.ReadAt(text, 0); err != nil || string(text) != "first" {
		t.Errorf("the blob is %q, %v", text, err)
	}
}
