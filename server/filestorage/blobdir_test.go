package filestorage

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// The marker of a blob directory is durable before there are blobs; where a power
// failure has left an empty one, the blobs say what the layout is.
func TestLayoutMarkerAfterPowerFailure(t *testing.T) {
	s, w := newCrashDB(t, Options{BlobDir: "blobs"})
	defer s.Close()
	opened := w.fs.count()
	for seed := range uint64(10) {
		files := w.fs.crash(opened, rand.New(rand.NewPCG(seed, 1)))
		if got := string(files[filepath.Join("blobs", layoutMarker)]); got != layoutBushy {
			t.Fatalf("the marker has %q", got)
		}
	}
	for _, layout := range []string{layoutBushy, layoutLawn} {
		t.Run(layout, func(t *testing.T) {
			db := newDB(t, Options{BlobDir: filepath.Join(t.TempDir(), "a[b]", "blobs"), BlobLayout: layout})
			tid := db.storeBlob(1, 0, "contents")
			db.close()
			marker := filepath.Join(db.opts.BlobDir, layoutMarker)
			db.must(os.Truncate(marker, 0))
			db.opts.BlobLayout = ""
			db.open()
			db.wantBlob(1, tid, "contents")
			if b, err := os.ReadFile(marker); string(b) != layout {
				t.Errorf("the marker has %q, %v", b, err)
			}
		})
	}
}

// A directory that has tmp only is new: it was not made to the end.
func TestLayoutOfUnfinishedDirectory(t *testing.T) {
	dir := t.TempDir()
	d, err := openBlobDir(OSFileSystem{}, dir, "", false)
	if err == nil {
		err = os.Remove(filepath.Join(dir, layoutMarker))
	}
	if err == nil {
		d, err = openBlobDir(OSFileSystem{}, dir, "", false)
	}
	if err != nil || d.lawn {
		t.Errorf("a lawn, or error %v", err)
	}
}

// Directories of blobs that are never committed do not gather in memory; and what
// was forgotten since a sync began is not taken for durable after it.
func TestFreshDirectoriesAreFew(t *testing.T) {
	d, err := openBlobDir(OSFileSystem{}, t.TempDir(), layoutLawn, false)
	if err != nil {
		t.Fatal(err)
	}
	oids := zeolite.OID(0)
	vote := func(n int) {
		t.Helper()
		for range n {
			if err := d.makeDir(oids); err != nil {
				t.Fatal(err)
			}
			oids++
		}
	}
	vote(10)
	dir := d.oidDir(5)
	_, syncing := d.namesOf(dir)
	vote(2 * knownMax)
	if len(d.fresh) > knownMax {
		t.Errorf("%d directories are remembered", len(d.fresh))
	}
	d.durable(syncing)
	if _, known := d.known[dir]; known {
		t.Error("a directory that may have been made again is taken for durable")
	}
	last := d.oidDir(oids - 1)
	if err := d.removeDir(last); err != nil || d.fresh[last] != 0 {
		t.Errorf("removed with %v, and still remembered: %v", err, d.fresh[last] != 0)
	}
	_, syncing = d.namesOf(dir)
	d.durable(syncing)
	if _, known := d.known[dir]; !known {
		t.Error("a directory that was synced is not known")
	}
}
