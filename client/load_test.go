package client

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
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
