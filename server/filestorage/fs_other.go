//go:build !linux

package filestorage

import (
	"errors"
	"os"
)

func datasync(f *os.File) error { return f.Sync() }

func allocate(*os.File, int64, int64) error { return errors.ErrUnsupported }

func checkFreeSpace(*os.File, int64) error { return errors.ErrUnsupported }

// ignoreUnsupportedSync passes over all errors: not every system can sync a
// directory, and there is no common way to tell.
func ignoreUnsupportedSync(error) error { return nil }
