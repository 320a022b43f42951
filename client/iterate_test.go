package client

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/tests/faults"
)

// Whoever gives up an iteration leaves no iterator open at the server, which has
// a limit for them: whichever call was under way.
func TestIterationGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		iterate func(ctx context.Context, s *Storage) error
		freed   int
	}{
		"iterator_start":        {iterate, 1},
		"iterator_next":         {iterate, 1},
		"iterator_record_start": {startRecords, 1},
		"iterator_record_next":  {iterate, 2},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			srv := serve(t, newMemory(t), server.Options{}, "tcp")
			put(t, open(t, testOptions(t, srv.addr)), 1, 0, "x")
			g := newGate(srv.addr)
			proxy, err := faults.NewProxy(g.start(t))
			must(t, err)
			defer proxy.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			giveUp := sync.OnceFunc(func() {
				g.shut() // the answer comes later
				cancel()
			})
			o := testOptions(t, proxy.Addr().String())
			o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := (&net.Dialer{}).DialContext(ctx, network, address)
				return &onCall{Conn: c, name: name, do: giveUp}, err
			}
			s := open(t, o)
			err = c.iterate(ctx, s)
			g.open()
			if !errors.Is(err, context.Canceled) {
				t.Errorf("iteration: got error %v, want context.Canceled", err)
			}
			until(t, "all iterators are freed", func() bool {
				return proxy.Counts(faults.ClientToServer)["iterator_gc"] == c.freed
			})
		})
	}
}

// iterate reads all transactions and their records.
func iterate(ctx context.Context, s *Storage) error {
	for txn, err := range s.Transactions(ctx, 0, zeolite.MaxTID) {
		if err != nil {
			return err
		}
		for _, err := range txn.Records {
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// startRecords opens an iterator over the records of the first transaction. That
// over the transactions stays open: without it the other may not come to be.
func startRecords(ctx context.Context, s *Storage) error {
	l, err := s.connection(ctx)
	if err != nil {
		return err
	}
	w, err := l.walk(ctx, 0, zeolite.MaxTID)
	if err != nil {
		return err
	}
	entry, err := w.next(ctx)
	if err != nil {
		return err
	}
	_, _, err = w.records(ctx, entry.TID)
	return err
}

// What opens iterators while the storage is closed may be what has to end the
// connection: it must not wait for a server that does not answer.
func TestIteratorAfterClose(t *testing.T) {
	s := open(t, testOptions(t, serve(t, newMemory(t), server.Options{}, "tcp").addr))
	must(t, s.Close())
	l := &link{s: s}
	_, err := l.iterator(t.Context(), func(ctx context.Context) (int64, error) {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(20 * time.Second):
			return 0, nil
		}
	})
	if !errors.Is(err, zeolite.ErrClosed) {
		t.Errorf("iterator: got error %v", err)
	}
}
