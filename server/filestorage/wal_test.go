package filestorage

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
)

// neverSyncs are options for a storage whose Data.fs is not synced on its own.
var neverSyncs = Options{SyncInterval: 24 * time.Hour}

// image returns the files of a database as they are now, as if its process had
// been killed.
func (db *testDB) image() map[string][]byte {
	db.Helper()
	files := map[string][]byte{}
	for _, name := range []string{"Data.fs", "Data.fs.wal", "Data.fs.index"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(db.path), name))
		if err == nil {
			files[name] = b
		} else if !errors.Is(err, fs.ErrNotExist) {
			db.Fatal(err)
		}
	}
	return files
}

// openImage is a database of its own with these files.
func openImage(t testing.TB, files map[string][]byte, opts Options) *testDB {
	t.Helper()
	db := &testDB{TB: t, path: filepath.Join(t.TempDir(), "Data.fs"), log: &logBuffer{}}
	writeImage(t, filepath.Dir(db.path), files)
	opts.Logger = textLogger(db.log)
	db.opts = opts
	db.open()
	t.Cleanup(func() { db.s.Close() })
	return db
}

func (db *testDB) hasLog() bool { return exists(db.path + ".wal") }

// someCommits commits objects of different sizes.
func (db *testDB) someCommits(from, to int) {
	db.Helper()
	for i := from; i < to; i++ {
		db.store(zeolite.OID(1000+i), 0, strings.Repeat(fmt.Sprintf("%d,", i), 1+i*i*7%900))
	}
}

// The log is there from the first commit until the storage is closed.
func TestLogComesAndGoes(t *testing.T) {
	db := newDB(t, Options{})
	if db.hasLog() {
		t.Error("there is a log before anything was committed")
	}
	db.someCommits(0, 3)
	if !db.hasLog() {
		t.Error("there is no log")
	}
	db.reopen()
	if db.hasLog() {
		t.Error("closing has left the log")
	}
	if all := tids(t, db.s); len(all) != 3 {
		t.Errorf("%d transactions, want 3", len(all))
	}

	db = newDB(t, Options{WithoutLog: true})
	db.someCommits(0, 3)
	if db.hasLog() {
		t.Error("there is a log in spite of WithoutLog")
	}
}

// If the process was killed, Data.fs is whole, and the log is just removed.
func TestLogOfKilled(t *testing.T) {
	db := newDB(t, neverSyncs)
	db.someCommits(0, 20)
	for _, opts := range []Options{{}, {WithoutLog: true}} {
		again := openImage(t, db.image(), opts)
		if again.hasLog() || again.log.contains("lacked") {
			t.Error("the log is still there, or was needed")
		}
		if got, want := tids(t, again.s), tids(t, db.s); !slices.Equal(got, want) {
			t.Errorf("got transactions %v, want %v", got, want)
		}
	}
}

// After a power failure any sector that was not synced may be missing from
// Data.fs; the log has it.
func TestLogFillsHoles(t *testing.T) {
	db := newDB(t, neverSyncs)
	db.someCommits(0, 5)
	db.must(db.s.data.now())
	synced := int(db.s.gen.Load().end.Load())
	db.someCommits(5, 30)
	end := int(db.s.gen.Load().end.Load())
	files, want := db.image(), tids(t, db.s)
	whole := files["Data.fs"]
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		b := bytes.Clone(whole)
		share := rnd.Float64()
		for pos := synced; pos < len(b); {
			next := min(pos-pos%512+512, len(b))
			if rnd.Float64() < share {
				clear(b[pos:next])
			}
			pos = next
		}
		if rnd.IntN(2) == 0 {
			b = b[:synced+rnd.IntN(len(b)-synced+1)]
		}
		image := map[string][]byte{"Data.fs": b, "Data.fs.wal": files["Data.fs.wal"]}
		again := openImage(t, image, Options{})
		if got := tids(t, again.s); !slices.Equal(got, want) {
			t.Fatalf("seed %d: got transactions %v, want %v", seed, got, want)
		}
		lacked := !bytes.Equal(b[:min(len(b), end)], whole[:end])
		if lacked != again.log.contains("lacked") {
			t.Errorf("seed %d: something was missing: %v; log:\n%s", seed, lacked, again.log.b.String())
		}
		again.close()
		if !bytes.Equal(again.bytes(), whole[:end]) {
			t.Fatalf("seed %d: Data.fs is different", seed)
		}
	}
}

// A log is not written into a file that is not the one it belongs to.
func TestLogOfOtherFile(t *testing.T) {
	db := newDB(t, neverSyncs)
	db.store(1, 0, "first")
	older := db.image()["Data.fs"]
	db.store(2, 0, "second")
	db.must(db.s.data.now())
	before := db.image()["Data.fs"]
	db.someCommits(0, 4)
	files, all := db.image(), tids(t, db.s)

	// continued is what another program makes of b.
	continued := func(t *testing.T, b []byte, change func(*testDB)) []byte {
		other := openImage(t, map[string][]byte{"Data.fs": b}, Options{WithoutLog: true})
		change(other)
		other.close()
		return other.bytes()
	}
	write := func(db *testDB) { db.store(77, 0, "of somebody else") }
	packed := func(db *testDB) {
		write(db)
		if err := db.s.Pack(ctx, db.s.LastTID(), zeolite.PackOptions{GC: new(false)}); err != nil {
			db.Fatal(err)
		}
	}
	for _, test := range []struct {
		name string
		data []byte
		kept bool
		have int
	}{
		{"continued", continued(t, files["Data.fs"], write), false, len(all) + 1},
		{"cut", before, false, len(all)},
		{"cut and continued", continued(t, before, write), true, 3},
		{"an older copy", older, true, 1},
		{"an empty one", []byte(magic), true, 0},
		{"none", nil, true, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			image := map[string][]byte{"Data.fs": test.data, "Data.fs.wal": files["Data.fs.wal"]}
			if test.data == nil {
				delete(image, "Data.fs")
			}
			if test.name == "an older copy" {
				dir := t.TempDir()
				writeImage(t, dir, image)
				wantFinding(t, check(t, filepath.Join(dir, "Data.fs"), ""), Warning, "older copy")
			}
			again := openImage(t, image, Options{})
			if got := tids(t, again.s); len(got) != test.have {
				t.Errorf("%d transactions, want %d", len(got), test.have)
			}
			if again.hasLog() {
				t.Error("the log is still there")
			}
			if kept := exists(again.path + ".wal0"); kept != test.kept || again.log.contains("does not fit") != kept {
				t.Errorf("kept: %v, want %v; log:\n%s", kept, test.kept, again.log.b.String())
			}
			again.store(5, 0, "more")
			again.reopen()
			again.wantLoad(5, zeolite.MaxTID, "more")
		})
	}
	t.Run("packed", func(t *testing.T) {
		again := openImage(t, map[string][]byte{"Data.fs": continued(t, files["Data.fs"], packed), "Data.fs.wal": files["Data.fs.wal"]}, Options{})
		again.wantLoad(77, zeolite.MaxTID, "of somebody else")
		again.wantLoad(1003, zeolite.MaxTID, strings.Repeat("3,", 64))
	})
}

// Packing empties the log: nothing of it may get into the new file.
func TestLogAndPack(t *testing.T) {
	db := newDB(t, neverSyncs)
	serial := db.store(1, 0, "first")
	for i := range 10 {
		serial = db.store(1, serial, fmt.Sprint("revision ", i))
	}
	db.must(db.s.Pack(ctx, db.s.LastTID(), zeolite.PackOptions{GC: new(false)}))
	check := func() {
		t.Helper()
		want := tids(t, db.s)
		image := db.image()
		again := openImage(t, image, Options{})
		if got := tids(t, again.s); !slices.Equal(got, want) {
			t.Errorf("got transactions %v, want %v", got, want)
		}
		if again.hasLog() || exists(again.path+".wal0") {
			t.Error("the log was kept")
		}
		again.close()
	}
	check()
	db.store(2, 0, "after")
	check()
	db.someCommits(0, 5)
	check()
}

// So does a pack that only marks transactions in place, also for a power failure at
// any time after it.
func TestLogAndPackInPlace(t *testing.T) {
	s, w := newCrashDB(t, neverSyncs)
	defer s.Close()
	for oid := range zeolite.OID(3) {
		if _, err := w.commit(s, map[zeolite.OID]string{oid: strings.Repeat("x", 600)}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if oid > 0 {
			continue
		}
		if err := s.Pack(ctx, s.LastTID(), zeolite.PackOptions{GC: new(false)}); err != nil {
			t.Fatal(err)
		}
		var status [1]byte
		if _, err := s.gen.Load().file.ReadAt(status[:], magicLen+statusOffset); err != nil || status[0] != statusPacked {
			t.Fatalf("status %q, %v: this pack was to be in place", status[:], err)
		}
	}
	w.crashes(t, 1, 4, false)
}

// The log is used again and again, and grows to its limit only.
func TestLogGoesRound(t *testing.T) {
	for _, interval := range []time.Duration{time.Nanosecond, neverSyncs.SyncInterval} {
		t.Run(interval.String(), func(t *testing.T) {
			s, w := newCrashDB(t, Options{SyncInterval: interval})
			defer s.Close()
			s.wal.segmentSize, s.wal.sizeMax = 3*walBlock, 10*walBlock
			rnd := rand.New(rand.NewPCG(3, 4))
			for i := range 60 {
				data := map[zeolite.OID]string{zeolite.OID(i): strings.Repeat("x", 1+rnd.IntN(2*walBlock-500))}
				if _, err := w.commit(s, data, nil, nil); err != nil {
					t.Fatal(err)
				}
			}
			if s.wal.size > 2*s.wal.sizeMax {
				t.Errorf("the log has %d bytes", s.wal.size)
			}
			w.crashes(t, 1, 1, false)
		})
	}
}

// A log that cannot be made is no reason not to commit.
func TestLogCannotBeMade(t *testing.T) {
	s, w := newCrashDB(t, Options{})
	defer s.Close()
	w.fs.fail = func(op fsOp) error {
		if op.kind == "create" && strings.HasSuffix(op.name, ".wal") {
			return errors.New("no room")
		}
		return nil
	}
	serials := map[zeolite.OID]zeolite.TID{}
	for i := range 5 {
		tid, err := w.commit(s, map[zeolite.OID]string{1: fmt.Sprint(i)}, nil, serials)
		if err != nil {
			t.Fatal(err)
		}
		serials[1] = tid
	}
	w.crashes(t, 1, 2, false)
}

// A failed sync of Data.fs behind the commits ends writing, and loses nothing.
func TestLogSyncFails(t *testing.T) {
	s, w := newCrashDB(t, neverSyncs)
	if _, err := w.commit(s, map[zeolite.OID]string{1: "first"}, nil, nil); err != nil {
		t.Fatal(err)
	}
	w.fs.fail = func(op fsOp) error {
		if op.kind == "sync" {
			return errors.New("the disk is on fire")
		}
		return nil
	}
	if err := s.data.now(); err == nil {
		t.Error("no error")
	}
	w.fs.fail = nil
	if _, err := w.commit(s, map[zeolite.OID]string{2: "second"}, nil, nil); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("got error %v, want one that says read-only", err)
	}
	s.Close()
	w.crashes(t, 1, 4, false)
}

// Check and read-only opening say that Data.fs lacks something.
func TestLogNotReplayed(t *testing.T) {
	db := newDB(t, neverSyncs)
	db.someCommits(0, 2)
	db.must(db.s.data.now())
	before := len(db.bytes())
	db.someCommits(2, 5)
	image := db.image()
	image["Data.fs"] = image["Data.fs"][:before]

	dir := t.TempDir()
	path := filepath.Join(dir, "Data.fs")
	writeImage(t, dir, image)
	// aboutLog checks a file, and returns what concerns the log.
	aboutLog := func(path string) (findings []Finding) {
		report, err := Check(ctx, path, CheckOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range report.Findings {
			if strings.HasSuffix(f.File, ".wal") {
				findings = append(findings, f)
			}
		}
		return findings
	}
	if found := aboutLog(path); len(found) != 1 || found[0].Severity != Damage || !strings.Contains(found[0].What, "lacks") {
		t.Errorf("got %v", found)
	}
	log := &logBuffer{}
	s, err := Open(path, Options{ReadOnly: true, Logger: textLogger(log)})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if !log.contains("open it for writing") {
		t.Error("nothing is in the log")
	}
	if s, err = Open(path, Options{}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if found := aboutLog(path); len(found) > 0 {
		t.Errorf("after it was opened: %v", found)
	}
	// While a server is at work, there is nothing to say.
	if found := aboutLog(db.path); len(found) > 0 {
		t.Errorf("of a running server: %v", found)
	}
}

// Python may go on with a file whose server was killed, and we after it.
func TestLogPythonInBetween(t *testing.T) {
	script := `
import sys, ZODB, transaction
from ZODB.FileStorage import FileStorage
db = ZODB.DB(FileStorage(sys.argv[1]))
with db.transaction() as c:
    c.root()['x'] = sys.argv[2]
if sys.argv[2] == 'pack':
    db.pack()
db.close()
`
	interpreter := python(t)
	for _, what := range []string{"commit", "pack"} {
		t.Run(what, func(t *testing.T) {
			db := newDB(t, neverSyncs)
			db.close()
			run := func(path string) {
				if out, err := exec.Command(interpreter, "-c", script, path, what).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			run(db.path)
			db.open()
			db.someCommits(0, 4)
			killed := openImage(t, db.image(), Options{ReadOnly: true})
			killed.close()
			run(killed.path)
			killed.opts.ReadOnly = false
			killed.open()
			if killed.hasLog() {
				t.Error("the log is still there")
			}
			rev, err := killed.s.LoadBefore(ctx, 0, zeolite.MaxTID)
			if err != nil || !bytes.Contains(rev.Data, []byte(what)) {
				t.Errorf("got %q, %v", rev.Data, err)
			}
			if what == "commit" {
				killed.wantLoad(1003, zeolite.MaxTID, strings.Repeat("3,", 64))
			}
			killed.close()
			run(killed.path)
		})
	}
}

// FuzzWAL reads anything as a log: what it finds must lie in it.
func FuzzWAL(f *testing.F) {
	db := newBlobDB(f)
	db.someCommits(0, 3)
	db.storeBlob(1, 0, "contents")
	db.storeBlob(2, 0, "")
	b, err := os.ReadFile(db.path + ".wal")
	if err != nil {
		f.Fatal(err)
	}
	data := db.bytes()
	f.Add(b[:7*walBlock])
	f.Add(b[:walBlock])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		chain := parseWAL(b)
		for i, r := range chain {
			if r.length != int64(len(r.transactions)) || i > 0 && (r.pos != chain[i-1].next() || r.seq != chain[i-1].seq+1) {
				t.Errorf("entry %d: %+v", i, r.walEntry)
			}
		}
		for _, b := range chain.blobs() {
			if cap(b.data) != len(b.data) {
				t.Errorf("the blob of %v reaches into what follows", b.oid)
			}
		}
		chain.tids()
		if len(chain) > 0 {
			chain.missing(bytes.NewReader(data))
		}
	})
}
