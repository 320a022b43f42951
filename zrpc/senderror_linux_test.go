package zrpc

import (
	"errors"
	"io"
	"net"
	"testing"
)

// resetConn returns a connection whose peer has gone, with what it had not read.
func resetConn(t *testing.T) net.Conn {
	nc, peer := link(t, "tcp")
	t.Cleanup(func() { nc.Close() })
	if err := peer.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	peer.Close()
	if _, err := nc.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Fatalf("Read after a reset: %v", err)
	}
	return nc
}

// TestErrorsOfSending: whoever logs them must know a peer that is gone from a file that
// cannot be read.
func TestErrorsOfSending(t *testing.T) {
	lost := func(what string, err error) {
		t.Helper()
		var op *net.OpError
		if !errors.As(err, &op) || errors.As(err, new(unreadable)) {
			t.Errorf("%s to a peer that is gone: got error %v", what, err)
		}
	}
	body := func(n int) *Message {
		return &Message{body: Body{File: tempFile(t, pattern(1000)), N: n}}
	}
	nc := resetConn(t)
	_, err := newDirectWriter(nc).write([]byte("x"))
	lost("a write", err)
	lost("a head", newFileSender(nc).write([]byte("x"), body(1000)))
	lost("a body", newFileSender(nc).write(nil, body(1000)))

	to, from := link(t, "tcp")
	defer to.Close()
	defer from.Close()
	for name, m := range map[string]*Message{"short": body(1001), "closed": body(1000)} {
		if name == "closed" {
			m.body.File.Close()
		}
		if err := newFileSender(to).write(nil, m); !errors.As(err, new(unreadable)) {
			t.Errorf("a file that is %s: got error %v", name, err)
		}
	}
}
