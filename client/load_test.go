package client

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/tests/faults"
)

// loading counts the goroutines that are within Storage.load and wait.
func loading() int {
	return inSelect(func(stack string) bool { return strings.Contains(stack, "client.(*Storage).load(") })
}

// A load under way is shared by all who want the same, also without a cache;
// who gives up takes nobody else's answer along, even if it is the one who
// asked the server.
func TestLoadsAreShared(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	tid := put(t, open(t, testOptions(t, srv.addr)), 1, 0, "shared")
	gate := newGate(srv.addr)
	proxy, err := faults.NewProxy(gate.start(t))
	must(t, err)
	defer proxy.Close()
	o := testOptions(t, proxy.Addr().String())
	o.CacheSize = -1
	s := open(t, o)

	load := func(ctx context.Context) error {
		rev, err := s.LoadBefore(ctx, 1, zeolite.MaxTID)
		if err == nil && (rev.TID != tid || string(rev.Data) != "shared") {
			err = errors.New("it is another revision")
		}
		return err
	}
	for _, firstGivesUp := range []bool{false, true} {
		proxy.Reset()
		gate.shut()
		open := sync.OnceFunc(gate.open)
		defer open()
		ctx, giveUp := context.WithCancel(t.Context())
		defer giveUp()
		first := make(chan error, 1)
		go func() { first <- load(ctx) }()
		until(t, "the server is asked", func() bool { return proxy.Counts(faults.ClientToServer)["loadBefore"] == 1 })
		const n = 20
		others := make(chan error, n)
		for range n {
			go func() { others <- load(t.Context()) }()
		}
		until(t, "all wait", func() bool { return loading() == n+1 })
		want := 1
		if firstGivesUp {
			giveUp()
			if err := <-first; !errors.Is(err, context.Canceled) {
				t.Errorf("whoever gave up got error %v", err)
			}
			want = 2 // one of the others asks again
		}
		open()
		for range n {
			if err := <-others; err != nil {
				t.Error(err)
			}
		}
		if !firstGivesUp {
			must(t, <-first)
		}
		if got := proxy.Counts(faults.ClientToServer)["loadBefore"]; got != want {
			t.Errorf("the server was asked %d times, want %d", got, want)
		}
	}
}

// restarted is a storage that forgets which oids it has handed out when it is
// asked for the second time, as if its server had been restarted.
type restarted struct {
	*memory.Storage
	mu    sync.Mutex
	calls int
	next  zeolite.OID
	drop  func()
}

func (r *restarted) NewOIDs(_ context.Context, n int) ([]zeolite.OID, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calls++; r.calls == 2 {
		r.next = 0
		r.drop()
		return nil, errors.New("the server is gone")
	}
	var oids []zeolite.OID
	for range n {
		r.next++
		oids = append(oids, r.next)
	}
	return oids, nil
}

// No oid is twice among those of one call, although a server that was restarted
// meanwhile hands out the same ones.
func TestNewOIDsAcrossRestart(t *testing.T) {
	noLeaks(t)
	back := &restarted{Storage: newMemory(t)}
	srv := serve(t, back, server.Options{}, "tcp")
	proxy, err := faults.NewProxy(srv.addr)
	must(t, err)
	defer proxy.Close()
	back.drop = proxy.Drop
	s := open(t, testOptions(t, proxy.Addr().String()))
	oids, err := s.NewOIDs(t.Context(), 250)
	must(t, err)
	slices.Sort(oids)
	if n := len(slices.Compact(oids)); n != 250 {
		t.Errorf("%d oids are different, want 250", n)
	}
}
