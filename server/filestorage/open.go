package filestorage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/zeolite-go/zeolite"
)

// Open opens the database in the file path. Unless options say otherwise it
// creates the file if there is none, locks it against other processes that
// would write, cuts off what a crash left at its end (the bytes are kept in
// Data.fs.trN), and begins to answer where the last good transaction ends.
//
// A file that is damaged elsewhere, is of another version of FileStorage, or is
// locked, is an error that says so.
func Open(path string, opts Options) (*Storage, error) {
	return OpenContext(context.Background(), path, opts)
}

// OpenContext is Open that can be cancelled while it scans the file: it then
// fails with the error of ctx, and nothing has changed on disk, but for what a
// write-ahead log had for Data.fs. ctx does not matter any more when it returns.
func OpenContext(ctx context.Context, path string, opts Options) (*Storage, error) {
	opts = opts.withDefaults()
	if opts.ReadOnly && opts.Create {
		return nil, &zeolite.StorageError{Message: "a new database cannot be read-only"}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	s := &Storage{path: path, opts: opts, fs: opts.FileSystem, log: opts.Logger}
	s.committer.init()
	s.data.init(s)
	s.stopped, s.stop = context.WithCancel(context.Background())
	if err := s.open(ctx); err != nil {
		s.stop()
		if s.lock != nil {
			s.lock.Unlock()
		}
		return nil, err
	}
	return s, nil
}

func (s *Storage) open(ctx context.Context) error {
	if !s.opts.ReadOnly {
		if err := s.takeLock(); err != nil {
			return err
		}
		if err := s.removeLeftovers(); err != nil {
			return err
		}
	}
	file, err := s.openFile()
	if err != nil {
		return err
	}
	if err := s.openDatabase(ctx, file); err != nil {
		file.Close()
		return err
	}
	return nil
}

// lockTries is for how many milliseconds takeLock waits for who shares the lock.
const lockTries = 1000

// takeLock locks the database as Python does: flock(2) on Data.fs.lock, which
// then holds the number of the process.
func (s *Storage) takeLock() error {
	name := s.path + ".lock"
	lock := flock.New(name, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o666))
	ok, err := lock.TryLock()
	for try := 0; !ok && err == nil && try < lockTries; try++ {
		// Who has the database open for writing has the lock alone; whoever
		// shares it only looks whether somebody has (inUse).
		if ok, err = lock.TryRLock(); !ok || err != nil {
			break
		}
		lock.Unlock()
		time.Sleep(time.Millisecond)
		ok, err = lock.TryLock()
	}
	if err != nil {
		return &zeolite.StorageError{Message: "cannot lock the database", Err: err}
	}
	if !ok {
		owner, _ := os.ReadFile(name)
		return &zeolite.StorageError{
			Class:   "zc.lockfile.LockError",
			Message: fmt.Sprintf("the database is in use: %s is locked by process %s", name, strings.TrimSpace(string(owner))),
		}
	}
	s.lock = lock
	if err := os.WriteFile(name, fmt.Appendf(nil, " %d\n", os.Getpid()), 0o666); err != nil {
		return &zeolite.StorageError{Message: "cannot write the lock file", Err: err}
	}
	return nil
}

// removeLeftovers removes what an earlier process may have left behind, or all
// there is if the database is to be created.
func (s *Storage) removeLeftovers() error {
	remove := []string{".pack", ".new", ".index.index_tmp"}
	_, err := os.Stat(s.path)
	missing := errors.Is(err, fs.ErrNotExist)
	if s.opts.Create {
		remove = append(remove, "", ".index", ".oid", ".wal")
	} else if missing && exists(s.path+".old") && exists(s.path+".pack") {
		// Python renames one to .old and the other in its place; between
		// the two, a crash leaves neither.
		return &zeolite.StorageError{Message: fmt.Sprintf(
			"there is no %s, but %s.old and %s.pack: packing was interrupted; rename the former back", s.path, s.path, s.path)}
	}
	for _, suffix := range remove {
		if err := s.fs.Remove(s.path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &zeolite.StorageError{Message: "cannot remove an old file", Err: err}
		}
	}
	return nil
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// openFile opens Data.fs, or creates it.
func (s *Storage) openFile() (File, error) {
	if s.opts.ReadOnly {
		file, err := s.fs.OpenFile(s.path, os.O_RDONLY, 0)
		if err != nil {
			return nil, &zeolite.StorageError{Message: "cannot open the database", Err: err}
		}
		return file, nil
	}
	file, err := s.fs.OpenFile(s.path, os.O_RDWR, 0)
	if err == nil {
		// Python accepts an empty file as a new database.
		if size, e := file.Size(); e != nil || size > 0 {
			return file, nil
		}
		file.Close()
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		if err = s.abandonLog(); err == nil {
			file, err = s.createFile()
		}
	}
	if err != nil {
		return nil, &zeolite.StorageError{Message: "cannot open the database", Err: err}
	}
	return file, nil
}

// createFile makes a database without transactions under another name first,
// so that a crash leaves it whole or not at all.
func (s *Storage) createFile() (File, error) {
	name := s.path + ".new"
	file, err := s.fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return nil, err
	}
	if _, err = file.WriteAt([]byte(magic), 0); err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = s.fs.Rename(name, s.path)
	}
	if err == nil {
		err = s.fs.SyncDir(filepath.Dir(s.path))
	}
	if err != nil {
		file.Close()
		s.fs.Remove(name)
		return nil, err
	}
	return file, nil
}

func (s *Storage) openDatabase(ctx context.Context, file File) error {
	size, err := file.Size()
	if err != nil {
		return &zeolite.StorageError{Message: "cannot open the database", Err: err}
	}
	if size > 0 || !s.opts.ReadOnly {
		if err := checkMagic(file, s.path); err != nil {
			return err
		}
	}
	if s.opts.BlobDir != "" {
		if s.blobs, err = openBlobDir(s.fs, s.opts.BlobDir, s.opts.BlobLayout, s.opts.ReadOnly); err != nil {
			return blobError("cannot open the blob directory", err)
		}
		if s.opts.Create {
			if err := s.blobs.removeAll(); err != nil {
				return blobError("cannot empty the blob directory", err)
			}
			if s.blobs, err = openBlobDir(s.fs, s.opts.BlobDir, s.opts.BlobLayout, false); err != nil {
				return blobError("cannot open the blob directory", err)
			}
		}
	}
	replayed := func() error { return nil }
	if s.opts.ReadOnly {
		s.warnAboutLog(file)
	} else {
		if replayed, err = s.replayLog(file); err != nil {
			return err
		}
		if size, err = file.Size(); err != nil {
			return &zeolite.StorageError{Message: "cannot open the database", Err: err}
		}
	}
	sc, saved, err := s.buildIndex(ctx, file, size)
	if err != nil {
		return err
	}
	g := newGeneration(file, sc.index)
	g.last.Store(uint64(sc.last))
	g.end.Store(sc.pos)
	g.bound.Store(sc.pos)
	if !s.opts.ReadOnly {
		if err := s.prepareEnd(g, sc, size); err != nil {
			return err
		}
		if s.blobs != nil {
			s.blobs.removeStale()
		}
		next := zeolite.OID(1)
		if newest, ok := g.index.max(); ok {
			next = newest + 1
		}
		s.oids.load(s.path, next, sc.last)
	}
	s.gen.Store(g)
	if err := replayed(); err != nil {
		return err
	}
	s.indexSave.savedAt.Store(saved)
	s.warnAboutClock()
	if !s.opts.ReadOnly {
		// Of a pack that a crash interrupted.
		if err := s.removePackedBlobs(context.Background(), true); err != nil {
			s.log.Error("cannot remove the blobs of revisions that were packed", "error", err)
		}
	}
	if !s.opts.ReadOnly && sc.pos-saved > s.opts.IndexSaveBytes {
		s.saveIndex(g)
	}
	if !s.opts.ReadOnly && !s.opts.WithoutLog {
		s.wal = newWAL(s)
		s.data.start()
	}
	return nil
}

func checkMagic(file File, path string) error {
	var b [magicLen]byte
	if _, err := file.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return readError(0, err)
	}
	switch string(b[:]) {
	case magic:
		return nil
	case magicPy2:
		return &zeolite.StorageError{
			Class:   "ZODB.FileStorage.FileStorage.FileStorageFormatError",
			Message: path + " was written by Python 2; it must be converted (zodbupdate) first",
		}
	}
	return &zeolite.StorageError{
		Class:   "ZODB.FileStorage.FileStorage.FileStorageFormatError",
		Message: fmt.Sprintf("%s is not a FileStorage: it begins with %q", path, b[:]),
	}
}

// scanLogInterval is how often a long scan is spoken of in the log.
const scanLogInterval = 5 * time.Second

// buildIndex reads the saved index if it is good, and scans what it does not
// cover. saved is the end of what it does.
func (s *Storage) buildIndex(ctx context.Context, file File, size int64) (sc *scanner, saved int64, err error) {
	started := time.Now()
	told := started
	progress := func(done, total int64) error {
		if s.opts.ScanProgress != nil {
			s.opts.ScanProgress(done, total)
		}
		if now := time.Now(); now.Sub(told) >= scanLogInterval {
			told = now
			s.log.Info("scanning the database", "path", s.path, "done", fmt.Sprintf("%d%%", done*100/total),
				"bytes", done, "of", total, "remaining", time.Duration(float64(now.Sub(started))*float64(total-done)/float64(done-saved)).Round(time.Second))
		}
		return ctx.Err()
	}
	sc = &scanner{w: newWindow(file), size: size, index: newIndex(), log: s.log, progress: progress, pos: magicLen}
	if size < magicLen {
		return sc, 0, nil // empty and read-only
	}
	x, pos, err := loadIndexFile(s.path + ".index")
	if err == nil {
		var last zeolite.TID
		if last, err = sane(sc.w, size, x, pos); err == nil {
			sc.index, sc.pos, sc.last, saved = x, pos, last, pos
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the saved index is of no use; scanning the whole file", "path", s.path+".index", "error", err)
	}
	if err := sc.run(); err != nil {
		return nil, 0, err
	}
	if took := time.Since(started); took > time.Second {
		s.log.Info("scanned the database", "path", s.path, "from", saved, "to", sc.pos, "took", took)
	}
	return sc, saved, nil
}

// prepareEnd cuts off a torn end, or a guard.
func (s *Storage) prepareEnd(g *generation, sc *scanner, size int64) error {
	if sc.torn != "" {
		if err := s.saveTorn(g.file, sc, size); err != nil {
			return err
		}
	}
	s.space.quota, s.space.spare = s.opts.Quota, s.giveSpaceBack
	s.space.file, s.space.end, s.space.allocated = g.file, sc.pos, sc.pos
	if err := s.cutBack(g, sc.pos); err != nil {
		return &zeolite.StorageError{Message: "cannot write to the database", Err: err}
	}
	return nil
}

// saveTorn copies what follows the last good transaction to Data.fs.trN,
// unless it is only our guard.
func (s *Storage) saveTorn(file File, sc *scanner, size int64) (err error) {
	if size-sc.pos == guardLen {
		var b [guardLen]byte
		if _, err := file.ReadAt(b[:], sc.pos); err == nil && isGuard(b[:]) {
			return nil
		}
	}
	var f *os.File
	for n := 0; f == nil; n++ {
		f, err = os.OpenFile(fmt.Sprintf("%s.tr%d", s.path, n), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return &zeolite.StorageError{Message: "cannot save the torn end of the database", Err: err}
		}
	}
	s.log.Warn("the end of the database is torn; cutting it off", "path", s.path, "file position", sc.pos,
		"bytes", size-sc.pos, "because", sc.torn, "saved in", f.Name())
	_, err = io.Copy(f, io.NewSectionReader(file, sc.pos, size-sc.pos))
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		return &zeolite.StorageError{Message: "cannot save the torn end of the database", Err: err}
	}
	return nil
}

// warnAboutClock says so if the newest transaction is in the future.
func (s *Storage) warnAboutClock() {
	ahead := time.Until(s.LastTID().Time())
	switch {
	case ahead > 30*time.Minute:
		s.log.Error("the database has transactions from the future", "path", s.path, "ahead", ahead)
	case ahead > time.Second:
		s.log.Warn("the database has transactions from the future", "path", s.path, "ahead", ahead)
	}
}
