//go:build unix

package client

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"syscall"
)

// openLocked opens a file and locks it (flock) for as long as it is open. It
// fails with errTaken if the file was removed before it could be locked.
func openLocked(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, flag, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errTaken
		}
		return nil, err
	}
	ours, err := file.Stat()
	if err == nil {
		var there fs.FileInfo
		if there, err = os.Stat(path); err == nil && !os.SameFile(ours, there) || errors.Is(err, fs.ErrNotExist) {
			err = errTaken
		}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// umask returns the bits that files of this process must not have. It can only
// be read by setting it.
var umask = sync.OnceValue(func() os.FileMode {
	old := syscall.Umask(0o022)
	syscall.Umask(old)
	return os.FileMode(old)
})
