package filestorage

import (
	"errors"
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
