package filestorage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/zeolite-go/zeolite"
)

// How the blobs of a transaction become durable. A blob that is small is not
// synced when its upload ends: it is loose until its transaction is committed. Then
// the log has its contents with the transaction's, which takes one write, and its
// file is synced behind the commit, before that part of the log is used again. All
// others are synced first: the contents when the upload ends (blobs.go), for which
// nobody else has to wait, and their names when the transaction is committed.

const (
	// logBlobMax is the size of blobs from which writing them twice costs more
	// than a sync.
	logBlobMax = blobBlock
	// logBlobsMax is how much loose blobs take at most in the log, all of them
	// together, so that those of any group have room in one entry. They take
	// as much memory, or up to four times that.
	logBlobsMax = 640 << 10
	// looseUploads is up to how many uploads that have not ended blobs may be
	// loose. Where there are more, syncing them all at once takes less than to
	// write all of them twice, and is off the commit lock.
	looseUploads = 4
)

// looseBlobs counts uploads that have not ended, and what the log must have room for
// to have those that are loose. It is safe for concurrent use.
type looseBlobs struct {
	uploads atomic.Int64
	taken   atomic.Int64
}

func (l *looseBlobs) take(n int64) bool {
	if l.uploads.Load() > looseUploads {
		return false
	}
	if l.taken.Add(n) > logBlobsMax {
		l.taken.Add(-n)
		return false
	}
	return true
}

func (l *looseBlobs) give(n int64) { l.taken.Add(-n) }

// newUpload makes an upload of a file.
func (s *Storage) newUpload(path string, file *blobWriter, size int64) *upload {
	s.loose.uploads.Add(1)
	return &upload{s: s, path: path, file: file, size: size}
}

// stayLoose says whether the upload need not be synced now.
func (u *upload) stayLoose() bool {
	u.loose = !u.s.opts.WithoutLog && u.size <= logBlobMax && u.s.loose.take(walBlobHdrLen+u.size)
	return u.loose
}

// end is called when a transaction has kept the file, or it was discarded.
func (u *upload) end() {
	u.gone = true
	u.s.loose.uploads.Add(-1)
	if u.loose {
		u.s.loose.give(walBlobHdrLen + u.size)
		u.loose = false
	}
	if u.contents != nil {
		u.contents.free()
		u.contents = nil
	}
}

// newBlob is a blob of a transaction that is being committed, or was.
type newBlob struct {
	oid  zeolite.OID
	tid  zeolite.TID
	size int64
	file string

	contents *blobBuffer // nil if they are in the file only
}

// groupBlobs are the blobs of a group of transactions that is being committed,
// under their names. It is used by one goroutine.
type groupBlobs struct {
	loose []newBlob // their contents may not be durable
	syncs syncs
}

// start begins to sync what will not be in the log.
func (gb *groupBlobs) start(logged bool) {
	if !logged {
		for _, b := range gb.loose {
			gb.syncs.addFile(b.file)
			gb.syncs.addDir(filepath.Dir(b.file))
		}
		gb.loose = nil
	}
	gb.syncs.start()
}

// logged is how much they take in the log.
func (gb *groupBlobs) logged() (n int64) {
	for _, b := range gb.loose {
		n += walBlobHdrLen + b.size
	}
	return n
}

// appendTo appends what the log has of them.
func (gb *groupBlobs) appendTo(buf []byte) ([]byte, error) {
	for _, b := range gb.loose {
		buf = appendWALBlobHeader(buf, b.oid, b.tid, b.size)
		if b.contents != nil {
			buf = append(buf, b.contents.b[:b.size]...)
			continue
		}
		start := len(buf)
		buf = buf[:start+int(b.size)]
		if err := readWhole(b.file, buf[start:]); err != nil {
			return nil, blobError("cannot commit a blob", err)
		}
	}
	return buf, nil
}

// readWhole reads a file that is as long as b.
func readWhole(name string, b []byte) error {
	f, err := zeolite.OpenFileBlob(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if f.Size() != int64(len(b)) {
		return fmt.Errorf("%s has %d bytes, and not the %d that were received", name, f.Size(), len(b))
	}
	_, err = io.ReadFull(f.File(), b)
	return err
}

// errSyncFailed says that a sync failed, and was not just impossible to begin. To
// repeat it proves nothing: Linux reports such an error once, and then takes what
// it could not write for written.
var errSyncFailed = errors.New("the sync of blobs failed")

// syncs makes files and names durable, many at a time. It is used by one
// goroutine.
type syncs struct {
	dir *blobDir
	// behind says that all is committed, and in the log: nobody waits. What is not
	// there any more is passed over. Nothing of ours removes it before it is synced;
	// but those who share the directory can, and commits would wait for it for ever.
	behind bool
	// fail, if set, is told at once when a sync failed that others may rely on: that
	// of anything behind, and that of a directory, which may have names of theirs.
	// Whoever syncs it next would be told that all is well.
	fail func(error)

	todo  map[string]bool // true for a directory
	fresh []freshDir
	wg    sync.WaitGroup
	mu    sync.Mutex
	err   error
}

// parallelSyncs is enough for a journalling file system to sync them together.
// Those behind commits are fewer at a time: the disk has commits to write, too.
const (
	parallelSyncs       = 8
	parallelSyncsBehind = 4
)

// addFile adds the contents of a file.
func (y *syncs) addFile(name string) { y.add(name, false) }

// addDir adds the names in a directory of blobs, and its own.
func (y *syncs) addDir(dir string) {
	dirs, fresh := y.dir.namesOf(dir)
	for _, name := range dirs {
		y.add(name, true)
	}
	y.fresh = append(y.fresh, fresh...)
}

func (y *syncs) add(name string, dir bool) {
	if y.todo == nil {
		y.todo = make(map[string]bool)
	}
	y.todo[name] = dir
}

// start begins syncing what was added.
func (y *syncs) start() {
	if len(y.todo) == 0 {
		return
	}
	type name struct {
		name string
		dir  bool
	}
	todo := make(chan name, len(y.todo))
	for n, dir := range y.todo {
		todo <- name{n, dir}
	}
	close(todo)
	most := parallelSyncs
	if y.behind {
		most = parallelSyncsBehind
	}
	for range min(most, len(y.todo)) {
		y.wg.Go(func() {
			for n := range todo {
				var err error
				if n.dir {
					err = y.dir.syncDir(n.name, y.fail)
				} else {
					err = y.syncFile(n.name)
				}
				if err != nil && !(y.behind && replaced(err)) {
					y.mu.Lock()
					y.err = errors.Join(y.err, err)
					y.mu.Unlock()
					return // all of it has failed
				}
			}
		})
	}
}

// wait returns when all is synced.
func (y *syncs) wait() error {
	y.wg.Wait()
	if y.err == nil && len(y.fresh) > 0 {
		y.dir.durable(y.fresh)
	}
	return y.err
}

func (y *syncs) syncFile(name string) error {
	err := syncFile(y.dir.fs, name)
	if err != nil && !neverBegun(err) {
		err = fmt.Errorf("%w: %w", errSyncFailed, err)
		if y.behind && y.fail != nil {
			y.fail(err)
		}
	}
	return err
}

// dirSync keeps the syncs of one directory apart.
type dirSync struct {
	sync.Mutex
	users int // guarded by blobDir.syncMu
}

// syncDir makes the names in a directory durable. If that fails, fail, if set, is told
// before anybody else syncs it, who would be told that all is well. So who has synced
// it, and then finds that nothing has failed, may believe that.
func (d *blobDir) syncDir(name string, fail func(error)) error {
	d.syncMu.Lock()
	if d.syncing == nil {
		d.syncing = make(map[string]*dirSync)
	}
	this := d.syncing[name]
	if this == nil {
		this = new(dirSync)
		d.syncing[name] = this
	}
	this.users++
	d.syncMu.Unlock()

	this.Lock()
	err := d.fs.SyncDir(name)
	if err != nil && !neverBegun(err) {
		err = fmt.Errorf("%w: %w", errSyncFailed, err)
		if fail != nil {
			fail(err)
		}
	}
	this.Unlock()

	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	if this.users--; this.users == 0 {
		delete(d.syncing, name)
	}
	return err
}

// writeWhole makes a file of b, or replaces the contents of one, durably but for its
// name.
func writeWhole(fsys FileSystem, name string, perm fs.FileMode, b []byte) error {
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// neverBegun says whether a file could not be opened to sync it, for want of file
// descriptors for example: nothing has happened to what it was to make durable.
func neverBegun(err error) bool {
	var e *fs.PathError
	return errors.As(err, &e) && e.Op == "open"
}

func syncFile(fsys FileSystem, name string) error {
	f, err := openRegular(fsys, name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// openRegular opens a file that clients who share the directory may have replaced: by
// a pipe, to keep us waiting, or by a link to another file. The errors for both are
// of opening it.
func openRegular(fsys FileSystem, name string) (File, error) {
	notRegular := &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	if st, err := os.Lstat(name); err == nil && !st.Mode().IsRegular() {
		return nil, notRegular // it may be a link, and not every system can tell when it opens one
	}
	f, err := fsys.OpenFile(name, os.O_RDONLY|openNow|noFollow, 0)
	if err != nil {
		return nil, err
	}
	if sf, can := f.(statFile); can {
		st, err := sf.Stat()
		if err == nil && !st.Mode().IsRegular() {
			err = notRegular
		}
		if err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// errNotRegular says that there is something else where a file should be.
var errNotRegular = errors.New("not a regular file")

// replaced says whether a file could not be opened because something else is there,
// or nothing.
func replaced(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotRegular) || notDirectory(err)
}
