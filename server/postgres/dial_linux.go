package postgres

import (
	"os"
	"syscall"
)

// tcpUserTimeout is TCP_USER_TIMEOUT, which package syscall lacks.
const tcpUserTimeout = 18

// limitSilence is the Control of a dialer: the kernel gives up what was sent and
// is not acknowledged for silenceTime, instead of after a quarter of an hour.
func limitSilence(network, _ string, conn syscall.RawConn) error {
	if network == "unix" {
		return nil
	}
	var failed error
	err := conn.Control(func(fd uintptr) {
		failed = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(silenceTime.Milliseconds())))
	})
	if err == nil {
		err = failed
	}
	return err
}
