package server

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// unlucky is a storage whose loads are all overtaken, until they hold up
// publishing; then they take their time.
type unlucky struct {
	watched
	publisher *publisher
	holding   chan struct{} // gets a value from each load that holds up publishing
	gate      chan struct{} // which they wait for

	mu    sync.Mutex
	loads map[zeolite.OID]int
}

func (u *unlucky) LoadBefore(ctx context.Context, oid zeolite.OID, before zeolite.TID) (zeolite.Revision, error) {
	u.mu.Lock()
	u.loads[oid]++
	overtaken := u.loads[oid] <= optimisticLoads
	u.mu.Unlock()
	if overtaken {
		u.publisher.epoch.Add(2)
	} else {
		u.holding <- struct{}{}
		<-u.gate
	}
	return u.watched.LoadBefore(ctx, oid, before)
}

// TestLoadsThatHoldUpPublishing hold up nothing else, each other least of all.
func TestLoadsThatHoldUpPublishing(t *testing.T) {
	ctx := context.Background()
	u := &unlucky{
		watched: watched{Storage: newMemory(t)}, loads: map[zeolite.OID]int{},
		holding: make(chan struct{}, 2), gate: make(chan struct{}),
	}
	open := sync.OnceFunc(func() { close(u.gate) })
	s := startServer(t, u, Options{})
	t.Cleanup(open)
	u.publisher = &s.exports["1"].publisher
	p := s.connect(t, zrpc.Msgpack)
	first := p.commit(1, 0, record("one"))
	second := p.commit(2, 0, record("two"))
	one, two := p.begin("loadBefore", zeolite.OID(1), zeolite.MaxTID), p.begin("loadBefore", zeolite.OID(2), zeolite.MaxTID)
	for range 2 {
		select {
		case <-u.holding:
		case <-time.After(patience):
			t.Fatal("one load waits for the other")
		}
	}
	published := make(chan struct{})
	next := second + 1
	go func() {
		defer close(published)
		u.publish(next, []zeolite.OID{1}, func() {})
	}()
	eventually(t, "the next transaction is to be published", func() bool {
		ok := u.publisher.order.TryRLock()
		if ok {
			u.publisher.order.RUnlock()
		}
		return !ok
	})
	if last, err := connectStubs(t, s.addr).LastTransaction(ctx); err != nil || last != second {
		t.Errorf("lastTransaction: %v, %v, want %v", last, err, second)
	}
	if n := s.Stats().Storages[0].Clients; n != 2 {
		t.Errorf("%d clients, want 2", n)
	}
	open()
	<-published
	// Both called revisions current: they are in front of the invalidation.
	for range 2 {
		m := p.receive()
		three, ok := m.value.(zrpc.Tuple)
		if !ok || m.id != one && m.id != two || three[2] != nil || tidOf(t, three[1]) > second || tidOf(t, three[1]) < first {
			t.Errorf("received %v, want the reply to a load", m)
		}
	}
	p.nextIs("invalidateTransaction")
}
