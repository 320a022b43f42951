package main

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/zeolite-go/zeolite/tests/peers"
)

// needIPv6 skips where there is none.
func needIPv6(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		peers.Missing(t, "no IPv6: %v", err)
	}
	l.Close()
}

func answers(l net.Listener, host string) bool {
	c, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(l.Addr().(*net.TCPAddr).Port)))
	if err == nil {
		c.Close()
	}
	return err == nil
}

// TestListenFamily: an address of one family is not listened at with the other;
// all hosts are those of both.
func TestListenFamily(t *testing.T) {
	needIPv6(t)
	for _, c := range []struct {
		address    string
		ipv4, ipv6 bool
	}{
		{"0.0.0.0:0", true, false},
		{"[::]:0", false, true},
		{":0", true, true},
	} {
		listeners, err := listenAll(t.Context(), "tcp", c.address, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if got := answers(listeners[0], "127.0.0.1"); got != c.ipv4 || len(listeners) != 1 {
			t.Errorf("%s: IPv4 is %v, %d listeners", c.address, got, len(listeners))
		}
		if got := answers(listeners[0], "::1"); got != c.ipv6 {
			t.Errorf("%s: IPv6 is %v", c.address, got)
		}
		closeAll(listeners)
	}
}

// TestListenHostName: a name is listened at wherever it leads on this machine.
func TestListenHostName(t *testing.T) {
	needIPv6(t)
	log := slog.New(slog.DiscardHandler)
	here := []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("::ffff:127.0.0.1"), netip.MustParseAddr("127.0.0.1")}
	elsewhere := netip.MustParseAddr("192.0.2.1") // for documentation only
	listeners, err := listenAt(append(here, elsewhere), "0", log)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(listeners)
	if len(listeners) != 2 || !answers(listeners[0], "127.0.0.1") || !answers(listeners[1], "::1") {
		t.Errorf("listening at %v", listeners)
	}
	if _, err := listenAt([]netip.Addr{elsewhere}, "0", log); err == nil {
		t.Error("no address is here, but that is no error")
	}
	// A port that is taken is not passed over.
	port := strconv.Itoa(listeners[1].Addr().(*net.TCPAddr).Port)
	if l, err := listenAt(here, port, log); err == nil {
		t.Errorf("listening at %v, one of which is taken", l)
	}
}

// TestGreeting: what serve tells people to connect to is listened at.
func TestGreeting(t *testing.T) {
	needIPv6(t)
	for _, asked := range []string{":0", "0.0.0.0:0", "[::]:0", "127.0.0.1:0", "[::1]:0"} {
		listeners, err := listenAll(t.Context(), "tcp", asked, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		new(serveFlags).greet(&out, asked, listeners[0].Addr())
		m := regexp.MustCompile(`ZEO\.DB\(\("(.*)", (\d+)\)`).FindStringSubmatch(out.String())
		if m == nil || m[2] != strconv.Itoa(listeners[0].Addr().(*net.TCPAddr).Port) || !answers(listeners[0], m[1]) {
			t.Errorf("%s: nobody is there:\n%s", asked, &out)
		}
		closeAll(listeners)
	}
}

// The socket file of a server that is gone makes room, that of one that is there
// does not.
func TestListenUnix(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listen("unix", path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("beside a server: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if l, err = listen("unix", path); err != nil {
		t.Fatalf("after a server is gone: %v", err)
	}
	l.Close()
	if _, err := listen("unix", filepath.Join(dir, strings.Repeat("s", 120))); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a path that is too long: %v", err)
	}
}
