package zrpc

import "net"

// tcpConn finds the TCP connection below nc, through TLS if need be.
func tcpConn(nc net.Conn) (*net.TCPConn, bool) {
	if inner, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = inner.NetConn()
	}
	tcp, ok := nc.(*net.TCPConn)
	return tcp, ok
}
