//go:build !race

package zrpc

import (
	"syscall"
	"unsafe"
)

// readNow and writeNow are syscall.Read and syscall.Write for a socket that does
// not block. Go's scheduler is not told of them. It would take them for calls that
// may take long, and wake up its monitor, a thread, to watch; waking a thread takes
// longer than the call.

func readNow(fd int, b []byte) (int, error) { return raw(syscall.SYS_READ, fd, b) }

func writeNow(fd int, b []byte) (int, error) { return raw(syscall.SYS_WRITE, fd, b) }

func raw(call uintptr, fd int, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
