//go:build !linux

package postgres

import "syscall"

// limitSilence leaves it to the system how long it tries to send.
func limitSilence(network, address string, conn syscall.RawConn) error { return nil }
