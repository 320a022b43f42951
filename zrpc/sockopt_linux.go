package zrpc

import (
	"net"
	"syscall"
)

// tcpNotSentLowat is TCP_NOTSENT_LOWAT, which package syscall lacks.
const tcpNotSentLowat = 25

// setNotSentLowat keeps the kernel from queueing more than n unsent bytes. A
// peer that reads slowly then holds up the stream that is made for it rather
// than fill megabytes of socket buffer, and an ordinary message posted
// meanwhile has little in front of it.
func setNotSentLowat(nc net.Conn, n int) {
	tcpControl(nc, func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, n)
	})
}
