package client

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/tests/faults"
)

// Watch tells of what others commit, once each and in order, across
// disconnections.
func TestWatch(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	proxy, err := faults.NewProxy(srv.addr)
	must(t, err)
	defer proxy.Close()
	writer := open(t, testOptions(t, srv.addr))
	watcher := open(t, testOptions(t, proxy.Addr().String()))
	var mu sync.Mutex
	var seen []zeolite.TID
	watcher.Watch(func(tid zeolite.TID, oids []zeolite.OID, visible func()) {
		if len(oids) != 1 || oids[0] != 1 {
			t.Errorf("%v changed %v", tid, oids)
		}
		// Whoever is told may load: what was before, until it is visible.
		if rev, err := watcher.LoadBefore(t.Context(), 1, zeolite.MaxTID); err == nil && rev.TID >= tid {
			t.Errorf("%v can be loaded before it is visible", rev.TID)
		}
		visible()
		if rev, err := watcher.LoadBefore(t.Context(), 1, tid+1); err != nil || rev.TID != tid {
			t.Errorf("after %v is visible: %v, %v", tid, rev.TID, err)
		}
		mu.Lock()
		seen = append(seen, tid)
		mu.Unlock()
	}, func() { t.Error("lost") })
	var want []zeolite.TID
	var serial zeolite.TID
	for i := range 60 {
		if i%15 == 14 {
			proxy.Drop()
		}
		serial = put(t, writer, 1, serial, "x")
		want = append(want, serial)
	}
	until(t, "all transactions are told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(seen) >= len(want)
	})
	must(t, watcher.Close())
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != len(want) {
		t.Fatalf("told of %d transactions, want %d", len(seen), len(want))
	}
	for i := range want {
		if seen[i] != want[i] {
			t.Fatalf("told of %v, want %v", seen[i], want[i])
		}
	}
}

// Whoever watches before the first connection is told where the server is: a
// server that serves the storage on would show an empty database else.
func TestWatchBeforeConnection(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	tid := put(t, open(t, testOptions(t, srv.addr)), 1, 0, "x")
	o := testOptions(t, srv.addr)
	o.NoWait = true
	watching := make(chan struct{})
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		<-watching
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	s := open(t, o)
	told := make(chan zeolite.TID, 1)
	s.Watch(func(tid zeolite.TID, _ []zeolite.OID, visible func()) {
		// It can ask, and is not kept waiting for what waits for it.
		if _, err := s.LoadSerial(t.Context(), 1, tid); !isAbsent(err) {
			t.Errorf("LoadSerial before it is visible: got error %v", err)
		}
		visible()
		told <- tid
	}, func() { t.Error("lost") })
	close(watching)
	waitTID(t, s, tid)
	must(t, s.Close()) // by now it was told, or never will be
	select {
	case got := <-told:
		if got != tid {
			t.Errorf("told of %v, want %v", got, tid)
		}
	default:
		t.Error("the watcher was not told")
	}
}

// Whoever comes to watch while a cache is verified is told of every transaction
// that is not visible yet.
func TestWatchDuringVerify(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	writer := open(t, testOptions(t, srv.addr))
	o := testOptions(t, srv.addr)
	o.CachePath = filepath.Join(t.TempDir(), "cache")
	serial := put(t, writer, 1, 0, "cached")
	must(t, open(t, o).Close())
	var want []zeolite.TID
	for range 3 {
		serial = put(t, writer, 1, serial, "x")
		want = append(want, serial)
	}
	o.NoWait = true
	var s *Storage
	opened := make(chan struct{})
	var seen []zeolite.TID
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		<-opened
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &onCall{Conn: c, name: "getInvalidations", do: func() {
			s.Watch(func(tid zeolite.TID, _ []zeolite.OID, visible func()) {
				visible()
				seen = append(seen, tid)
			}, func() { t.Error("lost") })
		}}, err
	}
	s = open(t, o)
	close(opened)
	must(t, s.Sync(t.Context())) // waits for the connection
	must(t, s.Close())
	if !slices.Equal(seen, want) {
		t.Errorf("told of %v, want %v", seen, want)
	}
}

// A loss is told behind what was committed before it and is still to be published,
// and directly before the transaction that ends it.
func TestLossInItsPlace(t *testing.T) {
	noLeaks(t)
	back := &oblivious{Storage: newMemory(t)}
	srv := serve(t, back, server.Options{}, "tcp")
	writer, watcher := open(t, testOptions(t, srv.addr)), open(t, testOptions(t, srv.addr))
	const loss = zeolite.ZeroTID
	var told []zeolite.TID
	gate := make(chan struct{})
	watcher.Watch(func(tid zeolite.TID, _ []zeolite.OID, visible func()) {
		<-gate
		told = append(told, tid)
		visible()
	}, func() { told = append(told, loss) })
	applied := func(tid zeolite.TID) {
		until(t, "the watcher has heard of a transaction", func() bool {
			watcher.cache.mu.Lock()
			defer watcher.cache.mu.Unlock()
			return watcher.cache.tid == tid
		})
	}
	first := put(t, writer, 1, 0, "one")
	second := put(t, writer, 1, first, "two")
	applied(second)
	srv.stop()
	back.forgot = true
	last := put(t, back, 1, second, "three")
	srv.start()
	applied(last)
	close(gate)
	waitTID(t, watcher, last)
	must(t, watcher.Close())
	if want := []zeolite.TID{first, second, loss, last}; !slices.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}
}

// Whoever is told of a conflict can load the revision that it is with, although
// that was still to be published when the server answered.
func TestConflictWithUnpublished(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	writer := open(t, testOptions(t, srv.addr))
	o := testOptions(t, srv.addr)
	var s *Storage
	o.Resolve = func(ctx context.Context, c Conflict) ([]byte, error) {
		theirs, err := s.LoadSerial(ctx, c.OID, c.Committed)
		return append(theirs, c.Data...), err
	}
	s = open(t, o)
	first := put(t, writer, 1, 0, "one")
	waitTID(t, s, first)
	publishing, gate := make(chan struct{}), make(chan struct{})
	s.Watch(func(_ zeolite.TID, _ []zeolite.OID, visible func()) {
		close(publishing)
		<-gate
		visible()
	}, func() { t.Error("lost") })
	put(t, writer, 1, first, "theirs, ")
	<-publishing
	tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	must(t, err)
	defer tx.Abort()
	must(t, tx.Store(t.Context(), 1, first, []byte("mine")))
	voted := make(chan error, 1)
	go func() { voted <- tx.Vote(t.Context()) }()
	until(t, "the vote is over, or waits for what is to be published", func() bool {
		s.pub.mu.Lock()
		defer s.pub.mu.Unlock()
		return len(voted) > 0 || len(s.pub.queue) > 0
	})
	close(gate)
	must(t, <-voted)
	tid, err := tx.Finish(t.Context(), func(_ zeolite.TID, _ []zeolite.OID, visible func()) { visible() })
	must(t, err)
	wantCurrent(t, s, 1, tid, "theirs, mine")
}

// The history is that of the revisions up to LastTID, and as long as asked for,
// although the server has later ones that are still to be published. Whoever is
// told of those can ask for it, too.
func TestHistoryWithUnpublished(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	writer, s := open(t, testOptions(t, srv.addr)), open(t, testOptions(t, srv.addr))
	history := func(oid zeolite.OID, n int) (tids []zeolite.TID) {
		infos, err := s.History(t.Context(), oid, n)
		var absent *zeolite.NotFoundError
		if len(infos) == 0 && !errors.As(err, &absent) || len(infos) > 0 && err != nil {
			t.Errorf("History of %v: %v, %v", oid, infos, err)
		}
		for _, info := range infos {
			tids = append(tids, info.TID)
		}
		return tids
	}
	first := put(t, writer, 1, 0, "one")
	second := put(t, writer, 1, first, "two")
	waitTID(t, s, second)
	publishing, gate := make(chan []zeolite.TID, 3), make(chan struct{})
	s.Watch(func(_ zeolite.TID, _ []zeolite.OID, visible func()) {
		publishing <- history(1, 1)
		<-gate
		visible()
	}, func() { t.Error("lost") })
	third := put(t, writer, 1, second, "three")
	put(t, writer, 2, 0, "new")
	last := put(t, writer, 1, third, "four")
	if got := <-publishing; !slices.Equal(got, []zeolite.TID{second}) {
		t.Errorf("whoever was told of %v finds %v", third, got)
	}
	until(t, "all was told", func() bool {
		s.cache.mu.Lock()
		defer s.cache.mu.Unlock()
		return s.cache.tid == last
	})
	for n, want := range map[int][]zeolite.TID{1: {second}, 2: {second, first}, 3: {second, first}} {
		if !slices.Equal(history(1, n), want) {
			t.Errorf("History of %d revisions: %v, want %v", n, history(1, n), want)
		}
	}
	if got := history(2, 1); got != nil {
		t.Errorf("an object that is still to be published has the history %v", got)
	}
	close(gate)
	waitTID(t, s, last)
	if got := history(1, 3); !slices.Equal(got, []zeolite.TID{last, third, second}) {
		t.Errorf("History when all is published: %v", got)
	}
}

// oblivious is a storage that cannot tell what was committed.
type oblivious struct {
	*memory.Storage
	forgot bool
}

func (o *oblivious) Transactions(ctx context.Context, start, stop zeolite.TID) iter.Seq2[*zeolite.TransactionRecord, error] {
	if o.forgot {
		return func(yield func(*zeolite.TransactionRecord, error) bool) { yield(nil, zeolite.ErrUnsupported) }
	}
	return o.Storage.Transactions(ctx, start, stop)
}

// Closing while transactions are replayed does not mean that they are unknown.
func TestReplayClosed(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	s := open(t, testOptions(t, srv.addr))
	tid := put(t, s, 1, 0, "cached")
	s.Watch(func(tid zeolite.TID, _ []zeolite.OID, _ func()) { t.Errorf("told of %v", tid) }, func() { t.Error("lost") })
	l, err := s.connection(t.Context())
	must(t, err)
	closed, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.replay(closed, l, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("replay: got error %v", err)
	}
	if _, ok := s.cache.get(1, tid+1); !ok {
		t.Error("the cache is empty")
	}
}

// onCall is a connection that does something before a call is sent.
type onCall struct {
	net.Conn
	name string
	do   func()
}

func (c *onCall) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(c.name)) {
		c.do()
	}
	return c.Conn.Write(p)
}
