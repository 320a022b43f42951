package filestorage

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
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
