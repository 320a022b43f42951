package filestorage

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
)

// blobRecord is the record of a blob, as Python has it.
const blobRecord = "\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N."

// witness remembers what was committed and when it was acknowledged, counted
// in changes of the file system. It may be used by several goroutines.
type witness struct {
	fs *crashFS

	mu   sync.Mutex
	txns map[zeolite.TID]*witnessed

	images map[uint64][]zeolite.TID // what find has found in files, by their digest
}

type witnessed struct {
	acked int // number of changes when Finish had returned; 0 if it never did
	data  map[zeolite.OID]string
	blobs map[zeolite.OID]string
}

func (w *witness) commit(s *Storage, data, blobs map[zeolite.OID]string, serials map[zeolite.OID]zeolite.TID) (zeolite.TID, error) {
	tx, err := s.Begin(ctx, zeolite.TxnMeta{Description: []byte("crash")})
	if err != nil {
		return 0, err
	}
	defer tx.Abort()
	for oid, d := range data {
		if err := tx.Store(ctx, oid, serials[oid], []byte(d)); err != nil {
			return 0, err
		}
	}
	for oid, d := range blobs {
		u, err := s.CreateBlob(ctx)
		if err != nil {
			return 0, err
		}
		defer u.Discard()
		if _, err := io.WriteString(u, d); err != nil {
			return 0, err
		}
		if err := u.Complete(); err != nil {
			return 0, err
		}
		if err := tx.StoreBlob(ctx, oid, serials[oid], []byte(blobRecord), u); err != nil {
			return 0, err
		}
	}
	return w.finish(tx, &witnessed{data: data, blobs: blobs})
}

// finish votes and finishes a transaction, and remembers what it leaves.
func (w *witness) finish(tx zeolite.Txn, entry *witnessed) (zeolite.TID, error) {
	if err := tx.Vote(ctx); err != nil {
		return 0, err
	}
	tid, err := tx.Finish(ctx, func(tid zeolite.TID, _ []zeolite.OID, visible func()) {
		w.mu.Lock()
		w.txns[tid] = entry
		w.mu.Unlock()
		visible()
	})
	if err != nil {
		return 0, err
	}
	w.mu.Lock()
	entry.acked = w.fs.count()
	w.mu.Unlock()
	return tid, nil
}

// check compares what a crash behind the n-th change left with what was
// acknowledged. Files that were left before are not opened again: the same is in
// them, however much more there had to be by then.
func (w *witness) check(t *testing.T, n int, files map[string][]byte, blobs bool) {
	t.Helper()
	image := digest(files)
	found, seen := w.images[image]
	if !seen {
		found = w.find(t, files, blobs)
		w.images[image] = found
	}
	for _, tid := range slices.Sorted(maps.Keys(w.txns)) {
		if txn := w.txns[tid]; txn.acked != 0 && txn.acked <= n && !slices.Contains(found, tid) {
			t.Fatalf("%v was acknowledged and is lost; found are %v (Data.fs: %v)", tid, found, files["Data.fs"] != nil)
		}
	}
	for _, tid := range found {
		if w.txns[tid] == nil {
			t.Fatalf("%v is there but was never published", tid)
		}
	}
}

// digest tells files from others.
func digest(files map[string][]byte) uint64 {
	var h maphash.Hash
	h.SetSeed(digestSeed)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&h, "%q %d\n", name, len(files[name]))
		h.Write(files[name])
	}
	return h.Sum64()
}

var digestSeed = maphash.MakeSeed()

// find opens files and returns which transactions are there, each with all that
// was committed.
func (w *witness) find(t *testing.T, files map[string][]byte, blobs bool) []zeolite.TID {
	t.Helper()
	if files["Data.fs"] == nil {
		return nil
	}
	dir := imageDir(t)
	writeImage(t, dir, files)
	opts := Options{FileSystem: withoutSync{}} // no crash follows
	if blobs {
		opts.BlobDir = filepath.Join(dir, "blobs")
	}
	s, err := Open(filepath.Join(dir, "Data.fs"), opts)
	if err != nil {
		t.Fatalf("cannot open: %v", err)
	}
	defer s.Close()
	found := tids(t, s)
	for _, tid := range found {
		txn := w.txns[tid]
		if txn == nil {
			continue
		}
		for oid, want := range txn.data {
			if got, err := s.LoadSerial(ctx, oid, tid); err != nil || string(got) != want {
				t.Fatalf("%v at %v: got %.40q, %v, want %.40q", oid, tid, got, err, want)
			}
		}
		for oid, want := range txn.blobs {
			b, err := s.OpenBlob(ctx, oid, tid)
			if err != nil {
				t.Fatalf("blob of %v at %v: %v", oid, tid, err)
			}
			got := make([]byte, b.Size())
			if _, err := b.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			b.Close()
			if string(got) != want {
				t.Fatalf("blob of %v at %v: got %d bytes, want %d", oid, tid, len(got), len(want))
			}
		}
	}
	return found
}

func newWitness(cfs *crashFS) *witness {
	return &witness{fs: cfs, txns: map[zeolite.TID]*witnessed{}, images: map[uint64][]zeolite.TID{}}
}

// newCrashDB is a database on a crashFS.
func newCrashDB(t *testing.T, opts Options) (*Storage, *witness) {
	t.Helper()
	dir := t.TempDir()
	cfs := newCrashFS(dir)
	opts.FileSystem = cfs
	if opts.BlobDir != "" {
		opts.BlobDir = filepath.Join(dir, opts.BlobDir)
	}
	s, err := Open(filepath.Join(dir, "Data.fs"), opts)
	if err != nil {
		t.Fatal(err)
	}
	return s, newWitness(cfs)
}

// crashes checks a few of the things that may be left, for each point.
func (w *witness) crashes(t *testing.T, step, tries int, blobs bool) {
	t.Helper()
	for n := 0; n <= w.fs.count(); n += step {
		for try := range tries {
			rnd := rand.New(rand.NewPCG(uint64(n), uint64(try)))
			files := w.fs.crash(n, rnd)
			t.Run(fmt.Sprintf("%d.%d", n, try), func(t *testing.T) {
				w.check(t, n, files, blobs)
				if t.Failed() {
					for i, op := range w.fs.changes()[max(0, n-12):n] {
						t.Logf("change %d: %v", max(0, n-12)+i, op)
					}
				}
			})
		}
	}
}

func TestCrash(t *testing.T) {
	t.Run("with log", func(t *testing.T) { testCrash(t, Options{}, 3) })
	t.Run("synced often", func(t *testing.T) { testCrash(t, Options{SyncInterval: time.Nanosecond}, 1) })
	t.Run("without log", func(t *testing.T) { testCrash(t, Options{WithoutLog: true}, 1) })
}

func testCrash(t *testing.T, opts Options, tries int) {
	opts.BlobDir, opts.SpillBytes, opts.IndexSaveBytes = "blobs", 4000, 500
	s, w := newCrashDB(t, opts)
	defer s.Close()
	serials := map[zeolite.OID]zeolite.TID{}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 25 {
		data, blobs := map[zeolite.OID]string{}, map[zeolite.OID]string{}
		for range 1 + rnd.IntN(4) {
			oid := zeolite.OID(rnd.IntN(20))
			data[oid] = strings.Repeat(fmt.Sprintf("%d of %d;", oid, i), 1+rnd.IntN(200))
		}
		if i%4 == 0 {
			blobs[zeolite.OID(100+i%3)] = strings.Repeat("b", 1+rnd.IntN(2000))
		}
		tid, err := w.commit(s, data, blobs, serials)
		if err != nil {
			t.Fatal(err)
		}
		for oid := range data {
			serials[oid] = tid
		}
		for oid := range blobs {
			serials[oid] = tid
		}
		// Saves run beside commits, but not so late that there is only one.
		for i%8 == 7 && s.indexSave.running.Load() {
			runtime.Gosched()
		}
	}
	if n := w.fs.saves(); n < 2 {
		t.Errorf("the index was saved %d times", n)
	}
	w.crashes(t, 1, tries, true)
}

// Many commit at once, so that there are groups.
func TestCrashGroups(t *testing.T) {
	s, w := newCrashDB(t, Options{})
	defer s.Close()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			serial := zeolite.TID(0)
			oid := zeolite.OID(i)
			for j := range 12 {
				data := map[zeolite.OID]string{oid: strings.Repeat(fmt.Sprintf("%d.%d ", i, j), 1+50*(j%5))}
				tid, err := w.commit(s, data, nil, map[zeolite.OID]zeolite.TID{oid: serial})
				if err != nil {
					t.Error(err)
					return
				}
				serial = tid
			}
		})
	}
	wg.Wait()
	w.crashes(t, 1, 3, false)
}

// A write that fails spoils its own transaction only.
func TestWriteErrors(t *testing.T) {
	for _, kind := range []string{"write", "sync", "truncate", "rename", "allocate"} {
		t.Run(kind, func(t *testing.T) {
			for nth := range 8 {
				s, w := newCrashDB(t, Options{BlobDir: "blobs"})
				first, err := w.commit(s, map[zeolite.OID]string{1: "first"}, map[zeolite.OID]string{2: "blob"}, nil)
				if err != nil {
					t.Fatal(err)
				}
				count := 0
				w.fs.fail = func(op fsOp) error {
					if op.kind != kind {
						return nil
					}
					if count++; count-1 == nth {
						return errors.New("the disk is on fire")
					}
					return nil
				}
				serials := map[zeolite.OID]zeolite.TID{1: first, 2: first}
				second, err := w.commit(s, map[zeolite.OID]string{1: "second"}, map[zeolite.OID]string{2: "blob two"}, serials)
				w.fs.fail = nil
				if s.Info().ReadOnly {
					t.Fatalf("%d. %s: storage is read-only; error was %v", nth, kind, err)
				}
				if err == nil {
					serials[1], serials[2] = second, second
				}
				if _, err = w.commit(s, map[zeolite.OID]string{1: "third"}, map[zeolite.OID]string{2: "blob three"}, serials); err != nil {
					t.Fatalf("%d. %s: the transaction after: %v", nth, kind, err)
				}
				n := w.fs.count()
				w.check(t, n, w.fs.crash(n, rand.New(rand.NewPCG(1, 1))), true)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// failing fails the next change of a kind to the file name.
func (w *witness) failing(kind, name string) func(fsOp) error {
	failed := false
	return func(op fsOp) error {
		if failed || op.kind != kind || op.inode != w.fs.inodes[name] {
			return nil
		}
		failed = true
		return errors.New("the disk is on fire")
	}
}

// After a sync that failed nobody believes the next one, which says that all is
// well: the log stays as it is.
func TestFailedSyncIsNotRepeated(t *testing.T) {
	s, w := newCrashDB(t, neverSyncs)
	for oid := range zeolite.OID(3) {
		if _, err := w.commit(s, map[zeolite.OID]string{oid: strings.Repeat("x", 600)}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	w.fs.fail = w.failing("sync", "Data.fs")
	for _, next := range []string{"first", "second"} {
		if err := s.data.now(); err == nil {
			t.Errorf("the %s sync has succeeded", next)
		}
	}
	if err := s.data.blobsNow(); err == nil {
		t.Error("no error from blobsNow")
	}
	g := s.gen.Load()
	if err := s.cutBack(g, g.end.Load()); err == nil {
		t.Error("no error from cutBack")
	}
	if s.data.reached(g.end.Load()) {
		t.Error("Data.fs is said to be durable")
	}
	s.Close()
	w.crashes(t, 1, 2, false)
}

// If even undoing a failed write fails, nothing is written any more.
func TestWriteErrorsForEver(t *testing.T) {
	s, w := newCrashDB(t, Options{})
	first, err := w.commit(s, map[zeolite.OID]string{1: "first"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.fs.fail = func(op fsOp) error {
		if op.kind == "sync" {
			return errors.New("the disk is on fire")
		}
		return nil
	}
	serials := map[zeolite.OID]zeolite.TID{1: first}
	if _, err := w.commit(s, map[zeolite.OID]string{1: "second"}, nil, serials); !errors.Is(err, zeolite.ErrInDoubt) {
		t.Errorf("got error %v, want ErrInDoubt", err)
	}
	w.fs.fail = nil
	if _, err := w.commit(s, map[zeolite.OID]string{1: "third"}, nil, serials); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("got error %v, want one that says read-only", err)
	}
	if rev, err := s.LoadBefore(ctx, 1, zeolite.MaxTID); err != nil || !bytes.Equal(rev.Data, []byte("first")) {
		t.Errorf("loading: %q, %v", rev.Data, err)
	}
	s.Close()
}
