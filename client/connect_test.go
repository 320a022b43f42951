package client

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/tests/faults"
)

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{},
		{Addresses: []string{"localhost"}},
		{Addresses: []string{"localhost:1", "x"}},
		{Addresses: []string{"localhost:1"}, ReadOnly: true, ReadOnlyFallback: true},
		{Addresses: []string{"localhost:1"}, BlobCacheSizeCheck: 100},
	} {
		if s, err := Open(t.Context(), o); err == nil {
			s.Close()
			t.Errorf("Open(%+v) succeeded", o)
		}
	}
}

// The first server that answers is used, whatever the others do.
func TestSeveralAddresses(t *testing.T) {
	noLeaks(t)
	mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	must(t, err)
	defer mute.Close()
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	s := open(t, testOptions(t, mute.Addr().String(), "127.0.0.1:1", "/nonexistent/socket", srv.addr))
	put(t, s, 1, 0, "x")
	must(t, s.Close())
}

func TestWaitTimeout(t *testing.T) {
	noLeaks(t)
	o := testOptions(t, "127.0.0.1:1")
	o.WaitTimeout = 10 * time.Millisecond
	_, err := Open(t.Context(), o)
	if !SafeToRepeat(err) {
		t.Errorf("Open without a server: got error %v, want a *DisconnectedError that is safe to repeat", err)
	}
	o.NoWait = true
	s := open(t, o)
	if _, err = s.LoadBefore(t.Context(), 1, 1); !SafeToRepeat(err) {
		t.Errorf("LoadBefore: got error %v", err)
	}
	s.opt.WaitTimeout = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := s.LoadBefore(ctx, 1, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("LoadBefore: got error %v, want context.Canceled", err)
	}
	must(t, s.Close())
	if _, err := s.LoadBefore(t.Context(), 1, 1); !errors.Is(err, zeolite.ErrClosed) {
		t.Errorf("LoadBefore: got error %v, want ErrClosed", err)
	}
	if err := s.CatchUp(t.Context()); !errors.Is(err, zeolite.ErrClosed) {
		t.Errorf("CatchUp: got error %v, want ErrClosed", err)
	}
}

func TestUnknownStorage(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	o := testOptions(t, srv.addr)
	o.Storage, o.WaitTimeout = "other", time.Second
	_, err := Open(t.Context(), o)
	if err == nil {
		t.Fatal("Open of an unknown storage succeeded")
	}
	t.Log(err)
}

// A client goes on after its server was away, and its loads wait meanwhile.
func TestReconnect(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	s := open(t, testOptions(t, srv.addr))
	first := put(t, s, 1, 0, "first")
	for range 3 {
		srv.stop()
		loaded := make(chan error, 1)
		go func() {
			_, err := s.LoadSerial(t.Context(), 2, first) // not in the cache
			loaded <- err
		}()
		srv.start()
		if err := <-loaded; !isAbsent(err) {
			t.Fatalf("LoadSerial while the server was away: %v", err)
		}
		wantCurrent(t, s, 1, first, "first")
	}
	put(t, s, 1, first, "second")
}

// A transaction that was begun before a disconnection commits after it.
func TestTransactionOutlivesConnection(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	s := open(t, testOptions(t, srv.addr))
	tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	must(t, err)
	must(t, tx.Store(t.Context(), 1, 0, []byte("x")))
	srv.stop()
	srv.start()
	must(t, tx.Vote(t.Context()))
	tid, err := tx.Finish(t.Context(), nil)
	must(t, err)
	wantCurrent(t, s, 1, tid, "x")

	tx, err = s.Begin(t.Context(), zeolite.TxnMeta{})
	must(t, err)
	must(t, tx.Store(t.Context(), 1, tid, []byte("y")))
	must(t, tx.Vote(t.Context()))
	srv.stop()
	srv.start()
	_, err = tx.Finish(t.Context(), nil)
	if errors.Is(err, zeolite.ErrInDoubt) { // the loss was not noticed yet
		if tid, err := s.Outcome(t.Context(), err); tid != 0 || err != nil {
			t.Errorf("Outcome: %v, %v; want none", tid, err)
		}
	} else if !SafeToRepeat(err) {
		t.Errorf("Finish after the connection was lost: got error %v", err)
	}
	wantCurrent(t, s, 1, tid, "x")
}

func TestReadOnly(t *testing.T) {
	noLeaks(t)
	back := newMemory(t)
	srv := serve(t, back, server.Options{ReadOnly: true}, "tcp")
	o := testOptions(t, srv.addr)
	o.WaitTimeout = time.Second
	if _, err := Open(t.Context(), o); !errors.Is(err, zeolite.ErrReadOnly) {
		t.Errorf("Open for writing: got error %v, want ErrReadOnly", err)
	}
	o = testOptions(t, srv.addr)
	o.ReadOnly = true
	s := open(t, o)
	if _, err := s.Begin(t.Context(), zeolite.TxnMeta{}); !errors.Is(err, zeolite.ErrReadOnly) {
		t.Errorf("Begin: got error %v, want ErrReadOnly", err)
	}
	if _, err := s.NewOIDs(t.Context(), 1); !errors.Is(err, zeolite.ErrReadOnly) {
		t.Errorf("NewOIDs: got error %v, want ErrReadOnly", err)
	}
}

// With read-only fallback the client moves to a writable server when there is
// one, and back.
func TestReadOnlyFallback(t *testing.T) {
	noLeaks(t)
	back := newMemory(t)
	writable := serve(t, back, server.Options{}, "tcp")
	writable.stop()
	readOnly := serve(t, back, server.Options{ReadOnly: true}, "tcp")
	o := testOptions(t, readOnly.addr, writable.addr)
	o.ReadOnlyFallback = true
	s := open(t, o)
	for range 2 {
		until(t, "the read-only server is used", func() bool { return s.Info().ReadOnly })
		if _, err := s.Begin(t.Context(), zeolite.TxnMeta{}); !errors.Is(err, zeolite.ErrReadOnly) {
			t.Errorf("Begin: got error %v, want ErrReadOnly", err)
		}
		writable.start()
		until(t, "the writable server is used", func() bool { return !s.Info().ReadOnly })
		put(t, s, 1, mustTID(s.CurrentTID(t.Context(), 1)), "x")
		readOnly.stop() // each server knows its own commits only
		readOnly.start()
		writable.stop()
	}
}

func mustTID(tid zeolite.TID, err error) zeolite.TID {
	if err != nil && !isAbsent(err) {
		panic(err)
	}
	return tid
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// A server that stops answering without closing is left.
func TestHeartbeat(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	var stuck atomic.Bool
	var dials atomic.Int64
	o := testOptions(t, srv.addr)
	o.Heartbeat = 20 * time.Millisecond
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if dials.Add(1) == 1 && err == nil {
			c = &stuckConn{Conn: c, stuck: &stuck}
		}
		return c, err
	}
	s := open(t, o)
	tid := put(t, s, 1, 0, "x")
	stuck.Store(true)
	// The read that waits on the dead connection is repeated on the next.
	_, err := s.LoadSerial(t.Context(), 2, tid)
	if !isAbsent(err) {
		t.Errorf("LoadSerial: %v", err)
	}
	if n := dials.Load(); n < 2 {
		t.Errorf("%d connections were made", n)
	}
}

// stuckConn swallows what is written while stuck is set.
type stuckConn struct {
	net.Conn
	stuck *atomic.Bool
}

func (c *stuckConn) Write(p []byte) (int, error) {
	if c.stuck.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// A connection that is alive stays, however quiet.
func TestHeartbeatQuiet(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	proxy, err := faults.NewProxy(srv.addr)
	must(t, err)
	defer proxy.Close()
	o := testOptions(t, proxy.Addr().String())
	o.Heartbeat = 500 * time.Millisecond // a busy machine must answer in this time
	s := open(t, o)
	until(t, "pings", func() bool { return proxy.Counts(faults.ClientToServer)["ping"] > 2 })
	must(t, s.Close())
	if n := proxy.Counts(faults.ClientToServer)["register"]; n != 1 {
		t.Errorf("the client connected %d times", n)
	}
}

// A server with less than the client knows is refused, until it has caught up.
func TestServerBehind(t *testing.T) {
	noLeaks(t)
	full, empty := newMemory(t), newMemory(t)
	srv := serve(t, full, server.Options{}, "tcp")
	s := open(t, testOptions(t, srv.addr))
	tid := put(t, s, 1, 0, "x")
	srv.stop()
	srv.storage = empty
	srv.start()
	s.opt.WaitTimeout = time.Second
	_, err := s.LoadSerial(t.Context(), 2, tid)
	var behind *errBehind
	if !errors.As(err, &behind) || behind.cache != tid {
		t.Errorf("LoadSerial from a server that is behind: got error %v", err)
	}
	srv.stop()
	srv.storage = full
	srv.start()
	s.opt.WaitTimeout = 20 * time.Second
	wantCurrent(t, s, 1, tid, "x")
}

// Sync shows what others have committed.
func TestSync(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	a, b := open(t, testOptions(t, srv.addr)), open(t, testOptions(t, srv.addr))
	var serial zeolite.TID
	for range 50 {
		serial = put(t, a, 1, serial, "x")
		must(t, b.Sync(t.Context()))
		if b.LastTID() != serial {
			t.Fatalf("LastTID after Sync: %v, want %v", b.LastTID(), serial)
		}
	}
}

// What a server has, and can do, is not known before the first connection: whoever
// asks for it waits, and if somebody watches, until it is visible.
func TestBeforeConnection(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	o := testOptions(t, srv.addr)
	o.BlobDir = filepath.Join(t.TempDir(), "blobs")
	tid := putBlob(t, open(t, o), 1, 0, []byte("blob"))
	o.NoWait = true
	for name, ask := range map[string]func(s *Storage) error{
		"UndoLog": func(s *Storage) error {
			for info, err := range s.UndoLog(t.Context()) {
				if err == nil && info.TID != tid {
					t.Errorf("UndoLog has %v first, want %v", info.TID, tid)
				}
				return err
			}
			return errors.New("UndoLog is empty")
		},
		"Undo": func(s *Storage) error {
			tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
			must(t, err)
			defer tx.Abort()
			_, err = tx.Undo(t.Context(), tid)
			return err
		},
		"LoadBefore": func(s *Storage) error {
			_, err := s.LoadBefore(t.Context(), 1, zeolite.MaxTID)
			return err
		},
		"History": func(s *Storage) error {
			_, err := s.History(t.Context(), 1, 1)
			return err
		},
		"LoadSerial": func(s *Storage) error {
			_, err := s.LoadSerial(t.Context(), 1, tid)
			return err
		},
		"OpenBlob": func(s *Storage) error {
			b, err := s.OpenBlob(t.Context(), 1, tid)
			if err == nil {
				err = b.Close()
			}
			return err
		},
		"Transactions": func(s *Storage) error {
			for _, err := range s.Transactions(t.Context(), 0, zeolite.MaxTID) {
				return err
			}
			return errors.New("there are none")
		},
		"Changes": func(s *Storage) error {
			for _, err := range s.Changes(t.Context(), 0) {
				return err
			}
			return errors.New("there are none")
		},
		"Prefetch": func(s *Storage) error {
			err := s.Prefetch(t.Context(), []zeolite.OID{1}, zeolite.MaxTID)
			if _, ok := s.cache.get(1, tid+1); !ok && err == nil {
				err = errors.New("nothing is cached")
			}
			return err
		},
	} {
		connect := make(chan struct{})
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			<-connect
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
		s := open(t, o)
		show := make(chan struct{})
		s.Watch(func(_ zeolite.TID, _ []zeolite.OID, visible func()) {
			<-show
			visible()
		}, nil)
		failed := make(chan error, 1)
		go func() { failed <- ask(s) }()
		for _, step := range []struct {
			in   string
			next chan struct{}
		}{{"connection", connect}, {"shown", show}} {
			until(t, "it waits, or has failed", func() bool {
				return len(failed) > 0 ||
					inSelect(func(stack string) bool { return strings.Contains(stack, "client.(*Storage)."+step.in+"(") }) > 0
			})
			close(step.next)
		}
		if err := <-failed; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Many loads are one burst, and loads of the same object are one.
func TestPrefetch(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	writer := open(t, testOptions(t, srv.addr))
	const n = 300
	tx, err := writer.Begin(t.Context(), zeolite.TxnMeta{})
	must(t, err)
	oids := make([]zeolite.OID, n)
	for i := range oids {
		oids[i] = zeolite.OID(i)
		must(t, tx.Store(t.Context(), oids[i], 0, []byte("x")))
	}
	must(t, tx.Vote(t.Context()))
	tid, err := tx.Finish(t.Context(), nil)
	must(t, err)

	gate := newGate(srv.addr)
	proxy, err := faults.NewProxy(gate.start(t))
	must(t, err)
	defer proxy.Close()
	s := open(t, testOptions(t, proxy.Addr().String()))
	gate.shut()
	open := sync.OnceFunc(gate.open)
	defer open()
	done := make(chan error, 2)
	go func() { done <- s.Prefetch(t.Context(), append(oids, 1_000_000), zeolite.MaxTID) }()
	go func() { done <- s.Prefetch(t.Context(), oids, zeolite.MaxTID) }()
	// No answer comes, and all the same every question is asked.
	// (one by one, or by the method that zeolite has for it).
	until(t, "all loads are on their way", func() bool {
		c := proxy.Counts(faults.ClientToServer)
		return c["loadBefore"] == n+1 || c["loadMany"] == 2
	})
	open()
	must(t, errors.Join(<-done, <-done))
	proxy.Reset()
	for _, oid := range oids {
		wantCurrent(t, s, oid, tid, "x")
	}
	if c := proxy.Counts(faults.ClientToServer); len(c) != 0 {
		t.Errorf("after Prefetch the client asked for %v", c)
	}
}

// gate forwards connections, and can hold up what the server sends.
type gate struct {
	target string
	closed sync.Mutex // held while the gate is shut
}

func newGate(target string) *gate { return &gate{target: target} }

func (g *gate) shut() { g.closed.Lock() }
func (g *gate) open() { g.closed.Unlock() }

func (g *gate) start(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", g.target)
			if err != nil {
				c.Close()
				continue
			}
			end := func() { c.Close(); s.Close() }
			all.Go(func() { defer end(); io.Copy(s, c) })
			all.Go(func() {
				defer end()
				buf := make([]byte, 1<<10)
				for {
					n, err := s.Read(buf)
					g.closed.Lock()
					_, werr := c.Write(buf[:n])
					g.closed.Unlock()
					if err != nil || werr != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}
