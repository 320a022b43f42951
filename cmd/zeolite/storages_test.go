package main

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite/server/config"
	"github.com/zeolite-go/zeolite/tests/peers"
	"github.com/zeolite-go/zeolite/tests/serving"
)

// TestDemoStorageWaitsForItsBase: a base that is not connected is not taken for
// an empty one, though <zeoclient> says not to wait.
func TestDemoStorageWaitsForItsBase(t *testing.T) {
	server, err := config.ParseServer(peers.FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	base := &config.Storage{Spec: &config.ClientStorage{Section: "zeoclient", Storage: "1",
		Servers: []config.Address{server}, WaitTimeout: 10 * time.Millisecond}}
	s, err := openStorage(t.Context(), &config.DemoStorage{Base: base}, howToOpen{}, slog.New(slog.DiscardHandler))
	if err == nil {
		s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "base of <demostorage>") {
		t.Errorf("it said: %v", err)
	}
}

// TestServesWhatIsFarWithoutWait: what a storage at another server can do is known
// when it is offered, though <zeoclient> says not to wait and the first attempts to
// connect fail.
func TestServesWhatIsFarWithoutWait(t *testing.T) {
	dir, blob := sample(t, 1)
	far := served(t, dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer l.Close()
		if nc, err := l.Accept(); err == nil {
			nc.Close()
		}
		if nc, err := l.Accept(); err == nil {
			relay(nc, far)
		}
	}()
	t.Cleanup(func() { l.Close() })
	server, err := config.ParseServer(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	spec := &config.ClientStorage{Section: "zeoclient", Storage: "1", Servers: []config.Address{server}, BlobDir: t.TempDir(), WaitTimeout: time.Minute}
	s, err := openStorage(t.Context(), spec, howToOpen{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	_, near := serving.Start(t, s)
	if code, out := zeoliteCommand(t, "blob", "get", near, "1"); code != 0 || out != string(blob) {
		t.Errorf("blob get: exit code %d, %d bytes", code, len(out))
	}
	if code, out := zeoliteCommand(t, "pack", near); code != 0 {
		t.Errorf("pack: exit code %d, printed %q", code, out)
	}
}

// relay connects one end to an address, until either ends.
func relay(nc net.Conn, address string) {
	defer nc.Close()
	to, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		_, _ = io.Copy(to, nc) // its end is what counts
		to.Close()
	}()
	_, _ = io.Copy(nc, to)
}
