package filestorage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// packWith packs and calls during once in the named phase.
func (db *testDB) packWith(ctx context.Context, phase string, during func()) error {
	yes := true
	var once sync.Once
	return db.s.Pack(ctx, db.s.LastTID(), zeolite.PackOptions{GC: &yes, Progress: func(p zeolite.PackProgress) {
		if p.Phase == phase {
			once.Do(during)
		}
	}})
}

// world has a root, an object that it refers to, and garbage.
func world(t *testing.T) (db *testDB, root, one, garbage zeolite.TID) {
	db = newDB(t, Options{})
	db.store(0, 0, string(storagetest.Record("old root")))
	root = db.store(0, db.s.LastTID(), string(storagetest.Record("root", 1)))
	one = db.store(1, 0, string(storagetest.Record("one")))
	garbage = db.store(2, 0, string(storagetest.Record("garbage", 3)))
	db.store(3, 0, string(storagetest.Record("more garbage")))
	return db, root, one, garbage
}

// A transaction that is committed during a pack saves what was garbage.
func TestPackResurrected(t *testing.T) {
	db, root, _, _ := world(t)
	err := db.packWith(ctx, "copy", func() {
		db.store(0, root, string(storagetest.Record("root", 1, 2)))
	})
	db.must(err)
	db.wantLoad(2, zeolite.MaxTID, string(storagetest.Record("garbage", 3)))
	db.wantLoad(3, zeolite.MaxTID, string(storagetest.Record("more garbage")))
	if n := len(tids(t, db.s)); n != 5 {
		t.Errorf("%d transactions after the pack, want 5", n)
	}
}

// So does one that writes the garbage itself.
func TestPackResurrectedByStore(t *testing.T) {
	db, _, _, garbage := world(t)
	err := db.packWith(ctx, "copy", func() {
		db.store(2, garbage, string(storagetest.Record("garbage again", 3)))
	})
	db.must(err)
	db.wantLoad(2, zeolite.MaxTID, string(storagetest.Record("garbage again", 3)))
	db.wantLoad(3, zeolite.MaxTID, string(storagetest.Record("more garbage")))
}

// A transaction that undoes refers to places in the file: packing waits for it.
func TestPackWaitsForUndo(t *testing.T) {
	db, root, _, _ := world(t)
	tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
	db.must(err)
	_, err = tx.Undo(ctx, root)
	db.must(err)
	db.must(tx.Vote(ctx))
	copying, packed := make(chan struct{}), make(chan error, 1)
	go func() {
		packed <- db.packWith(ctx, "copy", func() { close(copying) })
	}()
	<-copying
	_, err = tx.Finish(ctx, nil)
	db.must(err)
	db.must(<-packed)
	db.wantLoad(0, zeolite.MaxTID, string(storagetest.Record("old root")))
	db.reopen()
	db.wantLoad(0, zeolite.MaxTID, string(storagetest.Record("old root")))
}

func TestPackCancelled(t *testing.T) {
	for _, phase := range []string{"index", "mark", "copy"} {
		db, root, _, _ := world(t)
		before := len(tids(t, db.s))
		cancelled, cancel := context.WithCancel(ctx)
		if err := db.packWith(cancelled, phase, cancel); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got error %v", phase, err)
		}
		if exists(db.path + ".pack") {
			t.Errorf("%s: Data.fs.pack is left behind", phase)
		}
		if n := len(tids(t, db.s)); n != before {
			t.Errorf("%s: %d transactions, want %d", phase, n, before)
		}
		db.store(0, root, string(storagetest.Record("root", 1)))
		db.must(db.packWith(ctx, "", nil))
	}
}

// Closing ends a pack.
func TestCloseDuringPack(t *testing.T) {
	db, _, _, _ := world(t)
	closed := make(chan error, 1)
	err := db.packWith(ctx, "mark", func() {
		go func() { closed <- db.s.Close() }()
		<-db.s.stopped.Done()
	})
	if !errors.Is(err, zeolite.ErrClosed) {
		t.Errorf("got error %v, want ErrClosed", err)
	}
	db.must(<-closed)
	db.open()
	if n := len(tids(t, db.s)); n != 5 {
		t.Errorf("%d transactions, want 5", n)
	}
}

// Only one pack runs at a time.
func TestPackTwice(t *testing.T) {
	db, _, _, _ := world(t)
	err := db.packWith(ctx, "mark", func() {
		if err := db.packWith(ctx, "", nil); err == nil {
			t.Error("a second pack ran")
		}
	})
	db.must(err)
}

// The records of a transaction found before a pack are an error after it, or
// still right.
func TestRecordsAfterPack(t *testing.T) {
	db, _, _, _ := world(t)
	for tr, err := range db.s.Transactions(ctx, 0, zeolite.MaxTID) {
		db.must(err)
		db.must(db.packWith(ctx, "", nil))
		for r, err := range tr.Records {
			db.must(err)
			if string(r.Data) != string(storagetest.Record("old root")) {
				t.Errorf("got %q", r.Data)
			}
		}
		break
	}
}

// What one pack could not remove, the next one does.
func TestRemovingBlobsLater(t *testing.T) {
	s, w := newCrashDB(t, Options{BlobDir: "blobs", PackRemoveOld: true, SyncInterval: neverSyncs.SyncInterval})
	defer s.Close()
	serials := map[zeolite.OID]zeolite.TID{}
	var old []string
	for _, contents := range []string{"first", "second", "third"} {
		tid, err := w.commit(s, nil, map[zeolite.OID]string{1: contents}, serials)
		if err != nil {
			t.Fatal(err)
		}
		if serials[1] == 0 {
			serials[1] = tid
			continue
		}
		old = append(old, s.blobs.file(1, serials[1]))
		serials[1] = tid
		w.fs.fail = nil
		if contents == "second" {
			w.fs.fail = func(op fsOp) error {
				if op.kind == "remove" && strings.HasSuffix(op.name, blobSuffix) {
					return errors.New("no leave to remove it")
				}
				return nil
			}
		}
		if err := s.Pack(ctx, tid, zeolite.PackOptions{GC: new(false)}); err != nil {
			t.Fatal(err)
		}
		if contents == "second" && !exists(old[0]) {
			t.Error("the blob was removed at once")
		}
	}
	if exists(old[0]) || exists(old[1]) || exists(filepath.Join(s.blobs.path, removedList)) {
		t.Errorf("the first blob is there: %v, the second: %v", exists(old[0]), exists(old[1]))
	}
}

// What a crash kept a pack from removing goes when the storage is opened, but
// never a blob that the database has.
func TestResumeRemovingBlobs(t *testing.T) {
	db := newDB(t, Options{BlobDir: filepath.Join(t.TempDir(), "blobs")})
	u, err := db.s.CreateBlob(ctx)
	db.must(err)
	_, err = u.Write([]byte("kept"))
	db.must(err)
	db.must(u.Complete())
	tid := db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return tx.StoreBlob(ctx, 1, 0, storagetest.BlobRecord(), u)
	})
	d := db.s.blobs
	kept, dropped := d.file(1, tid), d.file(1, tid-1)
	db.must(os.WriteFile(dropped, []byte("dropped"), 0o444))
	db.close()
	list := fmt.Sprintf("%x%x\n%x%x\njunk\n%x\n", zeolite.OID(1).Bytes(), tid.Bytes(), zeolite.OID(1).Bytes(), (tid - 1).Bytes(), zeolite.OID(1).Bytes())
	db.must(os.WriteFile(filepath.Join(d.path, removedList), []byte(list), 0o666))
	db.open()
	if !exists(kept) || exists(dropped) || exists(filepath.Join(d.path, removedList)) {
		t.Errorf("kept blob is there: %v, dropped one: %v, list: %v", exists(kept), exists(dropped), exists(filepath.Join(d.path, removedList)))
	}
}

// A pack waits for an index that is being saved before it holds commits up.
func TestPackWaitsForIndexFirst(t *testing.T) {
	s, w := newCrashDB(t, neverSyncs)
	defer s.Close()
	tid, err := w.commit(s, map[zeolite.OID]string{0: "first"}, nil, nil)
	if err == nil {
		_, err = w.commit(s, map[zeolite.OID]string{0: "second"}, nil, map[zeolite.OID]zeolite.TID{0: tid})
	}
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	w.fs.fail = func(op fsOp) error {
		if op.kind == "sync" && op.inode == w.fs.inodes["Data.fs.pack"] && len(s.committer.lock) > 0 {
			seen = true
			if s.indexSave.mu.TryLock() {
				s.indexSave.mu.Unlock()
				t.Error("commits are held up, and the index may be saved now")
			}
		}
		return nil
	}
	if err := s.Pack(ctx, s.LastTID(), zeolite.PackOptions{GC: new(false)}); err != nil {
		t.Fatal(err)
	}
	if !seen {
		t.Error("the new file was not synced with the commit lock held")
	}
}

// What was committed is synced before a pack holds commits up.
func TestPackSyncsFirst(t *testing.T) {
	for what, revisions := range map[string]int{"with something to remove": 2, "in vain": 1} {
		t.Run(what, func(t *testing.T) {
			s, w := newCrashDB(t, Options{BlobDir: "blobs", SyncInterval: neverSyncs.SyncInterval})
			defer s.Close()
			serials := map[zeolite.OID]zeolite.TID{}
			for i := range revisions {
				tid, err := w.commit(s, nil, map[zeolite.OID]string{1: fmt.Sprint(i)}, serials)
				if err != nil {
					t.Fatal(err)
				}
				serials[1] = tid
			}
			seen := false
			w.fs.fail = func(op fsOp) error {
				if op.kind == "sync" && op.inode == w.fs.inodes[w.fs.rel(s.blobs.file(1, serials[1]))] {
					if seen = true; len(s.committer.lock) > 0 {
						t.Error("commits are held up, and a blob is synced")
					}
				}
				return nil
			}
			if err := s.Pack(ctx, s.LastTID(), zeolite.PackOptions{GC: new(false)}); err != nil {
				t.Fatal(err)
			}
			if !seen {
				t.Error("the blob was not synced")
			}
		})
	}
}
