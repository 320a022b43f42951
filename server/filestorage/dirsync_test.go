package filestorage

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// onceFS is a crashFS that reports once that a directory cannot be synced, as Linux
// does, and lets a test hold calls up.
type onceFS struct {
	*crashFS
	fails     string // the directory
	failed    atomic.Bool
	syncing   func(dir string) // may be called by several goroutines at once, as is
	committed func(blob string)
}

func (f *onceFS) SyncDir(name string) error {
	f.syncing(name)
	if name != f.fails {
		return f.crashFS.SyncDir(name)
	}
	if f.failed.CompareAndSwap(false, true) {
		return errors.New("the disk is on fire")
	}
	return nil
}

func (f *onceFS) Rename(from, to string) error {
	f.committed(to)
	return f.crashFS.Rename(from, to)
}

// When blobs behind the commits are synced, and a directory cannot be, a commit that
// syncs it, too, and is told that all is well, does not believe that.
func TestBlobDirectorySyncFailsBehind(t *testing.T) {
	for _, when := range []string{"when that is not over", "when the commit has begun"} {
		t.Run(when, func(t *testing.T) {
			dir := t.TempDir()
			fsys := &onceFS{crashFS: newCrashFS(dir), syncing: func(string) {}, committed: func(string) {}}
			opts := neverSyncs
			opts.BlobDir, opts.FileSystem = filepath.Join(dir, "blobs"), fsys
			s, err := Open(filepath.Join(dir, "Data.fs"), opts)
			if err != nil {
				t.Fatal(err)
			}
			w := newWitness(fsys.crashFS)
			if _, err := w.commit(s, nil, map[zeolite.OID]string{1: "small"}, nil); err != nil {
				t.Fatal(err)
			}
			behind, mine := s.blobs.oidDir(1), s.blobs.oidDir(2)
			fsys.fails = filepath.Dir(mine)
			ended := make(chan error, 1)
			syncBehind := func() { ended <- s.data.blobsNow() }
			mayEnd := make(chan struct{})
			if when == "when the commit has begun" {
				fsys.committed = func(blob string) {
					if filepath.Dir(blob) == mine {
						syncBehind()
					}
				}
			} else {
				// It fails, and does not end.
				begun := make(chan struct{})
				fsys.syncing = func(dir string) {
					if dir == behind {
						close(begun)
						<-mayEnd
					}
				}
				go syncBehind()
				<-begun
				for !fsys.failed.Load() {
					runtime.Gosched()
				}
			}
			_, err = w.commit(s, nil, map[zeolite.OID]string{2: strings.Repeat("x", logBlobMax+1)}, nil)
			if err == nil || errors.Is(err, zeolite.ErrInDoubt) {
				t.Errorf("got error %v", err)
			}
			close(mayEnd)
			if err := <-ended; err == nil || !s.Info().ReadOnly {
				t.Errorf("the sync has ended with error %v, and the storage is read-only: %v", err, s.Info().ReadOnly)
			}
			s.Close()
			n := w.fs.count()
			for seed := range uint64(4) {
				w.check(t, n, w.fs.crash(n, rand.New(rand.NewPCG(seed, 1))), true)
			}
		})
	}
}

// Nobody else syncs a directory between the sync that failed and the news of it.
func TestFailureIsToldBeforeNextSync(t *testing.T) {
	dir := t.TempDir()
	d, err := openBlobDir(OSFileSystem{}, dir, "", false)
	if err != nil {
		t.Fatal(err)
	}
	d.fs = &onceFS{crashFS: newCrashFS(dir), fails: dir, syncing: func(string) {}}
	told := false
	err = d.syncDir(dir, func(error) {
		if told = true; d.syncing[dir].TryLock() {
			t.Error("the directory may be synced before the failure is known")
		}
	})
	if !errors.Is(err, errSyncFailed) || !told {
		t.Errorf("told: %v, and got error %v", told, err)
	}
	if err := d.syncDir(dir, nil); err != nil || len(d.syncing) > 0 {
		t.Errorf("the next sync: %v; %d are under way", err, len(d.syncing))
	}
}
