//go:build unix

package filestorage

import (
	"errors"
	"syscall"
)

const (
	// openNow is a flag to open a file and not wait if it is a pipe, noFollow one
	// to fail if it is a link.
	openNow  = syscall.O_NONBLOCK
	noFollow = syscall.O_NOFOLLOW
)

// notDirectory says whether a name could not be followed because of something in
// it that is no directory.
func notDirectory(err error) bool { return errors.Is(err, syscall.ENOTDIR) }

// otherFileSystem says whether a file could not get a name because that is on another
// file system.
func otherFileSystem(err error) bool { return errors.Is(err, syscall.EXDEV) }
