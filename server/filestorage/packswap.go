package filestorage

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/zeolite-go/zeolite"
)

// catchUp is how little may be left to copy before commits are held up.
const catchUp = 256 << 10

// finish copies what has been committed meanwhile and puts the new file in the
// place of the old one. swapped says whether it got that far.
func (p *packer) finish() (swapped bool, err error) {
	s, g := p.s, p.g
	for rounds := 0; g.end.Load()-p.copied > catchUp && rounds < 10; rounds++ {
		if err := p.copyRest(g.end.Load()); err != nil {
			return false, err
		}
	}
	// Most of the new file goes to disk before anybody has to wait.
	if err := p.sync(); err != nil {
		return false, err
	}
	if err := p.writeRemoved(); err != nil {
		return false, err
	}
	// An index that is being saved may take seconds: that is waited for before
	// anybody has to wait for this.
	s.indexSave.mu.Lock()
	defer s.indexSave.mu.Unlock()
	// So may syncing what was committed: what is left of that for swap is little.
	if err := s.data.now(); err != nil {
		return false, swapError(err)
	}
	// Transactions that hold positions in the old file must end first.
	if err := s.packGate.close(p.ctx); err != nil {
		return false, err
	}
	defer s.packGate.open()
	select {
	case s.committer.lock <- struct{}{}:
	case <-p.ctx.Done():
		return false, p.ctx.Err()
	}
	defer func() { <-s.committer.lock }()
	if err := s.writable(p.ctx); err != nil {
		return false, err
	}
	if err := p.copyRest(g.end.Load()); err != nil {
		return false, err
	}
	end := p.out.end()
	if err := p.out.flush(); err != nil {
		return false, packError(err)
	}
	if err := p.out.file.Truncate(end); err != nil {
		return false, packError(err)
	}
	if err := p.out.file.Sync(); err != nil {
		return false, packError(err)
	}
	return p.swap(end)
}

func swapError(err error) error {
	return &zeolite.StorageError{Message: "cannot replace the database by the packed one", Err: err}
}

func (p *packer) sync() error {
	if err := p.out.flush(); err != nil {
		return packError(err)
	}
	return packError(p.out.file.Sync())
}

// swap renames the new file and makes it the current generation. It is called
// with the commit lock held, and that of saving the index.
func (p *packer) swap(end int64) (swapped bool, err error) {
	s, g := p.s, p.g
	// What voted transactions were promised, they must find in the new file.
	if err := s.space.replace(p.out.file, end); err != nil {
		return false, &zeolite.StorageError{Message: "cannot pack: no disk space for the transactions under way", Err: err}
	}
	back := func(err error) (bool, error) {
		if e := s.space.replace(g.file, g.end.Load()); e != nil {
			s.log.Error("cannot reserve disk space again; transactions that voted may fail", "error", e)
		}
		return false, swapError(err)
	}
	// The index is for the old file, and must not be found with the new one.
	if err := s.fs.Remove(s.path + ".index"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return back(err)
	}
	// So is the log, after a crash.
	if s.wal != nil {
		if err := s.data.now(); err != nil {
			return back(err)
		}
		if err := s.wal.void(); err != nil {
			return back(err)
		}
	}
	if err := s.fs.Remove(s.path + ".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return back(err)
	}
	if !s.opts.PackRemoveOld {
		// A second name, not a new one: at no time is there no Data.fs.
		if err := s.fs.Link(s.path, s.path+".old"); err != nil {
			s.log.Warn("cannot keep the database as it was before packing", "file", s.path+".old", "error", err)
		}
	}
	if err := s.fs.SyncDir(s.dir()); err != nil {
		return back(err)
	}
	if err := s.fs.Rename(s.path+".pack", s.path); err != nil {
		return back(err)
	}
	packed := newGeneration(p.out.file, p.index)
	packed.last.Store(g.last.Load())
	packed.end.Store(end)
	packed.bound.Store(end)
	s.gen.Store(packed)
	s.data.set(end)
	s.guardAt = 0
	g.release() // the storage's own hold on it
	s.indexSave.savedAt.Store(0)
	if err := s.fs.SyncDir(s.dir()); err != nil {
		// Commits would go to a file that may not be there after a crash.
		s.fail(fmt.Errorf("cannot make the packed database durable: %w", err))
	}
	return true, nil
}
