//go:build amd64 || arm64

package zrpc

import (
	"net"
	"syscall"
	"testing"
)

func TestBoundSendBuffer(t *testing.T) {
	nc, peer := link(t, "tcp")
	defer nc.Close()
	defer peer.Close()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	near := boundSendBuffer(nc)
	err = raw.Control(func(fd uintptr) {
		rtt, ok := roundTrip(fd)
		if !ok || rtt <= 0 {
			t.Fatalf("the round trip is %v, %v", rtt, ok)
		}
		if near != (rtt <= nearby) {
			t.Errorf("with a round trip of %v the peer is near: %v", rtt, near)
		}
		if rtt > nearby {
			return // a machine that is very busy
		}
		size, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
		if err != nil || size != 2*nearbyBuffer {
			t.Errorf("the send buffer is %d, %v", size, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
