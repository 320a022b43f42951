//go:build !linux || (!amd64 && !arm64)

package zrpc

import "net"

func boundSendBuffer(net.Conn) bool { return false }
