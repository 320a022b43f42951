//go:build !unix

package client

import "os"

// openLocked opens a file. Where there is no flock an open file cannot be
// removed either.
func openLocked(path string, flag int) (*os.File, error) {
	return os.OpenFile(path, flag, 0o666)
}
