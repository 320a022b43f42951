//go:build unix

package filestorage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// replaceBlobs gives objects 1 to 3 a blob each, and another one. It returns the
// files of the old ones.
func (w *witness) replaceBlobs(t *testing.T, s *Storage, serials map[zeolite.OID]zeolite.TID) (old, current []string) {
	t.Helper()
	for round := range 2 {
		for oid := range zeolite.OID(3) {
			oid++
			tid, err := w.commit(s, nil, map[zeolite.OID]string{oid: fmt.Sprintf("blob %d of %v", round, oid)}, serials)
			if err != nil {
				t.Fatal(err)
			}
			serials[oid] = tid
			if name := s.blobs.file(oid, tid); round == 0 {
				old = append(old, name)
			} else {
				current = append(current, name)
			}
		}
	}
	return old, current
}

func packAll(t *testing.T, s *Storage) {
	t.Helper()
	if err := s.Pack(ctx, s.LastTID(), zeolite.PackOptions{GC: new(false)}); err != nil {
		t.Fatal(err)
	}
}

// A blob that cannot be removed does not keep others there, in this pack and the
// next.
func TestBlobThatCannotBeRemoved(t *testing.T) {
	s, w := newCrashDB(t, Options{BlobDir: "blobs", PackRemoveOld: true, SyncInterval: neverSyncs.SyncInterval})
	defer s.Close()
	w.fs.fail = func(op fsOp) error {
		if op.kind == "remove" && filepath.Dir(op.name) == w.fs.rel(s.blobs.oidDir(1)) {
			return errors.New("no leave to remove it")
		}
		return nil
	}
	serials := map[zeolite.OID]zeolite.TID{}
	for range 2 {
		old, _ := w.replaceBlobs(t, s, serials)
		packAll(t, s)
		if !exists(old[0]) || exists(old[1]) || exists(old[2]) {
			t.Errorf("the first blob is there: %v, the second: %v, the third: %v", exists(old[0]), exists(old[1]), exists(old[2]))
		}
	}
	list, err := os.ReadFile(filepath.Join(s.blobs.path, removedList))
	if n := len(strings.Fields(string(list))); err != nil || n != 3 {
		t.Errorf("%d blobs are left to be removed, %v", n, err)
	}
	if matches, _ := filepath.Glob(s.blobs.oidDir(1) + "/*" + blobSuffix); len(matches) != 4 {
		t.Errorf("found are %q", matches)
	}
}

// If old blobs are kept on another file system, those that are removed are copied
// there.
func TestOldBlobsOnOtherFileSystem(t *testing.T) {
	s, w := newCrashDB(t, Options{BlobDir: "blobs", SyncInterval: neverSyncs.SyncInterval})
	defer s.Close()
	w.fs.fail = func(op fsOp) error {
		if (op.kind == "rename" || op.kind == "link") && strings.HasPrefix(op.to, "blobs.old") && strings.HasPrefix(op.name, "blobs"+string(filepath.Separator)) {
			return &os.LinkError{Op: op.kind, Old: op.name, New: op.to, Err: syscall.EXDEV}
		}
		return nil
	}
	serials := map[zeolite.OID]zeolite.TID{}
	for range 2 {
		old, current := w.replaceBlobs(t, s, serials)
		packAll(t, s)
		there := func(name string) string { return s.blobs.path + ".old" + strings.TrimPrefix(name, s.blobs.path) }
		for i := range old {
			b, err := os.ReadFile(there(old[i]))
			if want := fmt.Sprintf("blob 0 of %v", zeolite.OID(i+1)); err != nil || string(b) != want || exists(old[i]) {
				t.Errorf("the copy of the blob of %d has %q, %v, and the blob is there: %v", i+1, b, err, exists(old[i]))
			}
			if !exists(current[i]) || exists(there(current[i])) {
				t.Errorf("the current blob of %d is there: %v, and a copy, too: %v", i+1, exists(current[i]), exists(there(current[i])))
			}
		}
		if layout, err := os.ReadFile(there(filepath.Join(s.blobs.path, layoutMarker))); string(layout) != layoutBushy {
			t.Errorf("the layout is %q, %v", layout, err)
		}
		if exists(filepath.Join(s.blobs.path, removedList)) {
			t.Error("blobs are left to be removed")
		}
	}
}

// A file system may be mounted where old blobs are kept: then that directory cannot
// be removed, but what is in it can.
func TestOldBlobsOnMount(t *testing.T) {
	s, w := newCrashDB(t, Options{BlobDir: "blobs", SyncInterval: neverSyncs.SyncInterval})
	defer s.Close()
	w.fs.fail = func(op fsOp) error {
		if op.kind == "remove" && op.name == "blobs.old" {
			return &os.PathError{Op: op.kind, Path: op.name, Err: syscall.EBUSY}
		}
		return nil
	}
	dir := s.blobs.path + ".old"
	if err := os.MkdirAll(filepath.Join(dir, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	mounted, err := os.Open(dir) // so that no other directory becomes the same file
	if err != nil {
		t.Fatal(err)
	}
	defer mounted.Close()
	before, err := mounted.Stat()
	if err != nil {
		t.Fatal(err)
	}
	serials := map[zeolite.OID]zeolite.TID{}
	var last []string
	for range 2 {
		old, _ := w.replaceBlobs(t, s, serials)
		packAll(t, s)
		if after, err := os.Stat(dir); err != nil || !os.SameFile(before, after) {
			t.Errorf("the directory was removed: %v", err)
		}
		there := func(name string) string { return dir + strings.TrimPrefix(name, s.blobs.path) }
		for i := range old {
			if exists(old[i]) || !exists(there(old[i])) || last != nil && exists(there(last[i])) {
				t.Errorf("blob of %d: it is where it was: %v; among the old: %v; and so is that of the pack before: %v",
					i+1, exists(old[i]), exists(there(old[i])), last != nil && exists(there(last[i])))
			}
		}
		last = old
	}
	if !exists(filepath.Join(dir, "lost+found")) {
		t.Error("lost+found is gone")
	}
}

// After a pack of Python's was killed there may be oids in the list: of objects that
// do not exist any more all blobs go.
func TestResumeRemovingObjects(t *testing.T) {
	db := newBlobDB(t)
	tid := db.storeBlob(1, 0, "kept")
	d := db.s.blobs
	kept, other := d.file(1, tid), filepath.Join(d.oidDir(2), "shared.tmp")
	var gone []string
	for i := range zeolite.TID(2) {
		gone = append(gone, d.file(3, tid-i))
	}
	later := d.file(4, tid+1)
	for _, name := range append(gone, other, later) {
		db.must(os.MkdirAll(filepath.Dir(name), 0o777))
		db.must(os.WriteFile(name, []byte("contents"), 0o444))
	}
	db.close()
	var list string
	for oid := range zeolite.OID(6) {
		list += fmt.Sprintf("%x\n", oid.Bytes())
	}
	db.must(os.WriteFile(filepath.Join(d.path, removedList), []byte(list), 0o666))
	db.open()
	for _, name := range []string{kept, other, later} {
		if !exists(name) {
			t.Errorf("%s is gone", name)
		}
	}
	if exists(gone[0]) || exists(gone[1]) || exists(filepath.Dir(gone[0])) || exists(filepath.Join(d.path, removedList)) {
		t.Error("not all is gone that should be")
	}
}
