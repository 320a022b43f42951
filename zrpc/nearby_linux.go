//go:build amd64 || arm64

package zrpc

import (
	"net"
	"syscall"
	"time"
	"unsafe"
)

// nearby is the round trip up to which a peer counts as near: on this machine,
// or a switch away.
const nearby = 100 * time.Microsecond

// nearbyBuffer is the size in bytes of the send buffer for a peer that is near.
// The kernel doubles it, for what it needs itself. It is enough to send 15
// Gbit/s over the longest way that counts as near.
const nearbyBuffer = 160 << 10

// boundSendBuffer keeps the kernel from having megabytes under way to a peer
// that is near, and tells whether it is. A long way has to be filled; on a short
// one they only wait at the other end, to be read before the reply that is behind
// them.
func boundSendBuffer(nc net.Conn) (near bool) {
	if _, ok := nc.(*net.UnixConn); ok {
		return true // the kernel has 200 KiB under way at the most
	}
	tcpControl(nc, func(fd uintptr) {
		if rtt, ok := roundTrip(fd); ok && rtt <= nearby {
			near = true
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, nearbyBuffer)
		}
	})
	return near
}

// roundTrip returns the shortest round trip of a TCP connection so far: that of
// its opening, as a rule.
func roundTrip(fd uintptr) (time.Duration, bool) {
	const minRTT = 37           // where struct tcp_info has it, in 32 bit words
	var info [minRTT + 1]uint32 // the kernel leaves out what has no room
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 || size < uint32(unsafe.Sizeof(info)) {
		return 0, false
	}
	return time.Duration(info[minRTT]) * time.Microsecond, true
}
