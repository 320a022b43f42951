//go:build !unix

package filestorage

import "os"

// mapFile returns the contents of a file.
func mapFile(f *os.File, size int64) (data []byte, unmap func([]byte), err error) {
	data, err = readFile(f, size)
	return data, nil, err
}

func newBlocks(n int) []byte { return aligned(n) }

func freeBlocks([]byte) {}
