package filestorage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// fileBucket is a bucket as a file has it, of pairs of suffix and position.
func fileBucket(pairs ...int) []byte {
	var suffixes, positions []byte
	for i := 0; i < len(pairs); i += 2 {
		suffixes = binary.BigEndian.AppendUint16(suffixes, uint16(pairs[i]))
		positions = append(positions, binary.BigEndian.AppendUint64(nil, uint64(pairs[i+1]))[2:]...)
	}
	return append(suffixes, positions...)
}

// fileOf is an index file for a Data.fs of 1000 bytes.
func fileOf(buckets iter.Seq2[uint64, []byte]) []byte {
	b := append(appendPickleInt(appendPickleStart(nil), 1000), '.')
	for prefix, bucket := range buckets {
		b = appendPickleBytes(appendPickleStart(b), binary.BigEndian.AppendUint64(nil, prefix)[2:])
		b = append(appendPickleBytes(b, bucket), 0x86, '.')
	}
	return append(appendPickleStart(b), 'N', '.')
}

// An index file that was not made by sorting is refused, however its buckets are
// read.
func TestIndexFileOutOfOrder(t *testing.T) {
	two := fileBucket(7, 100, 8, 200)
	for what, c := range map[string]struct {
		good     bool
		prefixes []uint64
		buckets  [][]byte
	}{
		"in order":            {true, []uint64{0, 1}, [][]byte{two, two}},
		"the largest oids":    {true, []uint64{1<<48 - 1}, [][]byte{fileBucket(0xfffe, 1, 0xffff, 2)}},
		"an empty bucket":     {true, []uint64{0, 1}, [][]byte{nil, two}},
		"suffixes descend":    {false, []uint64{0}, [][]byte{fileBucket(8, 200, 7, 100)}},
		"a suffix twice":      {false, []uint64{0}, [][]byte{fileBucket(1, 2, 7, 100, 7, 200)}},
		"prefixes descend":    {false, []uint64{1, 0}, [][]byte{two, two}},
		"a prefix twice":      {false, []uint64{1, 1}, [][]byte{two, two}},
		"half an object":      {false, []uint64{0}, [][]byte{append(bytes.Clone(two), 1, 2, 3, 4)}},
		"too many suffixes":   {false, []uint64{0}, [][]byte{make([]byte, (1<<16+1)*fileEntryLen)}},
		"the last is smaller": {false, []uint64{0}, [][]byte{append(fileBucket(0, 1, 1, 1, 2, 1, 3, 1, 4, 1, 5, 1), fileBucket(4, 1)...)}},
	} {
		b := fileOf(func(yield func(uint64, []byte) bool) {
			for i, prefix := range c.prefixes {
				yield(prefix, c.buckets[i])
			}
		})
		for _, mapped := range []bool{true, false} {
			_, _, err := loadIndexBytes(b, mapped)
			if (err == nil) != c.good {
				t.Errorf("%s (mapped: %v): %v", what, mapped, err)
			}
		}
	}
}

// loadIndexBytes is loadIndexFile, with buckets that all stay as they are, or none.
func loadIndexBytes(b []byte, mapped bool) (*index, int64, error) {
	l := &indexLoader{file: bytes.NewReader(b), size: int64(len(b)), minMapped: math.MaxInt, x: newIndex()}
	if mapped {
		l.minMapped = 2 * fileEntryLen
	}
	pos, err := l.load()
	if err == nil && len(l.buckets) > 0 {
		l.x.mapped = newMappedIndex(b, l.buckets, nil)
	}
	return l.x, pos, err
}

// inOrder is what it says, wherever a number is too small.
func TestInOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 2))
	for range 2000 {
		n := rnd.IntN(40)
		numbers := make([]int, n)
		next := []int{0, 1, rnd.IntN(1 << 16), 1<<16 - n - rnd.IntN(5)}[rnd.IntN(4)]
		for i := range numbers {
			numbers[i] = next & 0xffff
			next++
			if rnd.IntN(20) == 0 {
				next += rnd.IntN(10) - 3
			}
		}
		want := true
		var b []byte
		for i, v := range numbers {
			want = want && (i == 0 || v > numbers[i-1])
			b = binary.BigEndian.AppendUint16(b, uint16(v))
		}
		if inOrder(b) != want {
			t.Fatalf("inOrder(%v) is %v", numbers, !want)
		}
	}
	full := bytes.Clone(allSuffixes())
	if !inOrder(full) {
		t.Error("a full bucket is not in order")
	}
	full[2*4711+1]++
	if inOrder(full) {
		t.Error("a full bucket is in order with one number twice")
	}
}

// Whatever is in a file: what we take it for does not depend on whether its buckets
// are mapped.
func FuzzIndexFile(f *testing.F) {
	x := newIndex()
	for oid := range zeolite.OID(40) {
		x.set(oid*oid*oid, int64(oid)*100)
	}
	name := filepath.Join(f.TempDir(), "index")
	if _, err := saveIndexFile(OSFileSystem{}, name, 4000, adds(x.all())); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(unhex(f, "8002 7d 28 5503706f73 4d1601 5505696e646578 635a4f44422e6673496e6465780a6673496e6465780a 29 81 7d 28"+
		"550d73746174655f76657273696f6e 4b01 55055f64617461 5d 5506 000000000000 5510 00010002 0000000000dc 0000000000df 86 61 75 62 752e"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, pos, err := loadIndexBytes(b, true)
		if err != nil {
			return
		}
		y, pos2, err := loadIndexBytes(b, false)
		if err != nil || pos != pos2 {
			t.Fatalf("mapped it is for %d bytes, else for %d, %v", pos, pos2, err)
		}
		model := indexModel(maps.Collect(y.all()))
		rnd := rand.New(rand.NewPCG(1, 1))
		model.compare(t, x, rnd, 1<<20)
		for i := range 20 {
			oid := zeolite.OID(rnd.Uint64N(1 << 20))
			if newest, ok := x.max(); ok && i%2 == 0 {
				oid = newest - oid
			}
			x.set(oid, 4711)
			model[oid] = 4711
		}
		model.compare(t, x, rnd, 1<<20)
	})
}

// Bits of a saved index that flip do not make us answer wrongly: either they are
// noticed at once, or when an object is loaded. But nothing in the file tells if
// an oid becomes another one that is not there (zeolite check does).
func TestIndexFileBitFlips(t *testing.T) {
	db := newDB(t, Options{})
	const objects = 40
	serial := zeolite.ZeroTID
	for i := range zeolite.OID(4) {
		serial = db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
			for oid := range zeolite.OID(objects) {
				if err := tx.Store(ctx, oid, serial, fmt.Appendf(nil, "%v of %d", oid, i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	db.close()
	good, err := os.ReadFile(db.path + ".index")
	db.must(err)
	db.opts.ReadOnly = true
	at := bytes.Index(good, []byte{0, 0, 0, 1, 0, 2})
	suffixes := func(b []byte) []byte { return b[at : at+fileSuffixLen*objects] }
	noticed, later := 0, 0
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1 << (i % 8)
		if !bytes.Equal(suffixes(b), suffixes(good)) && inOrder(suffixes(b)) {
			continue
		}
		db.must(os.WriteFile(db.path+".index", b, 0o666))
		db.open()
		if db.s.gen.Load().index.mapped == nil {
			noticed++
		}
		for oid := range zeolite.OID(objects) {
			rev, err := db.s.LoadBefore(ctx, oid, zeolite.MaxTID)
			var missing *zeolite.NotFoundError
			if errors.As(err, &missing) || err == nil && (rev.TID != serial || string(rev.Data) != fmt.Sprintf("%v of 3", oid)) {
				t.Errorf("byte %d of %d flipped: oid %v is %q of %v, %v", i, len(good), oid, rev.Data, rev.TID, err)
			}
			if err != nil {
				later++
			}
		}
		db.close()
	}
	t.Logf("%d of %d noticed when the file is opened, %d when an object is loaded", noticed, len(good), later)
}

// saved commits objects, and has the index read from its file.
func saved(db *testDB, objects int) (serial zeolite.TID) {
	serial = db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		for oid := range zeolite.OID(objects) {
			if err := tx.Store(ctx, oid, 0, []byte("x")); err != nil {
				return err
			}
		}
		return nil
	})
	db.reopen()
	return serial
}

// An index file that somebody cuts short while we use it: a clear error for
// what was there, and no crash.
func TestIndexFileCutShort(t *testing.T) {
	db := newDB(t, Options{})
	const objects = 5000
	serial := saved(db, objects)
	if err := os.Truncate(db.path+".index", 0); err != nil {
		t.Skip("a mapped file cannot be cut short here:", err)
	}
	x := db.s.gen.Load().index
	if pos, _ := x.get(1); pos != unreadable {
		t.Skip("files are not mapped here")
	}
	want := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "index, cannot be read") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := db.s.LoadBefore(ctx, 1, zeolite.MaxTID)
	want("load", err)
	_, ok := db.s.LoadNow(1, zeolite.MaxTID, make([]byte, 100))
	if ok {
		t.Error("LoadNow finds something")
	}
	_, err = db.s.LoadBefore(ctx, objects+1, zeolite.MaxTID) // who knows
	want("load of what is new", err)
	_, err = db.s.NextRecord(ctx, 0)
	want("iteration", err)
	tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
	db.must(err)
	want("store", tx.Store(ctx, 1, serial, []byte("y")))
	want("restore", tx.Restore(ctx, 1, []byte("y"), 0))
	want("delete", tx.Delete(ctx, 1, serial))
	tx.Abort()
	if newest, ok := x.max(); !ok || newest < objects-1 {
		t.Errorf("max is %v, %v", newest, ok)
	}

	// What is far from it is served.
	db.store(1<<20, 0, "far")
	db.wantLoad(1<<20, zeolite.MaxTID, "far")
	// An object that is set takes its neighbours along, which stay unknown.
	x.set(2, 4)
	if pos, ok := x.get(2); !ok || pos != 4 {
		t.Errorf("what was set is at %d, %v", pos, ok)
	}
	if pos, ok := x.get(3); !ok || pos != unreadable {
		t.Errorf("its neighbour is at %d, %v", pos, ok)
	}
	for oid, pos := range x.all() {
		if pos != unreadable && oid != 2 && oid != 1<<20 {
			t.Fatalf("oid %v is at %d", oid, pos)
		}
	}

	// The file is not replaced by one that knows less; the next start makes a
	// new one.
	db.close()
	if !db.log.contains("cannot save the index") {
		t.Error("the index was saved")
	}
	db.open()
	db.wantLoad(1, zeolite.MaxTID, "x")
	db.wantLoad(1<<20, zeolite.MaxTID, "far")
	if n := db.s.Info().Objects; n != objects+1 {
		t.Errorf("%d objects, want %d", n, objects+1)
	}
}

// If a part of the file cannot be read, what the rest says can be loaded, and
// committed to.
func TestIndexFilePartlyReadable(t *testing.T) {
	db := newDB(t, Options{})
	const objects = 5000
	serial := saved(db, objects)
	// The first objects' positions are behind the suffixes of all.
	if err := os.Truncate(db.path+".index", 1<<14); err != nil {
		t.Skip("a mapped file cannot be cut short here:", err)
	}
	if pos, _ := db.s.gen.Load().index.get(4000); pos != unreadable {
		t.Skip("files are not mapped here, or pages are large")
	}
	db.wantLoad(1, zeolite.MaxTID, "x")
	tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
	db.must(err)
	defer tx.Abort()
	db.must(tx.Store(ctx, 1, serial, []byte("y")))
	db.must(tx.Vote(ctx))
	if _, err := tx.Finish(ctx, func(_ zeolite.TID, _ []zeolite.OID, visible func()) {
		db.wantLoad(1, zeolite.MaxTID, "x")
		db.wantLoad(2, zeolite.MaxTID, "x")
		visible()
	}); err != nil {
		t.Error(err)
	}
	db.wantLoad(1, zeolite.MaxTID, "y")
	db.close()
	db.open()
	db.wantLoad(1, zeolite.MaxTID, "y")
	db.wantLoad(2, zeolite.MaxTID, "x")
}

// What a commit is going to change is copied from the file before others have to
// wait for it.
func TestFinishCopiesBucketsFirst(t *testing.T) {
	db := newDB(t, Options{})
	first := zeolite.TID(0)
	for oid := range zeolite.OID(10) {
		first = db.store(oid, 0, "first")
	}
	db.reopen()
	tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
	db.must(err)
	defer tx.Abort()
	db.must(tx.Store(ctx, 9, first, []byte("second")))
	db.must(tx.Vote(ctx))
	x := db.s.gen.Load().index
	if !x.inFile(9) {
		t.Fatal("the objects are not in the file")
	}
	_, err = tx.Finish(ctx, func(_ zeolite.TID, _ []zeolite.OID, visible func()) {
		if x.inFile(9) {
			t.Error("they are in the file when the transaction becomes visible")
		}
		visible()
	})
	db.must(err)
	db.wantLoad(9, zeolite.MaxTID, "second")
	db.wantLoad(8, zeolite.MaxTID, "first")
}
