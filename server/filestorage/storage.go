package filestorage

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/gofrs/flock"

	"github.com/zeolite-go/zeolite"
)

// Storage is a database in a Data.fs. It implements zeolite.Storage, Undoer,
// Packer, BlobStorage and SharedBlobStorage. Its methods may be called by any
// number of goroutines at once.
type Storage struct {
	path   string // absolute, of Data.fs
	opts   Options
	fs     FileSystem
	log    *slog.Logger
	lock   *flock.Flock // nil if read-only
	blobs  *blobDir     // nil without blobs
	routes blobRoutes   // of uploads, as is loose
	loose  looseBlobs

	gen       atomic.Pointer[generation]
	space     space
	oids      oidAllocator
	committer committer
	groupBuf  []byte // for whoever holds the commit lock
	wal       *wal   // nil without a log; for whoever holds the commit lock
	guardAt   int64  // where the guard is, durably; 0: nowhere; for the same
	data      dataSync
	packGate  gate // transactions that refer to file positions are inside
	packing   atomic.Bool
	inVain    packedInVain // for whoever packs

	indexSave indexSaver

	closed  atomic.Bool
	failure atomic.Pointer[zeolite.StorageError]
	// background counts what Close waits for, stop ends it. Under life it
	// is decided whether something may still begin.
	life       sync.Mutex
	background sync.WaitGroup
	stop       context.CancelFunc
	stopped    context.Context
}

var (
	_ zeolite.Storage           = (*Storage)(nil)
	_ zeolite.Undoer            = (*Storage)(nil)
	_ zeolite.BlobStorage       = (*Storage)(nil)
	_ zeolite.SharedBlobStorage = (*Storage)(nil)
)

// usable says why the storage cannot be used at all.
func (s *Storage) usable(ctx context.Context) error {
	if s.closed.Load() {
		return zeolite.ErrClosed
	}
	return ctx.Err()
}

// writable says why the storage cannot be written to.
func (s *Storage) writable(ctx context.Context) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if s.opts.ReadOnly {
		return zeolite.ErrReadOnly
	}
	return s.failed()
}

// failed says why the storage cannot be written to any more, if a write failed.
func (s *Storage) failed() error {
	if f := s.failure.Load(); f != nil {
		return f
	}
	return nil
}

// fail makes the storage read-only: what is in the file is not known any more,
// and writing could only make it worse.
func (s *Storage) fail(err error) {
	s.log.Error("the storage takes no more transactions until it is opened again", "path", s.path, "error", err)
	s.failure.CompareAndSwap(nil, &zeolite.StorageError{
		Message: "the storage is read-only since a write failed; it must be opened again",
		Err:     err,
	})
}

// Info implements zeolite.Storage.
func (s *Storage) Info() zeolite.Info {
	g := s.gen.Load()
	return zeolite.Info{
		Name:            s.path,
		Objects:         int64(g.index.len()),
		Size:            g.end.Load(),
		ReadOnly:        s.opts.ReadOnly || s.failure.Load() != nil,
		Undo:            true,
		Pack:            true,
		Blobs:           s.blobs != nil,
		RecordIteration: true,
	}
}

// LastTID implements zeolite.Storage.
func (s *Storage) LastTID() zeolite.TID { return s.gen.Load().lastTID() }

// Close implements zeolite.Storage. It waits for commits and packs that are
// under way, saves the index, and removes the guard and the log.
func (s *Storage) Close() error {
	s.life.Lock()
	first := s.closed.CompareAndSwap(false, true)
	s.life.Unlock()
	if !first {
		return nil
	}
	s.stop()
	s.background.Wait()
	s.data.following.Wait()
	s.committer.lock <- struct{}{} // never given back
	s.committer.close()
	g := s.gen.Load()
	var err error
	if !s.opts.ReadOnly {
		if s.failure.Load() == nil {
			err = g.file.Truncate(g.end.Load())
			if err == nil {
				err = g.file.Sync()
			}
			if err == nil {
				err = s.data.blobsNow()
			}
			if s.wal != nil {
				if err == nil {
					err = s.wal.remove()
				} else {
					s.wal.close()
				}
			}
			s.oids.save(s.fs, s.path, g.lastTID())
			s.saveIndex(g)
		} else if s.wal != nil {
			s.wal.close() // it is needed when the storage is opened again
		}
	}
	g.release()
	if s.lock != nil {
		if e := s.lock.Unlock(); err == nil {
			err = e
		}
	}
	if err != nil {
		return &zeolite.StorageError{Message: "closing Data.fs", Err: err}
	}
	return nil
}

// startBackground adds something that Close waits for, unless the storage is
// closed.
func (s *Storage) startBackground() bool {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed.Load() {
		return false
	}
	s.background.Add(1)
	return true
}

// dir is the directory of Data.fs.
func (s *Storage) dir() string { return filepath.Dir(s.path) }

// spillDir is where transactions too large for memory go.
func (s *Storage) spillDir() string {
	if s.opts.TempDir != "" {
		return s.opts.TempDir
	}
	return s.dir()
}
