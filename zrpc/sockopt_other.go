//go:build !linux

package zrpc

import "net"

func setNotSentLowat(net.Conn, int) {}
