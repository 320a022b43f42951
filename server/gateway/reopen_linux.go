package gateway

import (
	"os"
	"strconv"
)

// reopen opens an open file once more, with a position of its own, even if it
// has no name any more.
func reopen(f *os.File) (own *os.File, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	failed := raw.Control(func(fd uintptr) {
		own, err = os.Open("/proc/self/fd/" + strconv.Itoa(int(fd)))
	})
	if failed != nil {
		return nil, failed
	}
	return own, err
}
