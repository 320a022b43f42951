//go:build !linux

package zrpc

import "net"

const sendfileFrom = 0

// fileSender is for systems whose sendfile we know.
type fileSender struct{}

func newFileSender(net.Conn) *fileSender { return nil }

func (*fileSender) write([]byte, *Message) error { panic("zrpc: no sendfile") }
