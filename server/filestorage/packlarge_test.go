package filestorage

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// A database that does not fit into the buffers of a pack: records are marked by
// several goroutines in many batches, and written while others are copied.
func TestPackLarge(t *testing.T) {
	fsys := &failingPackFS{}
	db := newDB(t, Options{FileSystem: fsys})
	const objects = 3000
	rnd := rand.New(rand.NewPCG(5, 5))
	want := map[zeolite.OID][]byte{}
	serials := map[zeolite.OID]zeolite.TID{}
	put := func(from, to zeolite.OID, step int) (last zeolite.TID) {
		for oid := from; oid < to; {
			last = db.commit(zeolite.TxnMeta{Description: []byte("some words")}, func(tx zeolite.Txn) error {
				for range 1 + rnd.IntN(300) {
					if oid >= to {
						break
					}
					var refs []zeolite.OID
					for child := 2*oid + 1; child <= 2*oid+2 && child < objects*9/10; child++ {
						refs = append(refs, child)
					}
					size := rnd.IntN(4000)
					if rnd.IntN(200) == 0 {
						size = 2 * windowSize
					}
					if rnd.IntN(1000) == 0 {
						size = packBuffer + 10
					}
					want[oid] = storagetest.Record(strings.Repeat("x", size), refs...)
					if err := tx.Store(ctx, oid, serials[oid], want[oid]); err != nil {
						return err
					}
					serials[oid] = 0
					oid += zeolite.OID(step)
				}
				return nil
			})
			for oid, serial := range serials {
				if serial == 0 {
					serials[oid] = last
				}
			}
		}
		return last
	}
	put(0, objects, 1)
	at := put(0, objects, 3)
	put(0, objects, 7)
	check := func(collected bool) {
		t.Helper()
		for oid, data := range want {
			rev, err := db.s.LoadBefore(ctx, oid, zeolite.MaxTID)
			switch garbage := oid >= objects*9/10 && serials[oid] <= at; {
			case garbage && collected:
				if !isNotFound(err) {
					t.Fatalf("garbage %v: %v", oid, err)
				}
			case err != nil || !bytes.Equal(rev.Data, data) || rev.TID != serials[oid]:
				t.Fatalf("%v: %d bytes of %v, %v; want %d of %v", oid, len(rev.Data), rev.TID, err, len(data), serials[oid])
			}
		}
	}
	before := db.bytes()
	for _, nth := range []int32{1, 3, 5} {
		fsys.failAt.Store(nth)
		gc := true
		if err := db.s.Pack(ctx, at, zeolite.PackOptions{GC: &gc}); err == nil || !strings.Contains(err.Error(), errDisk.Error()) {
			t.Fatalf("write %d fails: pack: %v", nth, err)
		}
		if !bytes.Equal(db.bytes(), before) || exists(db.path+".pack") {
			t.Fatalf("write %d fails: the pack left traces", nth)
		}
		check(false)
	}
	fsys.failAt.Store(0)
	db.pack(at, true)
	if size := len(db.bytes()); size >= len(before) || size < 6*packBuffer {
		t.Errorf("%d bytes are left of %d", size, len(before))
	}
	check(true)
	db.close()
	db.must(os.Remove(db.path + ".index"))
	db.open()
	check(true)
	report, err := Check(ctx, db.path, CheckOptions{})
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("check: %v, %v", report.Findings, err)
	}
	at = db.s.LastTID()
	db.pack(at, true)
	check(true)
}

// failingPackFS fails at a write to the file that a pack makes, if told to.
type failingPackFS struct {
	OSFileSystem
	failAt atomic.Int32
}

func (f *failingPackFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	file, err := f.OSFileSystem.OpenFile(name, flag, perm)
	if err == nil && strings.HasSuffix(name, ".pack") {
		return &failingPackFile{File: file, fs: f}, nil
	}
	return file, err
}

type failingPackFile struct {
	File
	fs     *failingPackFS
	writes atomic.Int32
}

func (f *failingPackFile) WriteAt(b []byte, off int64) (int, error) {
	if n := f.fs.failAt.Load(); n > 0 && f.writes.Add(1) >= n {
		return 0, errDisk
	}
	return f.File.WriteAt(b, off)
}
