//go:build amd64 || arm64

package zrpc

import (
	"net"
	"syscall"
	"testing"
)

func TestBoundSendBuffer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
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
