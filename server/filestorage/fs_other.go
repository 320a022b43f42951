//go:build !linux

package filestorage

import (
	"errors"
	"io/fs"
	"os"
)

func datasync(f *os.File) error { return f.Sync() }

func allocate(*os.File, int64, int64) error { return errors.ErrUnsupported }

func checkFreeSpace(*os.File, int64) error { return errors.ErrUnsupported }

// ignoreUnsupportedSync passes over all errors: not every system can sync a
// directory, and there is no common way to tell.
func ignoreUnsupportedSync(error) error { return nil }

// createLog makes a file; WriteAt syncs it after each write.
func createLog(name string, perm fs.FileMode) (*os.File, error) {
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, perm)
}

func (f logFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.osFile.WriteAt(b, off)
	if err == nil {
		err = f.Sync()
	}
	return n, err
}
