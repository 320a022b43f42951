package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/zeolite-go/zeolite"
)

var concurrentTests = []test{
	{"VotedTogether", testVotedTogether},
	{"WritersAndReaders", testWritersAndReaders},
	{"NewOIDs", testConcurrentNewOIDs},
}

// Transactions on different objects can be voted at the same time and finish
// in any order; the TID tells the order of Finish.
func testVotedTogether(e *env) {
	e.need("concurrent transactions", e.h.ConcurrentTxns)
	oids := e.oids(4)
	txns := make([]zeolite.Txn, len(oids))
	for i, oid := range oids {
		txns[i] = e.begin(zeolite.TxnMeta{Description: []byte(oid.String())})
		e.must(txns[i].Store(e.ctx, oid, 0, Record(oid.String())))
	}
	for _, tx := range txns {
		e.must(tx.Vote(e.ctx))
	}
	txns[1].Abort()
	var last zeolite.TID
	tids := map[zeolite.OID]zeolite.TID{}
	for _, i := range []int{3, 0, 2} {
		tid, err := txns[i].Finish(e.ctx, nil)
		e.must(err)
		if tid <= last {
			e.Errorf("transaction %v was finished after %v", tid, last)
		}
		last = tid
		tids[oids[i]] = tid
	}
	e.wantGone(oids[1])
	for oid, tid := range tids {
		e.wantCurrent(oid, Record(oid.String()), tid)
	}
	e.wantTIDs([]zeolite.TID{tids[oids[3]], tids[oids[0]], tids[oids[2]]})
	for t, err := range e.s.Transactions(e.ctx, last, last) {
		e.must(err)
		if string(t.Description) != oids[2].String() {
			e.Errorf("transaction %v has description %q", last, t.Description)
		}
	}
}

// pair is the two objects of a writer, who gives both the same payload, so that
// they are equal in every state of the database.
type pair [2]zeolite.OID

func testWritersAndReaders(e *env) {
	const writers, commits = 8, 20
	oids := e.oids(2 * writers)
	pairs := make([]pair, writers)
	first := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		for i := range pairs {
			pairs[i] = pair{oids[2*i], oids[2*i+1]}
			for _, oid := range pairs[i] {
				if err := tx.Store(e.ctx, oid, 0, Record("0")); err != nil {
					return err
				}
			}
		}
		return nil
	})

	var (
		mu        sync.Mutex // guards what follows
		published []zeolite.TID
		finished  []zeolite.TID
		alone     sync.Mutex // held by the one open transaction, if there can be only one
		writing   sync.WaitGroup
		reading   sync.WaitGroup
		done      = make(chan struct{})
	)
	write := func(p pair, seq int, serial zeolite.TID) (zeolite.TID, error) {
		if !e.h.ConcurrentTxns {
			alone.Lock()
			defer alone.Unlock()
		}
		tx, err := votePair(e.ctx, e.s, p, serial, Record(fmt.Sprint(seq)))
		if err != nil {
			return 0, err
		}
		if seq%7 == 3 { // now and then give up and do it again
			tx.Abort()
			if tx, err = votePair(e.ctx, e.s, p, serial, Record(fmt.Sprint(seq))); err != nil {
				return 0, err
			}
		}
		tid, err := tx.Finish(e.ctx, func(tid zeolite.TID, oids []zeolite.OID, visible func()) {
			wantSet(e, "published objects", oids, p[:])
			mu.Lock()
			published = append(published, tid)
			mu.Unlock()
			visible()
		})
		if err != nil {
			return 0, err
		}
		if last := e.s.LastTID(); last < tid {
			return 0, fmt.Errorf("LastTID is %v after Finish returned %v", last, tid)
		}
		mu.Lock()
		finished = append(finished, tid)
		mu.Unlock()
		return tid, nil
	}
	for _, p := range pairs {
		writing.Go(func() {
			serial := first
			for seq := 1; seq <= commits; seq++ {
				tid, err := write(p, seq, serial)
				if err != nil {
					e.Errorf("commit %d of %v: %v", seq, p, err)
					return
				}
				serial = tid
			}
		})
	}
	for range 3 {
		reading.Go(func() {
			if err := readPairs(e.ctx, e.s, pairs, done); err != nil {
				e.Error(err)
			}
		})
	}
	writing.Wait()
	close(done)
	reading.Wait()

	if len(published) != writers*commits {
		e.Fatalf("publish was called %d times, want %d", len(published), writers*commits)
	}
	for i := 1; i < len(published); i++ {
		if published[i] <= published[i-1] {
			e.Fatalf("%v was published after %v", published[i], published[i-1])
		}
	}
	wantSet(e, "TIDs that Finish returned", finished, published)
	e.wantTIDs(append([]zeolite.TID{first}, published...))
	for _, p := range pairs {
		for _, oid := range p {
			if n := revisions(e, oid); n != commits+1 {
				e.Errorf("%v has %d revisions, want %d", oid, n, commits+1)
			}
		}
	}
}

// votePair votes a transaction that makes data the state of both objects.
func votePair(ctx context.Context, s zeolite.Storage, p pair, serial zeolite.TID, data []byte) (zeolite.Txn, error) {
	tx, err := s.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		return nil, err
	}
	for _, oid := range p {
		if err = tx.Store(ctx, oid, serial, data); err != nil {
			break
		}
	}
	if err == nil {
		err = tx.Vote(ctx)
	}
	if err != nil {
		tx.Abort()
		return nil, err
	}
	return tx, nil
}

func revisions(e *env, oid zeolite.OID) int {
	e.Helper()
	infos, err := e.s.History(e.ctx, oid, 1000)
	e.must(err)
	return len(infos)
}

// readPairs checks until done, and once after, that LastTID never goes back and
// that the state it names is consistent and does not change any more.
func readPairs(ctx context.Context, s zeolite.Storage, pairs []pair, done <-chan struct{}) error {
	var last zeolite.TID
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		now := s.LastTID()
		if now < last {
			return fmt.Errorf("LastTID went back from %v to %v", last, now)
		}
		last = now
		for _, p := range pairs {
			var revs [2]zeolite.Revision
			for i, oid := range p {
				var err error
				if revs[i], err = s.LoadBefore(ctx, oid, last+1); err != nil {
					return fmt.Errorf("LoadBefore(%v, %v): %w", oid, last+1, err)
				}
			}
			if !bytes.Equal(revs[0].Data, revs[1].Data) || revs[0].TID != revs[1].TID {
				return fmt.Errorf("as of %v, %v are %s and %s: half a transaction is visible", last, p,
					show(revs[0].Data, revs[0].TID, revs[0].End), show(revs[1].Data, revs[1].TID, revs[1].End))
			}
			if revs[0].TID > last || (revs[0].End != 0 && revs[0].End <= last) {
				return fmt.Errorf("LoadBefore(%v, %v) returned %s", p[0], last+1, show(revs[0].Data, revs[0].TID, revs[0].End))
			}
			again, err := s.LoadSerial(ctx, p[0], revs[0].TID)
			if err != nil || !bytes.Equal(again, revs[0].Data) {
				return errors.Join(fmt.Errorf("LoadSerial(%v, %v) differs from what LoadBefore returned", p[0], revs[0].TID), err)
			}
		}
	}
	return nil
}

func testConcurrentNewOIDs(e *env) {
	var mu sync.Mutex
	seen := map[zeolite.OID]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for n := 1; n <= 20; n++ {
				oids, err := e.s.NewOIDs(e.ctx, n)
				if err != nil {
					e.Error(err)
					return
				}
				mu.Lock()
				for _, oid := range oids {
					if seen[oid] {
						e.Errorf("NewOIDs returned %v twice", oid)
					}
					seen[oid] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}
