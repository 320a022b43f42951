package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/tests/faults"
	"github.com/zeolite-go/zeolite/tests/peers"
	"github.com/zeolite-go/zeolite/zrpc"
)

// Several clients commit at random, through connections that break at random,
// with caches that are too small or that survive in files, while others read.
// What they read is checked against the server's history: it must be what was
// current at the moment asked for, for every moment up to LastTID; LastTID
// never goes back, and covers what this client has committed.
func TestNoStaleValue(t *testing.T) {
	for _, enc := range encodings {
		t.Run(enc.String(), func(t *testing.T) {
			noLeaks(t)
			back := newMemory(t)
			srv := serve(t, back, server.Options{Encoding: enc}, "tcp")
			p := property{t: t, objects: 12, addr: srv.addr}
			p.run(back)
		})
	}
}

// The same over Python's server, but without deletions, of which it does not
// tell other clients.
func TestNoStaleValuePython(t *testing.T) {
	for _, enc := range encodings {
		t.Run(enc.String(), func(t *testing.T) {
			noLeaks(t)
			srv := peers.Start(t, peers.RunZEO, peers.Options{Msgpack: enc == zrpc.Msgpack, ClientConflictResolution: true})
			p := property{t: t, objects: 12, addr: srv.Address(), noDeletions: true}
			p.run(open(t, testOptions(t, srv.Address())))
		})
	}
}

// property is one run of the random test.
type property struct {
	t       *testing.T
	objects int
	addr    string
	// noDeletions leaves deletions out.
	noDeletions bool

	mu    sync.Mutex
	reads []seenRead
	stop  atomic.Bool
}

// seenRead is a load as it was answered.
type seenRead struct {
	who    int
	oid    zeolite.OID
	before zeolite.TID
	rev    zeolite.Revision
	absent bool
}

func (p *property) run(back zeolite.Storage) {
	const clients = 4
	commits := 60
	if testing.Short() {
		commits = 20
	}
	var all, writing sync.WaitGroup
	for who := range clients {
		proxy, err := faults.NewProxy(p.addr)
		must(p.t, err)
		defer proxy.Close()
		o := testOptions(p.t, proxy.Addr().String())
		switch who {
		case 0:
			o.CacheSize = 3 * (entryOverhead + 50)
		case 1:
			o.CacheSize = -1
		case 2:
			o.CachePath = filepath.Join(p.t.TempDir(), "cache")
		}
		s := open(p.t, o)
		if who == 3 {
			s.Watch(func(_ zeolite.TID, _ []zeolite.OID, visible func()) { visible() }, func() { p.t.Error("lost") })
		}
		rnd := rand.New(rand.NewPCG(1, uint64(who)))
		writing.Go(func() { p.write(s, rnd, who, commits) })
		for reader := range 2 {
			rnd := rand.New(rand.NewPCG(2, uint64(who*10+reader)))
			all.Go(func() { p.read(s, rnd, who) })
		}
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(3, uint64(who)))
			for last := s.LastTID(); !p.stop.Load(); last = s.LastTID() {
				_ = s.Sync(p.t.Context()) // paces this loop
				if s.LastTID() != last && rnd.IntN(15) == 0 {
					proxy.Drop()
				}
			}
		})
	}
	writing.Wait()
	p.stop.Store(true)
	all.Wait()
	p.check(back)
}

// write commits, and resolves doubts and conflicts by going on.
func (p *property) write(s *Storage, rnd *rand.Rand, who, commits int) {
	ctx := p.t.Context()
	gone := map[zeolite.OID]zeolite.TID{} // when objects were deleted
	for n := 0; n < commits; {
		tx, err := s.Begin(ctx, zeolite.TxnMeta{Description: fmt.Appendf(nil, "%d.%d", who, n)})
		if err != nil {
			p.t.Errorf("Begin: %v", err)
			return
		}
		for range 1 + rnd.IntN(3) {
			oid := zeolite.OID(rnd.IntN(p.objects))
			rev, err := s.LoadBefore(ctx, oid, zeolite.MaxTID)
			if err != nil && !isAbsent(err) {
				continue // disconnected
			}
			data := binary.BigEndian.AppendUint64([]byte("state "), rnd.Uint64())
			if rnd.IntN(10) == 0 && rev.TID != 0 && !p.noDeletions {
				err = tx.Delete(ctx, oid, rev.TID)
			} else {
				if err != nil {
					rev.TID = gone[oid]
				}
				err = tx.Store(ctx, oid, rev.TID, data)
			}
			must(p.t, err)
		}
		err = tx.Vote(ctx)
		if err == nil {
			var tid zeolite.TID
			tid, err = tx.Finish(ctx, nil)
			if errors.Is(err, zeolite.ErrInDoubt) {
				doubt := err
				for tid, err = s.Outcome(ctx, doubt); SafeToRepeat(err); {
					tid, err = s.Outcome(ctx, doubt)
				}
			}
			if last := s.LastTID(); err == nil && last < tid {
				p.t.Errorf("LastTID is %v after %v was committed", last, tid)
			}
			n++
		}
		tx.Abort()
		var conflict *zeolite.ConflictError
		if errors.As(err, &conflict) {
			gone[conflict.OID] = conflict.Committed
		}
		if err != nil && !SafeToRepeat(err) && !errors.As(err, &conflict) && !isAbsent(err) {
			p.t.Errorf("commit: %v", err)
			return
		}
	}
}

func (p *property) read(s *Storage, rnd *rand.Rand, who int) {
	ctx := context.Background()
	var last zeolite.TID
	for !p.stop.Load() {
		now := s.LastTID()
		if now < last {
			p.t.Errorf("LastTID went back from %v to %v", last, now)
		}
		last = now
		before := now + 1
		if now != 0 && rnd.IntN(4) == 0 {
			before -= zeolite.TID(rnd.Uint64N(uint64(100e6))) // up to half a second ago or so
		}
		for range 4 {
			oid := zeolite.OID(rnd.IntN(p.objects))
			rev, err := s.LoadBefore(ctx, oid, before)
			if err != nil && !isAbsent(err) {
				continue
			}
			p.mu.Lock()
			p.reads = append(p.reads, seenRead{who, oid, before, rev, err != nil})
			p.mu.Unlock()
		}
	}
}

// check compares all reads with what the server has in the end.
func (p *property) check(back zeolite.Storage) {
	wrong := 0
	for _, r := range p.reads {
		want, err := back.LoadBefore(p.t.Context(), r.oid, r.before)
		switch {
		case err != nil && isAbsent(err):
			if r.absent {
				continue
			}
		case err != nil:
			p.t.Fatal(err)
		case !r.absent && want.TID == r.rev.TID && string(want.Data) == string(r.rev.Data) &&
			(r.rev.End == 0 || r.rev.End == want.End):
			continue
		}
		wrong++
		if wrong < 10 {
			p.t.Errorf("client %d read %v before %v: got %v to %v (absent %t), want %v to %v (%v)",
				r.who, r.oid, r.before, r.rev.TID, r.rev.End, r.absent, want.TID, want.End, err)
		}
	}
	p.t.Logf("%d reads, %d wrong", len(p.reads), wrong)
}
