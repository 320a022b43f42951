package server

import (
	"context"
	"slices"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// busy is a storage in which something is published during each load, unless
// that holds up publishing. It counts the loads, and those that do.
type busy struct {
	zeolite.Storage
	publisher   *publisher
	loads, held int
}

func (b *busy) LoadBefore(ctx context.Context, oid zeolite.OID, before zeolite.TID) (zeolite.Revision, error) {
	b.loads++
	if b.publisher.order.TryLock() {
		b.publisher.epoch.Add(2)
		b.publisher.order.Unlock()
	} else {
		b.held++
	}
	return b.Storage.LoadBefore(ctx, oid, before)
}

// TestLoadManyHoldsUpPublishingForOneLoad asks for many objects while others
// commit all the time: the reply is short, but there is one.
func TestLoadManyHoldsUpPublishingForOneLoad(t *testing.T) {
	ctx := context.Background()
	storage := &busy{Storage: newMemory(t)}
	s := startServer(t, storage, Options{})
	storage.publisher = &s.exports["1"].publisher
	c := connectStubs(t, s.addr)
	oids := make([]zeolite.OID, 500)
	for len(oids) > 0 {
		got, err := c.LoadMany(ctx, oids, zeolite.MaxTID)
		if err != nil || len(got) != 1 {
			t.Fatalf("%d entries (%v), want one", len(got), err)
		}
		if storage.held != 1 || storage.loads > 2*len(oids)+optimisticLoads {
			t.Fatalf("%d loads held up publishing, of %d for %d objects", storage.held, storage.loads, len(oids))
		}
		storage.loads, storage.held = 0, 0
		oids = oids[:len(oids)/10]
	}
	if got, err := c.LoadMany(ctx, nil, zeolite.MaxTID); err != nil || len(got) != 0 {
		t.Errorf("LoadMany of nothing: %d entries, %v", len(got), err)
	}
}

// TestLoadManyOfTooMany asks for more than one reply has.
func TestLoadManyOfTooMany(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	c := connectStubs(t, s.addr)
	got, err := c.LoadMany(context.Background(), slices.Repeat([]zeolite.OID{1}, loadManyMost+1), zeolite.MaxTID)
	if err != nil || len(got) != loadManyMost {
		t.Errorf("%d entries (%v), want %d", len(got), err, loadManyMost)
	}
}
