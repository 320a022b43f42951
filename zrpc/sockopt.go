package zrpc

import "net"

// tcpControl calls f with the descriptor of the TCP connection below nc, if
// there is one. It is for options whose failure costs latency only, so nothing
// is reported.
func tcpControl(nc net.Conn, f func(fd uintptr)) {
	tcp, ok := tcpConn(nc)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(f)
	}
}

// tcpConn finds the TCP connection below nc, through TLS if need be.
func tcpConn(nc net.Conn) (*net.TCPConn, bool) {
	for {
		inner, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			tcp, ok := nc.(*net.TCPConn)
			return tcp, ok
		}
		nc = inner.NetConn()
	}
}
