package demostorage

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// frozen is a storage in memory whose clock stands still.
func frozen(t *testing.T, now *time.Time) zeolite.Storage {
	return memory.New(memory.Options{BlobDir: t.TempDir(), Now: func() time.Time { return *now }})
}

func wantConflict(t *testing.T, err error, oid zeolite.OID, committed, seen zeolite.TID, read bool) {
	t.Helper()
	var c *zeolite.ConflictError
	if !errors.As(err, &c) || c.OID != oid || c.Committed != committed || c.Seen != seen || c.Read != read {
		t.Errorf("got %v, want a conflict of %v, committed %v, seen %v, read %t", err, oid, committed, seen, read)
	}
}

func wantLoad(t *testing.T, s zeolite.Storage, oid zeolite.OID, before zeolite.TID, text string, tid, end zeolite.TID) {
	t.Helper()
	rev, err := s.LoadBefore(t.Context(), oid, before)
	if err != nil || string(rev.Data) != string(storagetest.Record(text)) || rev.TID != tid || rev.End != end {
		t.Errorf("LoadBefore(%v, %v): got %q of %v until %v, %v; want %s of %v until %v",
			oid, before, rev.Data, rev.TID, rev.End, err, text, tid, end)
	}
}

func wantGone(t *testing.T, s zeolite.Storage, oid zeolite.OID, before zeolite.TID) {
	t.Helper()
	if _, err := s.LoadBefore(t.Context(), oid, before); !isNotFound(err) {
		t.Errorf("LoadBefore(%v, %v): got %v, want *NotFoundError", oid, before, err)
	}
}

// The changes would take any serial of an object that only the base has.
func TestSerialsOfTheBase(t *testing.T) {
	base := openMemory(t)
	one, two := zeolite.OID(1), zeolite.OID(2)
	put(t, base, at(1), one, 0, "1")
	put(t, base, at(2), one, at(1), "2")
	put(t, base, at(1+2), two, 0, "3")
	commit(t, base, at(4), func(tx zeolite.Txn) error { return tx.Delete(t.Context(), two, at(3)) })
	s := open(t, base, openMemory(t))

	tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Abort()
	data := storagetest.Record("new")
	for _, serial := range []zeolite.TID{0, at(1), at(2) + 1} {
		wantConflict(t, tx.Store(t.Context(), one, serial, data), one, at(2), serial, false)
		wantConflict(t, tx.Delete(t.Context(), one, serial), one, at(2), serial, false)
		wantConflict(t, tx.CheckCurrent(t.Context(), one, serial), one, at(2), serial, true)
		wantConflict(t, tx.Store(t.Context(), two, serial, data), two, at(4), serial, false)
	}
	up, err := upload(t.Context(), s, data)
	if err != nil {
		t.Fatal(err)
	}
	defer up.Discard()
	wantConflict(t, tx.StoreBlob(t.Context(), one, at(1), data, up), one, at(2), at(1), false)
	for _, err := range []error{
		tx.Delete(t.Context(), two, at(4)), tx.CheckCurrent(t.Context(), two, at(4)),
		tx.Delete(t.Context(), 3, 0), tx.CheckCurrent(t.Context(), 3, 0),
	} {
		if !isNotFound(err) {
			t.Errorf("got %v, want *NotFoundError", err)
		}
	}
	if err := errors.Join(tx.CheckCurrent(t.Context(), one, at(2)), tx.Store(t.Context(), one, at(2), data),
		tx.Store(t.Context(), two, at(4), data)); err != nil {
		t.Error(err)
	}
	tx.Abort()

	// From the first change on, the changes count.
	tid := put(t, s, 0, one, at(2), "5")
	_, err = tryCommit(t, s, 0, func(tx zeolite.Txn) error { return tx.Store(t.Context(), one, at(2), data) })
	wantConflict(t, err, one, tid, at(2), false)
	wantLoad(t, s, one, zeolite.MaxTID, "5", tid, 0)
	wantLoad(t, s, one, tid, "2", at(2), tid)
	wantLoad(t, base, one, zeolite.MaxTID, "2", at(2), 0)
}

func TestUndoGoesBackToTheBase(t *testing.T) {
	for name, changes := range map[string]zeolite.Storage{"memory": openMemory(t), "file": openFile(t, t.TempDir())} {
		t.Run(name, func(t *testing.T) {
			base := openMemory(t)
			up, err := upload(t.Context(), unpacked{base.(storage)}, []byte("base"))
			if err != nil {
				t.Fatal(err)
			}
			commit(t, base, at(1), func(tx zeolite.Txn) error {
				return errors.Join(
					tx.Store(t.Context(), 1, 0, storagetest.Record("base")),
					tx.StoreBlob(t.Context(), 2, 0, storagetest.BlobRecord(), up))
			})
			s := open(t, base, changes)
			tid := commit(t, s, 0, func(tx zeolite.Txn) error {
				return errors.Join(
					tx.Store(t.Context(), 1, at(1), storagetest.Record("changed")),
					tx.Store(t.Context(), 2, at(1), storagetest.Record("changed")),
					tx.Store(t.Context(), 3, 0, storagetest.Record("created")))
			})
			var published []zeolite.OID
			tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Abort()
			if _, err := tx.Undo(t.Context(), at(1)); err == nil {
				t.Error("a transaction of the base was undone")
			}
			oids, err := tx.Undo(t.Context(), tid)
			if err != nil || len(oids) != 3 {
				t.Fatal(oids, err)
			}
			if err := tx.Vote(t.Context()); err != nil {
				t.Fatal(err)
			}
			undone, err := tx.Finish(t.Context(), func(_ zeolite.TID, oids []zeolite.OID, visible func()) {
				published = oids
				visible()
			})
			if err != nil || len(published) != 3 {
				t.Fatal(published, err)
			}
			wantLoad(t, s, 1, zeolite.MaxTID, "base", undone, 0)
			wantGone(t, s, 3, zeolite.MaxTID)
			blob, err := s.OpenBlob(t.Context(), 2, undone)
			if err != nil {
				t.Fatal(err)
			}
			defer blob.Close()
			text := make([]byte, blob.Size())
			if _, err := blob.ReadAt(text, 0); string(text) != "base" {
				t.Errorf("the blob is %q, %v", text, err)
			}

			// There and back.
			redone := commit(t, s, 0, func(tx zeolite.Txn) error { _, err := tx.Undo(t.Context(), undone); return err })
			wantLoad(t, s, 1, zeolite.MaxTID, "changed", redone, 0)
			wantLoad(t, s, 3, zeolite.MaxTID, "created", redone, 0)

			// An aborted undo leaves nothing.
			tx, err = s.Begin(t.Context(), zeolite.TxnMeta{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Undo(t.Context(), redone); err != nil {
				t.Fatal(err)
			}
			tx.Abort()
			wantLoad(t, s, 1, zeolite.MaxTID, "changed", redone, 0)
		})
	}
}

func TestDeletedInChanges(t *testing.T) {
	base := openMemory(t)
	put(t, base, at(1), 1, 0, "base")
	put(t, base, at(2), 2, 0, "base")
	s := open(t, base, openMemory(t))
	died := commit(t, s, 0, func(tx zeolite.Txn) error { return tx.Delete(t.Context(), 1, at(1)) })
	wantGone(t, s, 1, zeolite.MaxTID)
	wantLoad(t, s, 1, died, "base", at(1), died)
	if _, err := s.CurrentTID(t.Context(), 1); !isNotFound(err) {
		t.Errorf("CurrentTID: %v", err)
	}
	if rec, err := s.NextRecord(t.Context(), 0); err != nil || rec.OID != 2 || rec.More {
		t.Errorf("NextRecord: %+v, %v", rec, err)
	}
	back := put(t, s, 0, 1, died, "back")
	wantLoad(t, s, 1, zeolite.MaxTID, "back", back, 0)
	wantGone(t, s, 1, back)
}

// Blobs of the base are read; without blobs in the changes there are none.
func TestBlobsOfTheBase(t *testing.T) {
	base := openMemory(t)
	up, err := upload(t.Context(), unpacked{base.(storage)}, []byte("base"))
	if err != nil {
		t.Fatal(err)
	}
	commit(t, base, at(1), func(tx zeolite.Txn) error {
		return tx.StoreBlob(t.Context(), 1, 0, storagetest.BlobRecord(), up)
	})
	s := open(t, base, openMemory(t))
	blob, err := s.OpenBlob(t.Context(), 1, at(1))
	if err != nil || blob.Size() != 4 {
		t.Fatal(blob, err)
	}
	blob.Close()

	plain := open(t, struct{ zeolite.Storage }{base}, openMemory(t))
	var missing *zeolite.NotFoundError
	if _, err := plain.OpenBlob(t.Context(), 1, at(1)); !errors.As(err, &missing) || !missing.Blob {
		t.Errorf("a base without blobs: %v", err)
	}
}

// A storage for changes that can do less makes one that can do less.
func TestAbilities(t *testing.T) {
	s := open(t, openMemory(t), bare{openMemory(t)})
	if info := s.Info(); info.Undo || info.Pack || info.Blobs || info.RecordIteration {
		t.Errorf("Info: %+v", info)
	}
	_, nextErr := s.NextRecord(t.Context(), 0)
	_, openErr := s.OpenBlob(t.Context(), 1, 1)
	_, createErr := s.CreateBlob(t.Context())
	errs := []error{nextErr, openErr, createErr, s.Pack(t.Context(), 1, zeolite.PackOptions{})}
	for _, err := range s.UndoLog(t.Context()) {
		errs = append(errs, err)
	}
	if len(errs) != 5 {
		t.Error("UndoLog yields nothing")
	}
	for i, err := range errs {
		if !errors.Is(err, zeolite.ErrUnsupported) {
			t.Errorf("%d: got %v, want ErrUnsupported", i, err)
		}
	}
}

// bare has no optional ability.
type bare struct{ zeolite.Storage }

func (b bare) Info() zeolite.Info { return zeolite.Info{Name: b.Storage.Info().Name} }

func TestStacked(t *testing.T) {
	base := openMemory(t)
	put(t, base, at(1), 1, 0, "base")
	put(t, base, at(2), 2, 0, "base")
	middle := open(t, base, openMemory(t))
	put(t, middle, at(3), 1, at(1), "middle")
	s := open(t, middle, openMemory(t))
	tid := put(t, s, 0, 2, at(2), "top")
	wantLoad(t, s, 1, zeolite.MaxTID, "middle", at(3), 0)
	wantLoad(t, s, 1, at(3), "base", at(1), at(3))
	wantLoad(t, s, 2, zeolite.MaxTID, "top", tid, 0)
	wantLoad(t, s, 2, tid, "base", at(2), tid)
	if name, want := s.Info().Name, "DemoStorage('DemoStorage('memory', 'memory')', 'memory')"; name != want {
		t.Errorf("name: %s, want %s", name, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := base.LoadBefore(t.Context(), 1, at(2)); !errors.Is(err, zeolite.ErrClosed) {
		t.Errorf("the base after Close: %v", err)
	}
}

func TestTransactionsFollowTheBase(t *testing.T) {
	base := openMemory(t)
	last := put(t, base, at(10), 1, 0, "base")
	put(t, base, at(11), 2, 0, "base")
	now := at(10).Time()
	clock := func() time.Time { return now }
	wantError := func(what string, err error, text string) {
		t.Helper()
		var wrong *zeolite.StorageError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got error %v, want one with %q", what, err, text)
		}
	}

	_, err := New(base, frozen(t, &now), Options{Now: clock})
	wantError("a base in the future", err, "in the future")
	older := frozen(t, &now)
	put(t, older, at(9), 1, 0, "older")
	put(t, older, at(20), 1, at(9), "later")
	_, err = New(base, older, Options{Now: clock})
	wantError("a base that changed", err, "the base has changed")

	now = at(12).Time()
	s, err := New(base, frozen(t, &now), Options{Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, tid := range []zeolite.TID{1, last, at(11)} {
		_, err = s.Begin(t.Context(), zeolite.TxnMeta{TID: tid})
		wantError("an early tid", err, "cannot follow")
	}
	store := func(tx zeolite.Txn) error { return tx.Store(t.Context(), 1, at(10), storagetest.Record("x")) }
	tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	if err == nil {
		err = errors.Join(store(tx), tx.Vote(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
	now = at(11).Time() // put back
	_, err = tx.Finish(t.Context(), nil)
	wantError("Finish", err, "in the future")
	_, err = tryCommit(t, s, 0, store)
	wantError("Vote", err, "in the future")
	if tid := s.LastTID(); tid != at(11) {
		t.Errorf("LastTID: %v, want %v", tid, at(11))
	}
	// Once they are past the base, the clock does not matter any more.
	tid := commit(t, s, at(30), store)
	if next := put(t, s, 0, 1, tid, "y"); next <= tid {
		t.Errorf("transaction %v follows %v", next, tid)
	}
}

func TestNewOIDs(t *testing.T) {
	base, changes := openMemory(t), openMemory(t)
	s := open(t, base, changes)
	if first := s.oids.next; first < 1 || first > maxRandomOID {
		t.Errorf("counting begins with %v", first)
	}
	start := s.oids.next
	put(t, base, at(1), start+2, 0, "in the base")
	put(t, changes, at(2), start+1<<40, 0, "in the changes")
	dead := put(t, changes, at(3), start+1<<41, 0, "deleted")
	commit(t, changes, at(4), func(tx zeolite.Txn) error { return tx.Delete(t.Context(), start+1<<41, dead) })
	seen := map[zeolite.OID]bool{}
	take := func(n int) []zeolite.OID {
		t.Helper()
		oids, err := s.NewOIDs(t.Context(), n)
		if err != nil || len(oids) != n {
			t.Fatal(oids, err)
		}
		for _, oid := range oids {
			if seen[oid] || oid == start+2 || oid == start+1<<40 || oid == start+1<<41 {
				t.Errorf("%v is taken", oid)
			}
			seen[oid] = true
		}
		return oids
	}
	if oids := take(4); oids[1] != start+1 || oids[2] == start+2 || oids[3] != oids[2]+1 {
		t.Errorf("got %v, beginning with %v", oids, start)
	}
	for _, taken := range []zeolite.OID{start, start + 1, start + 1<<40, start + 1<<41} {
		s.oids.jump()
		s.oids.first, s.oids.next = taken, taken
		take(2)
	}
}

// While an object of the base is changed for the first time, it is one or the
// other state, never missing, and never the old one again.
func TestLoadWhileFirstChanged(t *testing.T) {
	const n = 300
	base := openMemory(t)
	commit(t, base, at(1), func(tx zeolite.Txn) error {
		var errs []error
		for oid := range zeolite.OID(n) {
			errs = append(errs, tx.Store(t.Context(), oid, 0, storagetest.Record("base")))
		}
		return errors.Join(errs...)
	})
	s := open(t, base, openMemory(t))
	var newest atomic.Int64 // objects up to this one are changed, or just being so
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			last := map[zeolite.OID]zeolite.TID{}
			for oid := zeolite.OID(0); oid < n; {
				rev, err := s.LoadBefore(t.Context(), oid, zeolite.MaxTID)
				tid, err2 := s.CurrentTID(t.Context(), oid)
				rec, err3 := s.NextRecord(t.Context(), oid)
				if err := errors.Join(err, err2, err3); err != nil {
					t.Errorf("%v: %v", oid, err)
					return
				}
				if rev.End != 0 || rev.TID < last[oid] || tid < rev.TID || rec.OID != oid || rec.TID < tid {
					t.Errorf("%v: was %v, loaded %v until %v, current %v, next %v %v", oid, last[oid], rev.TID, rev.End, tid, rec.OID, rec.TID)
					return
				}
				if last[oid] = rec.TID; oid < zeolite.OID(newest.Load()) {
					oid++
				}
			}
		})
	}
	for oid := range zeolite.OID(n) {
		tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
		if err == nil {
			err = errors.Join(tx.Store(t.Context(), oid, at(1), storagetest.Record("new")), tx.Vote(t.Context()))
		}
		if err == nil {
			_, err = tx.Finish(t.Context(), nil)
		}
		newest.Add(1)
		if err != nil {
			t.Error(err)
		}
	}
	readers.Wait()
}
