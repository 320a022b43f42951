package client

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/zrpc"
)

// quiet drops logs, or shows them if ZEOLITE_TEST_LOG is set.
func quiet(t testing.TB) *slog.Logger {
	if os.Getenv("ZEOLITE_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// testServer is a server in this process. One goroutine uses it at a time.
type testServer struct {
	t       testing.TB
	opt     server.Options
	storage zeolite.Storage
	addr    string
	network string
	srv     *server.Server
	done    chan struct{}
}

// serve starts a server for a storage. It ends with the test.
func serve(t testing.TB, storage zeolite.Storage, opt server.Options, network string) *testServer {
	t.Helper()
	if opt.Logger == nil {
		opt.Logger = quiet(t)
	}
	s := &testServer{t: t, opt: opt, storage: storage, network: network, addr: "127.0.0.1:0"}
	if network == "unix" {
		dir, err := os.MkdirTemp("", "zeolite")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		s.addr = filepath.Join(dir, "s")
	}
	s.start()
	t.Cleanup(s.stop)
	return s
}

// start starts the server, again on the same address.
func (s *testServer) start() {
	s.t.Helper()
	l, err := net.Listen(s.network, s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.addr = l.Addr().String()
	s.srv = server.New(s.opt)
	if err := s.srv.AddStorage("1", s.storage); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	s.done = done
	go func(srv *server.Server) {
		defer close(done)
		_ = srv.Serve(l)
	}(s.srv)
}

// stop ends the server; all clients lose their connections.
func (s *testServer) stop() {
	if s.srv == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.srv.Shutdown(ctx); err != nil {
		s.t.Errorf("Shutdown: %v", err)
	}
	<-s.done
	s.srv = nil
}

// testOptions are options for short tests.
func testOptions(t testing.TB, addresses ...string) Options {
	return Options{
		Addresses:    addresses,
		Logger:       quiet(t),
		WaitTimeout:  20 * time.Second,
		ReconnectMin: time.Millisecond,
		ReconnectMax: 20 * time.Millisecond,
	}
}

// open opens a client that ends with the test.
func open(t testing.TB, opt Options) *Storage {
	t.Helper()
	s, err := Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	s.settleTime = time.Minute // on a busy machine blobs may take longer than Finish waits
	t.Cleanup(func() { s.Close() })
	return s
}

// newMemory makes a storage in memory that ends with the test.
func newMemory(t testing.TB) *memory.Storage {
	m := memory.New(memory.Options{BlobDir: t.TempDir()})
	t.Cleanup(func() { m.Close() })
	return m
}

// encodings are those that servers announce.
var encodings = []zrpc.Encoding{zrpc.Pickle, zrpc.Msgpack}

// noLeaks checks, when the test is over, that no goroutine of this package or
// below is left.
func noLeaks(t testing.TB) {
	t.Cleanup(func() {
		deadline := time.Now().Add(10 * time.Second)
		for {
			left := goroutines()
			if len(left) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// goroutines returns the stacks of goroutines that run code of ours, without
// those of tests.
func goroutines() []string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var ours []string
	for _, g := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(g, "zeolite-go/zeolite") && !strings.Contains(g, "testing.tRunner") &&
			!strings.Contains(g, "testing.runFuzzing") {
			ours = append(ours, g)
		}
	}
	return ours
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put commits one revision.
func put(t testing.TB, s zeolite.Storage, oid zeolite.OID, serial zeolite.TID, data string) zeolite.TID {
	t.Helper()
	ctx := t.Context()
	tx, err := s.Begin(ctx, zeolite.TxnMeta{Description: []byte(data)})
	must(t, err)
	defer tx.Abort()
	must(t, tx.Store(ctx, oid, serial, []byte(data)))
	must(t, tx.Vote(ctx))
	tid, err := tx.Finish(ctx, nil)
	must(t, err)
	return tid
}

// wantCurrent checks what a load of the current revision gives.
func wantCurrent(t testing.TB, s zeolite.Storage, oid zeolite.OID, tid zeolite.TID, data string) {
	t.Helper()
	rev, err := s.LoadBefore(t.Context(), oid, zeolite.MaxTID)
	if err != nil || rev.TID != tid || string(rev.Data) != data || rev.End != 0 {
		t.Errorf("current revision of %v: %q, %v, end %v, %v; want %q, %v", oid, rev.Data, rev.TID, rev.End, err, data, tid)
	}
}

// waitTID waits until a storage shows a transaction.
func waitTID(t testing.TB, s *Storage, tid zeolite.TID) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for s.LastTID() < tid {
		if time.Now().After(deadline) {
			t.Fatalf("LastTID is %v, want %v", s.LastTID(), tid)
		}
		time.Sleep(100 * time.Microsecond)
	}
}
