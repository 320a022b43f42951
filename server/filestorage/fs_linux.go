package filestorage

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ReadNow implements nowReader. Where a file system cannot do it, there is
// never anything in memory.
func (f osFile) ReadNow(b []byte, off int64) int {
	n, err := unix.Preadv2(int(f.Fd()), [][]byte{b}, off, unix.RWF_NOWAIT)
	if err != nil {
		return 0
	}
	return n
}

// fallocKeepSize is FALLOC_FL_KEEP_SIZE: reserve blocks past the end of the
// file without moving the end.
const fallocKeepSize = 1

func datasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// createLog makes a file that is written past the page cache, where the file
// system can do that, and without a call to sync.
func createLog(name string, perm fs.FileMode) (*os.File, error) {
	const flags = os.O_RDWR | os.O_CREATE | os.O_TRUNC | syscall.O_DSYNC
	f, err := os.OpenFile(name, flags|syscall.O_DIRECT, perm)
	if errors.Is(err, syscall.EINVAL) {
		f, err = os.OpenFile(name, flags, perm)
	}
	return f, err
}

// WriteAt writes past the page cache, or not if createLog found it impossible.
func (f logFile) WriteAt(b []byte, off int64) (int, error) { return f.WriteDirect(b, off) }

// WriteDirect implements directFile.
func (f osFile) WriteDirect(b []byte, off int64) (int, error) {
	n, err := f.WriteAt(b, off)
	if n == 0 && errors.Is(err, syscall.EINVAL) {
		// Some file systems take O_DIRECT, but then do not write so.
		if err := f.SetDirect(false); err != nil {
			return 0, err
		}
		return f.WriteAt(b, off)
	}
	return n, err
}

// SetDirect implements directFile.
func (f osFile) SetDirect(on bool) error {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err == nil {
		flags &^= unix.O_DIRECT
		if on {
			flags |= unix.O_DIRECT
		}
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags)
	}
	return os.NewSyscallError("fcntl", err)
}

func allocate(f *os.File, off, n int64) error {
	for {
		if err := syscall.Fallocate(int(f.Fd()), fallocKeepSize, off, n); err != syscall.EINTR {
			return os.NewSyscallError("fallocate", err)
		}
	}
}

// checkFreeSpace is for file systems without fallocate: it compares n with the
// space that is free now, which is not a reservation.
func checkFreeSpace(f *os.File, n int64) error {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &st); err != nil {
		return errors.ErrUnsupported
	}
	if uint64(n)/uint64(st.Bsize) >= st.Bavail {
		return os.NewSyscallError("statfs", syscall.ENOSPC)
	}
	return nil
}

// ignoreUnsupportedSync passes over the error of file systems that cannot sync
// a directory.
func ignoreUnsupportedSync(err error) error {
	if errors.Is(err, syscall.EINVAL) {
		return nil
	}
	return err
}
