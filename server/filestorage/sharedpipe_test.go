//go:build unix

package filestorage

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// soon fails if f does not return.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal(what + " waits for ever")
	}
}

// Who may write to a shared blob directory can put something else in the place of a
// blob, or of its directory, before it is synced. That holds nobody up.
func TestSharedBlobReplaced(t *testing.T) {
	for what, replace := range map[string]func(blob string) error{
		"a pipe": func(blob string) error { return syscall.Mkfifo(blob, 0o666) },
		"a link": func(blob string) error { return os.Symlink("/dev/null", blob) },
		"a pipe in place of the directory": func(blob string) error {
			err := os.Remove(filepath.Dir(blob))
			if err == nil {
				err = syscall.Mkfifo(filepath.Dir(blob), 0o666)
			}
			return err
		},
		"nothing": func(string) error { return nil },
	} {
		t.Run(what, func(t *testing.T) {
			db := newBlobDB(t)
			blob := db.s.blobs.file(1, db.storeBlob(1, 0, "contents"))
			db.must(os.Remove(blob))
			db.must(replace(blob))
			soon(t, "the sync", func() {
				if err := db.s.data.now(); err != nil || !db.s.data.reached(db.s.gen.Load().end.Load()) {
					t.Errorf("the sync: %v", err)
				}
			})
			db.store(2, 0, "more")
			if db.s.Info().ReadOnly {
				t.Error("the storage is read-only")
			}
		})
	}
}

// swapFS lets a pipe take the place of a shared blob when it is opened.
type swapFS struct{ OSFileSystem }

func (f swapFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	if strings.HasSuffix(name, "shared.tmp") {
		if err := os.Remove(name); err != nil {
			return nil, err
		}
		if err := syscall.Mkfifo(name, 0o666); err != nil {
			return nil, err
		}
	}
	return f.OSFileSystem.OpenFile(name, flag, perm)
}

func TestAdoptedBlobBecomesPipe(t *testing.T) {
	db := newDB(t, Options{BlobDir: filepath.Join(t.TempDir(), "blobs"), FileSystem: swapFS{}})
	dir := db.s.blobs.oidDir(1)
	db.must(os.MkdirAll(dir, 0o777))
	db.must(os.WriteFile(filepath.Join(dir, "shared.tmp"), []byte("shared"), 0o600))
	soon(t, "AdoptBlob", func() {
		if _, err := db.s.AdoptBlob(ctx, 1, "shared.tmp"); err == nil {
			t.Error("a pipe was taken over")
		}
	})
}
