//go:build unix

package zrpc

import (
	"net"
	"os"
	"syscall"
)

// directWriter writes to a socket as far as it can without waiting. It is used
// by one goroutine at a time, in push, while nobody else writes.
type directWriter struct {
	nc  net.Conn
	raw syscall.RawConn
	try func(fd uintptr) bool // made once, since it would be allocated for each write
	b   []byte
	n   int
	err error
}

// newDirectWriter returns nil if nc is not a socket of its own, as with TLS.
func newDirectWriter(nc net.Conn) *directWriter {
	raw := rawSocket(nc)
	if raw == nil {
		return nil
	}
	w := &directWriter{nc: nc, raw: raw}
	w.try = func(fd uintptr) bool {
		w.n, w.err = syscall.Write(int(fd), w.b)
		return true
	}
	return w
}

// write sends the beginning of b, all of it if there is room, and returns how
// much that was.
func (w *directWriter) write(b []byte) (int, error) {
	w.b = b
	err := w.raw.Write(w.try)
	w.b = nil
	if err != nil {
		return 0, err
	}
	switch w.err {
	case nil:
		return w.n, nil
	case syscall.EAGAIN, syscall.EINTR:
		return 0, nil
	}
	return 0, sendError(w.nc, "write", w.err)
}

// sendError is the error of a system call that sends, as package net has those of its
// own calls: so whoever logs why a connection ended sees that it was the network.
func sendError(nc net.Conn, call string, err error) error {
	return &net.OpError{Op: "write", Net: nc.LocalAddr().Network(), Source: nc.LocalAddr(), Addr: nc.RemoteAddr(),
		Err: os.NewSyscallError(call, err)}
}

// rawSocket returns the socket that nc is, or nil.
func rawSocket(nc net.Conn) syscall.RawConn {
	var conn syscall.Conn
	switch nc := nc.(type) {
	case *net.TCPConn:
		conn = nc
	case *net.UnixConn:
		conn = nc
	default:
		return nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}
