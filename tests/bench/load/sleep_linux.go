package load

import (
	"syscall"
	"time"
)

// sleep lets the kernel wake the thread. A timer of Go may be 20 ms late while
// another goroutine receives a blob and never has to wait for it.
func sleep(d time.Duration) {
	left := syscall.NsecToTimespec(d.Nanoseconds())
	for syscall.Nanosleep(&left, &left) == syscall.EINTR {
	}
}
