package filestorage

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

func (db *testDB) pack(tid zeolite.TID, gc bool) {
	db.Helper()
	db.must(db.s.Pack(ctx, tid, zeolite.PackOptions{GC: &gc}))
}

// Files are larger than an int can tell on 32-bit machines.
func TestMovedFar(t *testing.T) {
	p := &packer{shifts: []shift{{0, 1}, {3 << 30, 2}, {5 << 30, 3}, {9 << 30, 4}, {20 << 30, 5}}}
	for pos, by := range map[int64]int64{1: 1, 3<<30 - 1: 1, 3 << 30: 2, 5<<30 + 1: 3, 8 << 30: 3, 9 << 30: 4, 19 << 30: 4, 40 << 30: 5} {
		if got := p.moved(pos); got != pos-by {
			t.Errorf("%d moved by %d, want %d", pos, pos-got, by)
		}
	}
}

// After a pack to any moment, everything that is later is as it was.
func TestPackKeepsTheRest(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			db := newDB(t, Options{BlobDir: filepath.Join(t.TempDir(), "blobs"), PackRemoveOld: seed%2 == 0})
			rnd := rand.New(rand.NewPCG(seed, 3))
			randomHistory(db, rnd, 40)
			all := tids(t, db.s)
			for range 3 {
				tid := all[rnd.IntN(len(all))]
				before := describe(t, db.s, true)
				db.pack(tid, false)
				after := describe(t, db.s, true)
				comparePacked(t, tid, before, after)
				if seed%3 == 0 {
					os.Remove(db.path + ".index")
				}
				db.reopen()
				if again := describe(t, db.s, true); !reflect.DeepEqual(again, after) {
					t.Fatalf("packed to %v: differs after opening again", tid)
				}
				randomHistory(db, rnd, 5)
				all = tids(t, db.s)
			}
		})
	}
}

// comparePacked compares loads for the moments after a pack time, and blobs.
func comparePacked(t *testing.T, tid zeolite.TID, before, after described) {
	t.Helper()
	if before.Last != after.Last {
		t.Errorf("last transaction was %v, is %v", before.Last, after.Last)
	}
	for oid, loads := range before.Loads {
		for at, want := range loads {
			if at <= tid.String() {
				continue
			}
			got, known := after.Loads[oid][at]
			if !known && after.Loads[oid] != nil {
				continue // the transaction is gone, so nobody asked
			}
			if !known || want == "notfound" || want == "notyet" {
				if want != "notfound" && want != "notyet" || known && got != "notfound" && got != "notyet" {
					t.Errorf("packed to %v: load of %v before %v: got %.80v, want %.80v", tid, oid, at, got, want)
				}
				continue
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("packed to %v: load of %v before %v: got %.80v, want %.80v", tid, oid, at, got, want)
			}
			rev := want.([]any)
			if blob, had := before.Blobs[oid+rev[1].(string)]; had && after.Blobs[oid+rev[1].(string)] != blob {
				t.Errorf("packed to %v: the blob of %v at %v is gone", tid, oid, rev[1])
			}
		}
	}
}

// Python reads what we packed as we do, and what we pack has the same loads as
// what Python packs.
func TestPythonReadsPacked(t *testing.T) {
	p := newInspector(t)
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			blobs := filepath.Join(t.TempDir(), "blobs")
			db := newDB(t, Options{BlobDir: blobs})
			rnd := rand.New(rand.NewPCG(seed, 4))
			randomHistory(db, rnd, 40)
			all := tids(t, db.s)
			db.pack(all[rnd.IntN(len(all))], false)
			randomHistory(db, rnd, 5)
			got := describe(t, db.s, true)
			db.close()
			compare(t, got, p.ask(db.path, blobs, true))
		})
	}
}

// Python packs to the same bytes as we do.
func TestPythonPacks(t *testing.T) {
	p := newInspector(t)
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			db := newDB(t, Options{})
			rnd := rand.New(rand.NewPCG(seed, 5))
			serials := map[zeolite.OID]zeolite.TID{}
			var all []zeolite.TID
			for range 40 {
				tid := db.commit(zeolite.TxnMeta{User: []byte("somebody"), Description: []byte("\u00e4")}, func(tx zeolite.Txn) error {
					for range 1 + rnd.IntN(4) {
						oid := zeolite.OID(rnd.IntN(20))
						refs := []zeolite.OID{zeolite.OID(rnd.IntN(20)), zeolite.OID(rnd.IntN(20))}
						if oid == 0 {
							refs = append(refs, 1, 2, 3)
						}
						if err := tx.Store(ctx, oid, serials[oid], storagetest.Record(fmt.Sprint(rnd.Uint64()), refs...)); err != nil {
							return err
						}
						defer func() { serials[oid] = 0 }()
					}
					return nil
				})
				for oid, serial := range serials {
					if serial == 0 {
						serials[oid] = tid
					}
				}
				all = append(all, tid)
				if len(all) == 3 { // everything exists
					tid := db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
						for oid := range zeolite.OID(20) {
							if err := tx.Store(ctx, oid, serials[oid], storagetest.Record("start", (oid+1)%20)); err != nil {
								return err
							}
						}
						return nil
					})
					for oid := range zeolite.OID(20) {
						serials[oid] = tid
					}
				}
			}
			to := all[10+rnd.IntN(20)]
			gc := seed%2 == 0
			if gc {
				// What only later transactions refer to, Python drops and
				// we keep. So there must be none; and the last is no garbage.
				to = db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
					return tx.Store(ctx, 0, serials[0], storagetest.Record("root", 1, 2))
				})
			}
			db.close()
			theirs := filepath.Join(t.TempDir(), "Data.fs")
			writeImage(t, filepath.Dir(theirs), map[string][]byte{"Data.fs": db.bytes()})
			if d := p.do(map[string]any{"path": theirs, "blobs": nil, "full": false, "pack": to.UnixSeconds() + 0.00001, "gc": gc}); d.Error != "" {
				t.Fatal(d.Error)
			}
			db.open()
			db.pack(to, gc)
			db.close()
			want, err := os.ReadFile(theirs)
			db.must(err)
			if got := db.bytes(); string(got) != string(want) {
				t.Errorf("packed to %d bytes, Python to %d", len(got), len(want))
			}
		})
	}
}

// At any point of a pack a crash leaves the old database or the new one, and
// loses no commit.
func TestCrashInPack(t *testing.T) {
	for _, removeOld := range []bool{false, true} {
		s, w := newCrashDB(t, Options{BlobDir: "blobs", PackRemoveOld: removeOld})
		defer s.Close()
		late := &whenListed{crashFS: w.fs}
		s.blobs.fs = late
		serials := map[zeolite.OID]zeolite.TID{}
		put := func(i int) zeolite.TID {
			oid := zeolite.OID(i % 3)
			data := map[zeolite.OID]string{oid: strings.Repeat(fmt.Sprint(i), 400)}
			blobs := map[zeolite.OID]string{100 + oid: fmt.Sprint("blob ", i)}
			tid, err := w.commit(s, data, blobs, serials)
			if err != nil {
				t.Fatal(err)
			}
			serials[oid], serials[100+oid] = tid, tid
			return tid
		}
		for i := range 9 {
			put(i)
		}
		start := w.fs.count()
		no := false
		late.do = func() { put(9) }
		if err := s.Pack(ctx, s.LastTID(), zeolite.PackOptions{GC: &no}); err != nil {
			t.Fatal(err)
		}
		if late.do != nil {
			t.Fatal("nothing was committed while the pack was under way")
		}
		packed := w.fs.count()
		for i := range 4 {
			put(i)
		}
		// What the pack forgot need not be found any more.
		kept := map[zeolite.TID]*witnessed{}
		for _, tid := range tids(t, s) {
			kept[tid] = w.txns[tid]
		}
		for n := start; n <= w.fs.count(); n++ {
			for try := range 3 {
				files := w.fs.crash(n, rand.New(rand.NewPCG(uint64(n), uint64(try))))
				t.Run(fmt.Sprintf("%v.%d.%d", removeOld, n, try), func(t *testing.T) {
					all := w.txns
					if n >= packed || isPacked(files["Data.fs"]) {
						w.txns = kept
					}
					defer func() { w.txns = all }()
					w.check(t, n, files, true)
				})
			}
		}
	}
}

// whenListed is a file system that lets a test do something, once, when a pack has
// synced its file and writes down which blobs to remove: before it holds commits up.
type whenListed struct {
	*crashFS
	do func()
}

func (l *whenListed) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	if do := l.do; do != nil && strings.HasSuffix(name, removedList+uploadSuffix) {
		l.do = nil
		do()
	}
	return l.crashFS.OpenFile(name, flag, perm)
}

// isPacked says whether the first transaction of a file is.
func isPacked(b []byte) bool {
	return len(b) > magicLen+txnHdrLen && b[magicLen+statusOffset] == statusPacked
}

// An error anywhere leaves a storage that works.
func TestPackErrors(t *testing.T) {
	for nth := 0; ; nth++ {
		s, w := newCrashDB(t, Options{BlobDir: "blobs"})
		serials := map[zeolite.OID]zeolite.TID{}
		for i := range 6 {
			tid, err := w.commit(s, map[zeolite.OID]string{1: fmt.Sprint("text ", i)}, nil, serials)
			if err != nil {
				t.Fatal(err)
			}
			serials[1] = tid
		}
		count := 0
		w.fs.fail = func(op fsOp) error {
			if op.kind == "remove" {
				return nil
			}
			if count++; count-1 == nth {
				return errors.New("the disk is on fire")
			}
			return nil
		}
		no := false
		err := s.Pack(ctx, s.LastTID(), zeolite.PackOptions{GC: &no})
		w.fs.fail = nil
		readOnly := s.Info().ReadOnly
		if _, e := w.commit(s, map[zeolite.OID]string{1: "after"}, nil, serials); (e != nil) != readOnly {
			t.Errorf("error %d (%v): the commit after: %v", nth, err, e)
		}
		if rev, e := s.LoadBefore(ctx, 1, zeolite.MaxTID); e != nil || !readOnly && string(rev.Data) != "after" {
			t.Errorf("error %d (%v): load: %q, %v", nth, err, rev.Data, e)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if count <= nth {
			break
		}
	}
}

// TestTrap29_RedundantPackKeepsOld: a pack that finds nothing to do leaves the
// copy that the one before it has kept; it may be the only backup.
func TestTrap29_RedundantPackKeepsOld(t *testing.T) {
	db := newDB(t, Options{})
	var serial zeolite.TID
	for i := range 3 {
		serial = db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
			return tx.Store(ctx, 0, serial, storagetest.Record(fmt.Sprint(i)))
		})
	}
	before := db.bytes()
	db.pack(serial, false)
	for range 2 {
		if err := db.s.Pack(ctx, serial, zeolite.PackOptions{}); err != nil {
			t.Logf("packing again: %v", err)
		}
		if old, err := os.ReadFile(db.path + ".old"); err != nil || string(old) != string(before) {
			t.Errorf("the old file has %d bytes, %v; it had %d", len(old), err, len(before))
		}
	}
}

func TestPackKeepsOld(t *testing.T) {
	for _, removeOld := range []bool{false, true} {
		blobs := filepath.Join(t.TempDir(), "blobs")
		db := newDB(t, Options{BlobDir: blobs, PackRemoveOld: removeOld})
		var oid zeolite.OID = 7
		var serial zeolite.TID
		for i := range 3 {
			u, err := db.s.CreateBlob(ctx)
			db.must(err)
			_, err = fmt.Fprint(u, i)
			db.must(err)
			db.must(u.Complete())
			serial = db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
				return tx.StoreBlob(ctx, oid, serial, storagetest.BlobRecord(), u)
			})
		}
		before := db.bytes()
		db.pack(serial, false)
		old, err := os.ReadFile(db.path + ".old")
		if removeOld {
			if err == nil || exists(blobs+".old") {
				t.Error("old files were kept")
			}
			continue
		}
		if err != nil || string(old) != string(before) {
			t.Errorf("Data.fs.old: %v, %d bytes, want %d", err, len(old), len(before))
		}
		n := 0
		filepath.WalkDir(blobs+".old", func(name string, e os.DirEntry, err error) error {
			if strings.HasSuffix(name, blobSuffix) {
				n++
			}
			return err
		})
		if n != 3 {
			t.Errorf("%s.old has %d blobs, want 3", blobs, n)
		}
		if !exists(filepath.Join(blobs+".old", layoutMarker)) {
			t.Error("no layout marker in the old blob directory")
		}
		// A pack that does nothing leaves what was kept.
		db.pack(serial-1000, false)
		if !exists(db.path + ".old") {
			t.Error("a pack that did nothing removed Data.fs.old")
		}
	}
}

func TestPackCollectsGarbage(t *testing.T) {
	db := newDB(t, Options{})
	put := func(oid, serial zeolite.TID, data []byte) zeolite.TID {
		return db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.Store(ctx, zeolite.OID(oid), serial, data) })
	}
	root := put(0, 0, storagetest.Record("root", 1))
	put(1, 0, storagetest.Record("one", 2))
	put(2, 0, storagetest.Record("two", 1))
	put(3, 0, storagetest.Record("garbage", 4))
	put(4, 0, storagetest.Record("garbage", 3))
	last := put(5, 0, storagetest.Record("found again later"))
	put(0, root, storagetest.Record("root", 1, 5))
	db.pack(last, true)
	for oid := range zeolite.OID(6) {
		_, err := db.s.LoadBefore(ctx, oid, zeolite.MaxTID)
		if gone := isNotFound(err); gone != (oid == 3 || oid == 4) {
			t.Errorf("oid %v: %v", oid, err)
		}
	}

	// Without a root everything would be garbage.
	empty := newDB(t, Options{})
	empty.store(3, 0, string(storagetest.Record("x")))
	yes := true
	if err := empty.s.Pack(ctx, empty.s.LastTID(), zeolite.PackOptions{GC: &yes}); !errors.As(err, new(*zeolite.NotFoundError)) {
		t.Errorf("pack without a root: %v", err)
	}
	empty.wantLoad(3, zeolite.MaxTID, string(storagetest.Record("x")))
}

// A pack with garbage collection refuses if a reference leads nowhere, before
// it changes anything, in the cases in which Python's does.
func TestPackRefusesDanglingReferences(t *testing.T) {
	type object struct {
		oid  zeolite.OID
		refs []zeolite.OID
	}
	for _, c := range []struct {
		name          string
		packed, later []object
		undo          bool // then the last of packed is undone
		refused       bool
	}{
		{name: "from the root", packed: []object{{0, []zeolite.OID{99}}}, refused: true},
		{name: "from what is reached", packed: []object{{1, []zeolite.OID{99}}, {0, []zeolite.OID{1}}}, refused: true},
		{name: "to what comes later", packed: []object{{0, []zeolite.OID{2}}}, later: []object{{2, nil}}, refused: true},
		{name: "that was overwritten", packed: []object{{0, []zeolite.OID{99}}, {0, nil}}},
		{name: "from garbage", packed: []object{{0, nil}, {1, []zeolite.OID{99}}}},
		{name: "from what is garbage then", packed: []object{{0, nil}, {1, []zeolite.OID{99}}}, later: []object{{0, []zeolite.OID{1}}}},
		{name: "from a later revision", packed: []object{{0, nil}}, later: []object{{0, []zeolite.OID{99}}}},
		{name: "from a revision that is given back", packed: []object{{0, []zeolite.OID{99}}, {0, nil}}, undo: true, refused: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := newDB(t, Options{})
			serials := make(map[zeolite.OID]zeolite.TID)
			put := func(objects []object) (last zeolite.TID) {
				for _, o := range objects {
					last = db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
						return tx.Store(ctx, o.oid, serials[o.oid], storagetest.Record("x", o.refs...))
					})
					serials[o.oid] = last
				}
				return last
			}
			put([]object{{0, nil}, {0, nil}}) // so that there is something to pack
			at := put(c.packed)
			put(c.later)
			if c.undo {
				db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { _, err := tx.Undo(ctx, at); return err })
			}
			before := db.bytes()
			yes, no := true, false
			err := db.s.Pack(ctx, at, zeolite.PackOptions{GC: &yes})
			if !c.refused {
				db.must(err)
				return
			}
			var gone *zeolite.NotFoundError
			if !errors.As(err, &gone) || gone.OID != 99 && gone.OID != 2 {
				t.Fatalf("pack: %v, want an error about what is missing", err)
			}
			if !bytes.Equal(db.bytes(), before) || exists(db.path+".pack") || exists(db.path+".old") {
				t.Error("a pack that was refused left traces")
			}
			if !db.log.contains("dangles") {
				t.Error("the reference is not in the log")
			}
			db.must(db.s.Pack(ctx, at, zeolite.PackOptions{GC: &no}))
		})
	}

	db := newDB(t, Options{PackDangling: true})
	first := db.store(0, 0, string(storagetest.Record("root")))
	db.store(0, first, string(storagetest.Record("root", 99)))
	size := len(db.bytes())
	db.pack(db.s.LastTID(), true)
	if !db.log.contains("dangles") {
		t.Error("a reference that is allowed to dangle is not in the log")
	}
	if len(db.bytes()) >= size {
		t.Error("nothing was packed")
	}
}

// A transaction that is voted when a pack begins finishes after it.
func TestPackWithVotedTxn(t *testing.T) {
	db := newDB(t, Options{SpillBytes: 100})
	first := db.store(1, 0, "first")
	second := db.store(1, first, "second")
	tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
	db.must(err)
	db.must(tx.Store(ctx, 1, second, []byte("third")))
	db.must(tx.Store(ctx, 2, 0, make([]byte, 1000)))
	db.must(tx.Vote(ctx))
	db.pack(second, false)
	third, err := tx.Finish(ctx, nil)
	db.must(err)
	db.wantLoad(1, zeolite.MaxTID, "third")
	db.wantLoad(1, third, "second")
	db.reopen()
	db.wantLoad(1, zeolite.MaxTID, "third")
	db.wantLoad(1, third, "second")
}

// A pack that saved nothing writes no file when it is asked for again, until
// something has changed.
func TestPackInVain(t *testing.T) {
	s, w := newCrashDB(t, Options{})
	defer s.Close()
	files := func() (n int) {
		for _, op := range w.fs.changes() {
			if op.kind == "create" && op.name == "Data.fs.pack" {
				n++
			}
		}
		return n
	}
	pack := func(gc bool) int {
		t.Helper()
		before := files()
		if err := s.Pack(ctx, s.LastTID(), zeolite.PackOptions{GC: &gc}); err != nil {
			t.Fatal(err)
		}
		return files() - before
	}
	commit := func(serial zeolite.TID) zeolite.TID {
		t.Helper()
		tid, err := w.commit(s, map[zeolite.OID]string{0: string(storagetest.Record("root"))}, nil, map[zeolite.OID]zeolite.TID{0: serial})
		if err != nil {
			t.Fatal(err)
		}
		return tid
	}
	first := commit(0)
	for i, want := range []int{1, 0, 0} {
		if got := pack(true); got != want {
			t.Errorf("pack %d wrote %d files, want %d", i, got, want)
		}
	}
	if got := pack(false); got != 1 {
		t.Errorf("without garbage collection: %d files", got)
	}
	commit(first)
	if got := pack(false); got != 1 || s.Info().Objects != 1 {
		t.Errorf("after a commit: %d files, %d objects", got, s.Info().Objects)
	}
	if err := s.usable(ctx); err != nil || len(tids(t, s)) != 1 {
		t.Errorf("%v, %d transactions are left", err, len(tids(t, s)))
	}
}
