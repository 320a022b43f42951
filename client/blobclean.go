package client

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// grew notes that so many bytes were added to the cache, and starts a check of
// its size when enough have been.
func (b *blobCache) grew(n int64) {
	if limit := b.s.opt.BlobCacheSize; limit > 0 && b.added.Add(n) >= b.slack() {
		b.check()
	}
}

// slack is how much is added between two checks.
func (b *blobCache) slack() int64 {
	return b.s.opt.BlobCacheSize * int64(b.s.opt.BlobCacheSizeCheck) / 100
}

// check starts to make room in the background, unless that is under way.
func (b *blobCache) check() {
	if b.s.opt.BlobCacheSize <= 0 || b.s.opt.SharedBlobDir || !b.checking.CompareAndSwap(false, true) {
		return
	}
	b.added.Store(0)
	b.s.spawn(func() {
		defer b.checking.Store(false)
		if err := b.makeRoom(); err != nil {
			b.s.log.Error("cannot make room in the blob cache", "dir", b.dir, "error", err)
		}
	})
}

// makeRoom removes the blobs that were used least recently, until the rest is
// small enough that slack bytes more are within the limit. One process does so
// at a time: who finds the lock check_size.lock taken leaves an empty file,
// check_size.attempt, which makes the other one look again when it is done.
func (b *blobCache) makeRoom() error {
	lock := newFlock(filepath.Join(b.dir, "check_size.lock"))
	attempt := filepath.Join(b.dir, "check_size.attempt")
	ok, err := lock.TryLock()
	if err != nil {
		return err
	}
	if !ok {
		f, err := os.Create(attempt)
		if err != nil {
			return err
		}
		f.Close()
		// It may have ended before it could see the file.
		if ok, err = lock.TryLock(); err != nil || !ok {
			return err
		}
	}
	defer lock.Unlock()
	writePID(lock.Path())
	target := b.s.opt.BlobCacheSize - b.slack()
	for b.s.ctx.Err() == nil {
		files, total, err := b.files()
		if err != nil {
			return err
		}
		if total > target && b.remove(files, total-target) > 0 {
			continue
		}
		if err := os.Remove(attempt); err != nil {
			return notNotExist(err)
		}
	}
	return nil
}

func notNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// blobFile is a file of the cache, as the cleaner sees it.
type blobFile struct {
	path string
	size int64
	used time.Time
}

// files lists the blobs of the cache.
func (b *blobCache) files() (files []blobFile, total int64, err error) {
	dirs, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, 0, err
	}
	for _, dir := range dirs {
		if _, err := strconv.ParseUint(dir.Name(), 10, 64); err != nil {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(b.dir, dir.Name()))
		if err != nil {
			continue // it is not a directory, or is gone
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".blob") {
				continue
			}
			if st, err := e.Info(); err == nil {
				path := filepath.Join(b.dir, dir.Name(), e.Name())
				files = append(files, blobFile{path, st.Size(), accessTime(st)})
				total += st.Size()
			}
		}
	}
	return files, total, nil
}

// remove removes files that were not used for long until n bytes are free. It
// passes over those whose directory is in use, and returns how many it
// removed.
func (b *blobCache) remove(files []blobFile, n int64) (removed int) {
	slices.SortFunc(files, func(x, y blobFile) int {
		return cmp.Or(x.used.Compare(y.used), cmp.Compare(x.path, y.path))
	})
	for _, f := range files {
		if n <= 0 || b.s.ctx.Err() != nil {
			break
		}
		unlock, ok := b.tryLock(filepath.Dir(f.path))
		if !ok {
			continue
		}
		// Whoever has the file open keeps it.
		if err := os.Remove(f.path); err == nil {
			n -= f.size
			removed++
		}
		unlock()
	}
	return removed
}
