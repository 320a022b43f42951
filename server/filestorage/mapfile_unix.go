//go:build unix

package filestorage

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapFile returns the contents of a file, mapped into memory where that is
// possible. unmap, if not nil, gives the memory back.
func mapFile(f *os.File, size int64) (data []byte, unmap func([]byte), err error) {
	if int64(int(size)) == size {
		data, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
		if err == nil {
			return data, func(b []byte) { unix.Munmap(b) }, nil
		}
	}
	// Not every file system can do it.
	data, err = readFile(f, size)
	return data, nil, err
}

// newBlocks returns n bytes that lie as a disk wants them, outside of Go's heap:
// in it they would let the collector wait until as much again is garbage.
func newBlocks(n int) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return aligned(n)
	}
	return b
}

// freeBlocks gives them back. What Mmap did not make it leaves alone.
func freeBlocks(b []byte) { _ = unix.Munmap(b) }
