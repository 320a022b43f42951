package postgres

import (
	"net"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A host that goes without a word is noticed on both of its ways: when it does
// not acknowledge, and when it does not answer.
func TestSilentHost(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	config, err := pgx.ParseConfig("host=127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	(&Storage{}).configure(config, appLoads)
	conn, err := config.DialFunc(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range []struct{ name, value int }{
		{tcpUserTimeout, 50_000}, {syscall.TCP_KEEPIDLE, 20}, {syscall.TCP_KEEPINTVL, 10}, {syscall.TCP_KEEPCNT, 3},
	} {
		var value int
		err := raw.Control(func(fd uintptr) { value, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, option.name) })
		if err != nil || value != option.value {
			t.Errorf("option %d is %d, %v, want %d", option.name, value, err, option.value)
		}
	}
}
