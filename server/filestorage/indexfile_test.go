package filestorage

import (
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeolite-go/zeolite"
)

func TestGoldenIndexFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "index")
	want := unhex(t, "80034d16012e 8003 4306 000000000000 4308 0001 0000000000dc 86 2e 80034e2e")
	x := newIndex()
	x.set(1, 0xdc)
	if _, err := saveIndexFile(OSFileSystem{}, name, 0x116, adds(x.all())); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(name)
	if err != nil || string(got) != string(want) {
		t.Errorf("got %x, %v\nwant %x", got, err, want)
	}
}

func TestIndexFileRoundTrip(t *testing.T) {
	name := filepath.Join(t.TempDir(), "index")
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, pos := range []int64{100, 255, 256, 65535, 65536, 1<<31 - 1, 1 << 31, 1 << 39, 1<<47 - 1, 1 << 47} {
		x := newIndex()
		for range 3000 {
			x.set(zeolite.OID(rnd.Uint64N(1<<20)), rnd.Int64N(1<<48))
		}
		x.set(1<<63-2, 1<<48-1)
		if _, err := saveIndexFile(OSFileSystem{}, name, pos, adds(x.all())); err != nil {
			t.Fatal(err)
		}
		y, got, err := loadIndexFile(name)
		if err != nil || got != pos {
			t.Fatalf("position %d: got %d, %v", pos, got, err)
		}
		if !maps.Equal(maps.Collect(x.all()), maps.Collect(y.all())) {
			t.Fatal("the index read is not the one written")
		}
	}
}

// The forms that older versions of ZODB wrote.
func TestOldIndexFiles(t *testing.T) {
	for name, b := range map[string]string{
		// {'pos': 278, 'index': {b'\0\0\0\0\0\0\0\1': 220}}, protocol 1 of Python 2
		"dict": "7d7100 28 5503706f73 4d1601 5505696e646578 7d 5508 0000000000000001 4bdc 73 752e",
		// an fsIndex with state_version 1
		"fsIndex": "8002 7d 28 5503706f73 4d1601 5505696e646578 635a4f44422e6673496e6465780a6673496e6465780a 29 81 7d 28" +
			"550d73746174655f76657273696f6e 4b01 55055f64617461 5d 5506 000000000000 5508 0001 0000000000dc 86 61 75 62 752e",
	} {
		file := filepath.Join(t.TempDir(), "index")
		if err := os.WriteFile(file, unhex(t, b), 0o666); err != nil {
			t.Fatal(err)
		}
		x, pos, err := loadIndexFile(file)
		if err != nil || pos != 278 {
			t.Errorf("%s: %d, %v", name, pos, err)
			continue
		}
		if at, ok := x.get(1); !ok || at != 220 || x.len() != 1 {
			t.Errorf("%s: got %d, %v", name, at, ok)
		}
	}
}

// Every proper prefix is an error, and no damage is worse than one.
func TestDamagedIndexFile(t *testing.T) {
	db := newDB(t, Options{})
	serial := zeolite.ZeroTID
	for i := range 5 {
		serial = db.store(1, serial, "some text")
		db.store(zeolite.OID(i)<<20, 0, "x")
	}
	db.close()
	good, err := os.ReadFile(db.path + ".index")
	db.must(err)
	check := func(b []byte, what string, used bool) {
		t.Helper()
		db.must(os.WriteFile(db.path+".index", b, 0o666))
		db.opts.ReadOnly = true
		db.open()
		db.wantLoad(1, zeolite.MaxTID, "some text")
		db.wantLoad(4<<20, zeolite.MaxTID, "x")
		if n := db.s.Info().Objects; !used && n != 6 {
			t.Errorf("%s: %d objects, want 6", what, n)
		}
		db.close()
	}
	for n := range good {
		check(good[:n], "prefix", false)
		if !db.log.contains("of no use") {
			t.Fatalf("a prefix of %d bytes was used", n)
		}
	}
	check(good, "whole", true)
	// An index that knows too little of what came before is not noticed by
	// anybody; but one that is for another file is.
	other := newDB(t, Options{})
	for range 3 {
		other.store(9, other.s.LastTID(), "another file, and longer records")
	}
	other.close()
	b, err := os.ReadFile(other.path + ".index")
	db.must(err)
	check(b, "of another file", false)
}

// The index is saved while transactions go on, and is good after a crash.
func TestIndexSavedMeanwhile(t *testing.T) {
	db := newDB(t, Options{IndexSaveBytes: 2000})
	serial := zeolite.ZeroTID
	for i := range 200 {
		if i == 100 {
			db.reopen() // and now some of the index is in the file
		}
		serial = db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
			if err := tx.Store(ctx, 5, serial, make([]byte, 100)); err != nil {
				return err
			}
			return tx.Store(ctx, zeolite.OID(1000+i), 0, []byte("x"))
		})
	}
	db.s.background.Wait()
	index, err := os.ReadFile(db.path + ".index")
	db.must(err)
	data := db.bytes()
	crashed := filepath.Join(t.TempDir(), "Data.fs")
	writeImage(t, filepath.Dir(crashed), map[string][]byte{"Data.fs": data, "Data.fs.index": index})
	log := &logBuffer{}
	s, err := Open(crashed, Options{Logger: textLogger(log)})
	db.must(err)
	defer s.Close()
	if log.contains("index") || log.contains("torn") {
		t.Error("the saved index was not used, or the guard taken for damage: " + log.b.String())
	}
	if n := s.Info().Objects; n != 201 {
		t.Errorf("%d objects, want 201", n)
	}
	if rev, err := s.LoadBefore(ctx, 5, zeolite.MaxTID); err != nil || rev.TID != serial {
		t.Errorf("load: %v, %v", rev.TID, err)
	}
}

// adds writes objects, in the order of their oids.
func adds(entries iter.Seq2[zeolite.OID, int64]) func(*indexWriter) error {
	return func(w *indexWriter) error {
		for oid, pos := range entries {
			if err := w.add(oid, pos); err != nil {
				return err
			}
		}
		return nil
	}
}

// writes writes an index as it is.
func writes(x *index) func(*indexWriter) error {
	g := &generation{index: x}
	return func(w *indexWriter) error { return g.writeIndex(w, filePositionMax+1) }
}
