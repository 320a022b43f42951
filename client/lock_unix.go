//go:build unix

package client

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// openLocked opens a file and locks it (flock) for as long as it is open. It
// fails with errLocked if somebody else has it locked, and with errRemoved if it
// was removed before it could be locked.
func openLocked(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, flag, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errLocked
		}
		return nil, err
	}
	ours, err := file.Stat()
	if err == nil {
		var there fs.FileInfo
		if there, err = os.Stat(path); err == nil && !os.SameFile(ours, there) || errors.Is(err, fs.ErrNotExist) {
			err = errRemoved
		}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
