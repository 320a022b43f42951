package filestorage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
)

// storeBlob commits a blob.
func (db *testDB) storeBlob(oid zeolite.OID, serial zeolite.TID, contents string) zeolite.TID {
	db.Helper()
	u, err := db.s.CreateBlob(ctx)
	db.must(err)
	defer u.Discard()
	_, err = io.WriteString(u, contents)
	db.must(err)
	db.must(u.Complete())
	return db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return tx.StoreBlob(ctx, oid, serial, []byte(blobRecord), u)
	})
}

func (db *testDB) wantBlob(oid zeolite.OID, tid zeolite.TID, want string) {
	db.Helper()
	b, err := db.s.OpenBlob(ctx, oid, tid)
	if err != nil {
		db.Errorf("the blob of %v at %v: %v", oid, tid, err)
		return
	}
	defer b.Close()
	got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err != nil || string(got) != want {
		db.Errorf("the blob of %v at %v: got %d bytes, %v, want %d", oid, tid, len(got), err, len(want))
	}
}

// newBlobDB makes a database with blobs, which are never synced but for the log,
// as Data.fs is not.
func newBlobDB(t testing.TB) *testDB {
	opts := neverSyncs
	opts.BlobDir = filepath.Join(t.TempDir(), "blobs")
	return newDB(t, opts)
}

// openWithout opens what a power failure left that took the blob directory with it,
// but for what change does there.
func (db *testDB) openWithout(t testing.TB, files map[string][]byte, change func(dir string)) *testDB {
	t.Helper()
	opts := Options{BlobDir: filepath.Join(t.TempDir(), "blobs")}
	d, err := openBlobDir(OSFileSystem{}, opts.BlobDir, "", false)
	db.must(err)
	if change != nil {
		change(d.path)
	}
	return openImage(t, files, opts)
}

// After a power failure the files of small blobs may be missing, empty or
// different; the log has them.
func TestLogHasBlobs(t *testing.T) {
	db := newBlobDB(t)
	contents := map[zeolite.OID]string{1: "", 2: "small", 3: strings.Repeat("x", logBlobMax)}
	tids := map[zeolite.OID]zeolite.TID{}
	for oid, c := range contents {
		tids[oid] = db.storeBlob(oid, 0, c)
	}
	files := db.image()
	for name, change := range map[string]func(dir string){
		"missing": nil,
		"empty or different": func(dir string) {
			for oid, b := range map[zeolite.OID]string{2: "", 3: strings.Repeat("y", logBlobMax)} {
				name := (&blobDir{path: dir}).file(oid, tids[oid])
				db.must(os.MkdirAll(filepath.Dir(name), 0o777))
				db.must(os.WriteFile(name, []byte(b), 0o444))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			again := db.openWithout(t, files, change)
			for oid, c := range contents {
				again.wantBlob(oid, tids[oid], c)
			}
			if !again.log.contains("lacked blobs") || again.hasLog() {
				t.Errorf("the log is there: %v, and it was said: %s", again.hasLog(), again.log.b.String())
			}
			st, err := os.Stat(again.s.blobs.file(2, tids[2]))
			if err != nil || st.Mode().Perm()&0o222 != 0 {
				t.Errorf("got mode %v, %v, want one without leave to write", st.Mode(), err)
			}
			if left, _ := os.ReadDir(again.s.blobs.tmp()); len(left) > 0 {
				t.Errorf("left in tmp: %v", left)
			}
			again.close()
			for _, f := range check(t, again.path, again.opts.BlobDir).Findings {
				if f.Severity != Warning { // there is no root object
					t.Errorf("found %v", f)
				}
			}
		})
	}
}

// Who opens a database whose log has blobs without its blob directory is told so,
// and the log stays; checking and reading say what is missing.
func TestLogHasBlobsAndNobodyCame(t *testing.T) {
	db := newBlobDB(t)
	tid := db.storeBlob(1, 0, "contents")
	dir := t.TempDir()
	path, blobs := filepath.Join(dir, "Data.fs"), filepath.Join(dir, "blobs")
	writeImage(t, dir, db.image())
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), "with its blob directory") {
		t.Errorf("without a blob directory: got %v", err)
	}
	log := &logBuffer{}
	s, err := Open(path, Options{BlobDir: blobs, ReadOnly: true, Logger: textLogger(log)})
	db.must(err)
	s.Close()
	if !log.contains("blobs may be missing") {
		t.Errorf("read-only, it was said: %s", log.b.String())
	}
	found := slices.DeleteFunc(check(t, path, blobs).Findings, func(f Finding) bool { return f.Severity == Warning })
	if len(found) != 1 || !strings.Contains(found[0].What, "1 blobs whose files are missing") {
		t.Errorf("findings: %v", found)
	}
	again := &testDB{TB: t, path: path, opts: Options{BlobDir: blobs}, log: log}
	again.open()
	again.wantBlob(1, tid, "contents")
	again.close()
}

// Data.fs may have been packed or continued by another program since: what it has
// still gets its blobs, what it has not does not.
func TestLogOfOtherFileHasBlobs(t *testing.T) {
	db := newBlobDB(t)
	first := db.storeBlob(1, 0, "first")
	db.must(db.s.data.now())
	second := db.storeBlob(1, first, "second")
	other := db.storeBlob(2, 0, "other")
	files := db.image()

	packer := openImage(t, map[string][]byte{"Data.fs": files["Data.fs"]}, Options{WithoutLog: true})
	packer.store(0, 0, "root")
	packer.must(packer.s.Pack(ctx, packer.s.LastTID(), zeolite.PackOptions{GC: new(false)}))
	packer.close()
	var before os.FileInfo // of a blob that is there, but perhaps in memory only
	again := db.openWithout(t, map[string][]byte{"Data.fs": packer.bytes(), "Data.fs.wal": files["Data.fs.wal"]}, func(dir string) {
		name := (&blobDir{path: dir}).file(2, other)
		db.must(os.MkdirAll(filepath.Dir(name), 0o777))
		db.must(os.WriteFile(name, []byte("other"), 0o444))
		var err error
		before, err = os.Stat(name)
		db.must(err)
	})
	after, err := os.Stat(again.s.blobs.file(2, other))
	db.must(err)
	if os.SameFile(before, after) {
		t.Error("a blob that seemed to be there was not written again")
	}
	again.wantBlob(1, second, "second")
	again.wantBlob(2, other, "other")
	if _, err := again.s.OpenBlob(ctx, 1, first); err == nil {
		t.Error("the blob of a revision that was packed away is there again")
	}
	if again.hasLog() {
		t.Error("the log is still there")
	}
}

// Blobs that are in the log only are synced before their part of it is used
// again, and before the log goes.
func TestLoggedBlobsFollow(t *testing.T) {
	s, w := newCrashDB(t, Options{BlobDir: "blobs", SyncInterval: neverSyncs.SyncInterval})
	serial := zeolite.TID(0)
	for i := range 24 { // 4.8 MB: more than both segments
		tid, err := w.commit(s, nil, map[zeolite.OID]string{1: strings.Repeat(fmt.Sprint(i%10), 200_000)}, map[zeolite.OID]zeolite.TID{1: serial})
		if err != nil {
			t.Fatal(err)
		}
		serial = tid
	}
	n := w.fs.count()
	w.check(t, n, w.fs.crash(n, rand.New(rand.NewPCG(1, 2))), true)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(4) {
		n := w.fs.count()
		w.check(t, n, w.fs.crash(n, rand.New(rand.NewPCG(seed, 2))), true)
	}
	if len(s.data.blobs) > 0 {
		t.Errorf("%d blobs were not synced", len(s.data.blobs))
	}
}

// Many commit blobs at once, small and large ones, more than fit into the log, and
// undo them; and somebody packs.
func TestCrashBlobs(t *testing.T) {
	for _, interval := range []time.Duration{time.Nanosecond, neverSyncs.SyncInterval} {
		t.Run(interval.String(), func(t *testing.T) {
			s, w := newCrashDB(t, Options{BlobDir: "blobs", SyncInterval: interval, PackRemoveOld: true})
			defer s.Close()
			var wg sync.WaitGroup
			for i := range 6 {
				wg.Go(func() { commitBlobs(t, s, w, zeolite.OID(i)) })
			}
			wg.Wait()
			if t.Failed() {
				return
			}
			w.crashes(t, 7, 2, true)
		})
	}
}

func commitBlobs(t *testing.T, s *Storage, w *witness, oid zeolite.OID) {
	rnd := rand.New(rand.NewPCG(uint64(oid), 7))
	serial := zeolite.TID(0)
	last := ""
	for j := range 5 {
		if j == 3 {
			undone, err := w.undo(s, serial, oid, last)
			if err != nil {
				t.Error(err)
				return
			}
			serial = undone
			continue
		}
		size := []int{0, 10, 5000, 120_000, logBlobMax, logBlobMax + 1}[rnd.IntN(6)]
		contents := strings.Repeat(string(rune('a'+j)), size)
		if j == 1 {
			last = contents // what undoing the one after it brings back
		}
		tid, err := w.commit(s, nil, map[zeolite.OID]string{oid: contents}, map[zeolite.OID]zeolite.TID{oid: serial})
		if err != nil {
			t.Error(err)
			return
		}
		serial = tid
	}
}

// undo undoes tid, so that oid has the blob contents again.
func (w *witness) undo(s *Storage, tid zeolite.TID, oid zeolite.OID, contents string) (zeolite.TID, error) {
	tx, err := s.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		return 0, err
	}
	defer tx.Abort()
	if _, err := tx.Undo(ctx, tid); err != nil {
		return 0, err
	}
	return w.finish(tx, &witnessed{blobs: map[zeolite.OID]string{oid: contents}})
}

// Few blobs are loose, and all of them fit into one entry of the log; and what has
// ended is not counted any more.
func TestLooseBlobsAreFew(t *testing.T) {
	db := newBlobDB(t)
	complete := func() *upload {
		u, err := db.s.CreateBlob(ctx)
		db.must(err)
		_, err = io.WriteString(u, strings.Repeat("x", 100_000))
		db.must(err)
		db.must(u.Complete())
		return u.(*upload)
	}
	var all []*upload
	for i := range 10 {
		u := complete()
		all = append(all, u)
		if want := i < looseUploads; u.loose != want {
			t.Errorf("upload %d is loose: %v, want %v", i, u.loose, want)
		}
	}
	db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		for i, u := range all[:5] {
			db.must(tx.StoreBlob(ctx, zeolite.OID(i), 0, []byte(blobRecord), u))
		}
		return nil
	})
	for _, u := range all[5:] {
		db.must(u.Discard())
		db.must(u.Discard())
	}
	tiny, err := db.s.CreateBlob(ctx)
	db.must(err)
	_, err = io.WriteString(tiny, "tiny")
	db.must(err)
	db.must(tiny.Complete())
	if u := tiny.(*upload); u.contents == nil || cap(u.contents.b) > 64 {
		t.Errorf("a blob of 4 bytes is kept in %v", u.contents)
	}
	db.must(tiny.Discard())
	large := []*upload{}
	for i := range looseUploads {
		u, err := db.s.CreateBlob(ctx)
		db.must(err)
		_, err = u.Write(make([]byte, logBlobMax))
		db.must(err)
		db.must(u.Complete())
		large = append(large, u.(*upload))
		if want := (i+1)*(logBlobMax+walBlobHdrLen) <= logBlobsMax; large[i].loose != want {
			t.Errorf("large upload %d is loose: %v, want %v", i, large[i].loose, want)
		}
	}
	for _, u := range large {
		db.must(u.Discard())
	}
	if n, taken := db.s.loose.uploads.Load(), db.s.loose.taken.Load(); n != 0 || taken != 0 {
		t.Errorf("%d uploads, with %d bytes, are still counted", n, taken)
	}
}

// A blob that cannot be synced behind its commit ends writing, and is not lost.
func TestLoggedBlobSyncFails(t *testing.T) {
	s, w := newCrashDB(t, Options{BlobDir: "blobs", SyncInterval: neverSyncs.SyncInterval})
	if _, err := w.commit(s, nil, map[zeolite.OID]string{1: "first"}, nil); err != nil {
		t.Fatal(err)
	}
	w.fs.fail = func(op fsOp) error {
		if op.kind == "sync" {
			return errors.New("the disk is on fire")
		}
		return nil
	}
	if err := s.data.now(); err == nil || !strings.Contains(err.Error(), "cannot sync blobs") {
		t.Errorf("got error %v", err)
	}
	w.fs.fail = nil
	if _, err := w.commit(s, map[zeolite.OID]string{2: "second"}, nil, nil); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("got error %v, want one that says read-only", err)
	}
	s.Close()
	w.crashes(t, 1, 4, true)
}

// The names of new directories are synced before a commit returns, if the log
// does not have the blob; and behind it if it has.
func TestNewBlobDirectoriesAreSynced(t *testing.T) {
	for _, without := range []bool{true, false} {
		t.Run(fmt.Sprintf("without log %v", without), func(t *testing.T) {
			s, w := newCrashDB(t, Options{BlobDir: "blobs", WithoutLog: without, SyncInterval: neverSyncs.SyncInterval})
			defer s.Close()
			if _, err := w.commit(s, nil, map[zeolite.OID]string{0x0102: "contents"}, nil); err != nil {
				t.Fatal(err)
			}
			synced := func() map[string]bool {
				dirs := map[string]bool{}
				for _, op := range w.fs.changes() {
					if op.kind == "syncdir" {
						dirs[op.name] = true
					}
				}
				return dirs
			}
			want := map[string]bool{".": true, "blobs": true}
			if !without {
				if got := synced(); !maps.Equal(got, want) {
					t.Errorf("after the commit: synced were %v, want %v", slices.Sorted(maps.Keys(got)), want)
				}
				if err := s.data.now(); err != nil {
					t.Fatal(err)
				}
			}
			for dir := filepath.Dir(w.fs.rel(s.blobs.file(0x0102, 1))); dir != "."; dir = filepath.Dir(dir) {
				want[dir] = true
			}
			if got := synced(); !maps.Equal(got, want) {
				t.Errorf("synced were %v, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
			}
			if len(s.blobs.fresh) > 0 {
				t.Errorf("still fresh: %v", s.blobs.fresh)
			}
		})
	}
}

// Directories that were there before are synced when they are used for the first
// time: whoever made them may not have done it.
func TestFoundBlobDirectoriesAreSynced(t *testing.T) {
	s, w := newCrashDB(t, Options{BlobDir: "blobs", WithoutLog: true})
	defer s.Close()
	dir := filepath.Dir(s.blobs.file(0x0102, 1))
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	all := []string{"blobs"}
	for d := w.fs.rel(dir); d != "blobs"; d = filepath.Dir(d) {
		all = append(all, d)
	}
	slices.Sort(all)
	serial := zeolite.TID(0)
	for i, want := range [][]string{all, {w.fs.rel(dir)}, {w.fs.rel(dir)}} {
		before := w.fs.count()
		tid, err := w.commit(s, nil, map[zeolite.OID]string{0x0102: "contents"}, map[zeolite.OID]zeolite.TID{0x0102: serial})
		if err != nil {
			t.Fatal(err)
		}
		serial = tid
		var got []string
		for _, op := range w.fs.changes()[before:] {
			if op.kind == "syncdir" {
				got = append(got, op.name)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("commit %d synced %v, want %v", i, got, want)
		}
	}
	if len(s.blobs.fresh) > 0 {
		t.Errorf("still fresh: %v", s.blobs.fresh)
	}
}

// A log of another version stays where it is.
func TestLogVersions(t *testing.T) {
	db := newDB(t, neverSyncs)
	db.must(db.s.data.now())
	db.store(1, 0, "first")
	files := db.image()
	files["Data.fs"] = files["Data.fs"][:magicLen]
	version := func(v string) map[string][]byte {
		b := bytes.Clone(files["Data.fs.wal"])
		copy(b, walTag+v)
		binary.BigEndian.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
		return map[string][]byte{"Data.fs": files["Data.fs"], "Data.fs.wal": b}
	}
	again := openImage(t, version("3"), Options{})
	again.wantLoad(1, zeolite.MaxTID, "first")

	for _, v := range []string{"2", "4"} {
		dir := t.TempDir()
		writeImage(t, dir, version(v))
		path := filepath.Join(dir, "Data.fs")
		if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), `version "`+v+`"`) {
			t.Errorf("version %s: got error %v", v, err)
		}
		if !exists(path + ".wal") {
			t.Errorf("version %s: the log is gone", v)
		}
	}
}
