package filestorage

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// FileSystem is what a Storage asks of the operating system wherever the order
// and durability of changes matter. Tests put themselves in between to see and
// to lose writes. Its methods may be called by several goroutines at once.
type FileSystem interface {
	// OpenFile opens a file as os.OpenFile does.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// CreateLog makes a file, in the place of one that there may be, in which
	// each WriteAt is durable when it returns. Offsets, lengths and addresses
	// of what is written are multiples of 4096.
	CreateLog(name string, perm fs.FileMode) (File, error)
	// Rename, Link, Remove and Mkdir are those of package os.
	Rename(oldname, newname string) error
	Link(oldname, newname string) error
	Remove(name string) error
	Mkdir(name string, perm fs.FileMode) error
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
}

// File is an open file of a FileSystem. Its methods may be called by several
// goroutines at once.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size returns the current length in bytes.
	Size() (int64, error)
	// Truncate changes the length.
	Truncate(size int64) error
	// Sync makes the contents and the length durable.
	Sync() error
	// Allocate reserves disk space for n bytes at off without changing the
	// length. It fails with errors.ErrUnsupported where it is not known how;
	// otherwise an error says that the space is not there.
	Allocate(off, n int64) error
}

// writeBacker is a File that can be told to bring a part of its contents to the
// disk, without waiting for it: so that a later Sync has less to do.
type writeBacker interface{ StartWriteBack(off, n int64) }

// statFile is a File that can tell what it is.
type statFile interface{ Stat() (fs.FileInfo, error) }

// directFile is a File that can be written past the operating system's cache.
type directFile interface {
	// SetDirect begins to do so, or ends it.
	SetDirect(on bool) error
	// WriteDirect is WriteAt in between: offset, length and address are
	// multiples of 4096.
	WriteDirect(b []byte, off int64) (int, error)
}

// OSFileSystem is the FileSystem of the operating system.
type OSFileSystem struct{}

// OpenFile implements FileSystem.
func (OSFileSystem) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// CreateLog implements FileSystem.
func (OSFileSystem) CreateLog(name string, perm fs.FileMode) (File, error) {
	f, err := createLog(name, perm)
	if err != nil {
		return nil, err
	}
	return logFile{osFile{f}}, nil
}

// logFile is a file of CreateLog.
type logFile struct{ osFile }

// Rename implements FileSystem.
func (OSFileSystem) Rename(oldname, newname string) error { return os.Rename(oldname, newname) }

// Link implements FileSystem.
func (OSFileSystem) Link(oldname, newname string) error { return os.Link(oldname, newname) }

// Remove implements FileSystem.
func (OSFileSystem) Remove(name string) error { return os.Remove(name) }

// Mkdir implements FileSystem.
func (OSFileSystem) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }

// SyncDir implements FileSystem.
func (OSFileSystem) SyncDir(name string) error {
	d, err := os.OpenFile(name, os.O_RDONLY|openNow, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return ignoreUnsupportedSync(d.Sync())
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f osFile) Sync() error { return datasync(f.File) }

func (f osFile) Allocate(off, n int64) error {
	err := allocate(f.File, off, n)
	if errors.Is(err, errors.ErrUnsupported) {
		return checkFreeSpace(f.File, n)
	}
	return err
}
