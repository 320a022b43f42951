package storagetest

import (
	"errors"

	"github.com/zeolite-go/zeolite"
)

var publishTests = []test{
	{"Once", testPublishOnce},
	{"NotWhenAborted", testPublishNotWhenAborted},
	{"ChangedObjects", testPublishChangedObjects},
}

// The old state can be loaded until visible is called, the new one from then.
func testPublishOnce(e *env) {
	oid, fresh := e.oid(), e.oid()
	first := e.store(oid, 0, Record("first"))
	tx := e.begin(zeolite.TxnMeta{})
	e.must(tx.Store(e.ctx, oid, first, Record("second")))
	e.must(tx.Store(e.ctx, fresh, 0, Record("fresh")))
	if last := e.s.LastTID(); last != first {
		e.Errorf("LastTID before Vote: got %v, want %v", last, first)
	}
	e.must(tx.Vote(e.ctx))
	if last := e.s.LastTID(); last != first {
		e.Errorf("LastTID after Vote: got %v, want %v", last, first)
	}
	e.wantCurrent(oid, Record("first"), first)
	e.wantGone(fresh)

	calls := 0
	var published zeolite.TID
	second, err := tx.Finish(e.ctx, func(tid zeolite.TID, oids []zeolite.OID, visible func()) {
		calls++
		published = tid
		wantSet(e, "published objects", oids, []zeolite.OID{oid, fresh})
		if last := e.s.LastTID(); last != first {
			e.Errorf("LastTID before visible: got %v, want %v", last, first)
		}
		if !e.h.Remote {
			e.wantCurrent(oid, Record("first"), first)
			e.wantGone(fresh)
			e.wantTIDs([]zeolite.TID{first})
		}
		visible()
		if last := e.s.LastTID(); last != tid {
			e.Errorf("LastTID after visible: got %v, want %v", last, tid)
		}
		if !e.h.Remote {
			e.wantCurrent(oid, Record("second"), tid)
			e.wantCurrent(fresh, Record("fresh"), tid)
			e.wantLoad(oid, tid, Record("first"), first, tid)
		}
	})
	e.must(err)
	if calls != 1 || published != second {
		e.Errorf("publish was called %d times, last with %v; Finish returned %v", calls, published, second)
	}
	e.wantCurrent(oid, Record("second"), second)
	e.wantCurrent(fresh, Record("fresh"), second)
	e.wantTIDs([]zeolite.TID{first, second})
}

// wantTIDs checks which transactions there are.
func (e *env) wantTIDs(want []zeolite.TID) {
	e.Helper()
	var iterated, changed []zeolite.TID
	for t, err := range e.s.Transactions(e.ctx, 0, zeolite.MaxTID) {
		e.must(err)
		iterated = append(iterated, t.TID)
	}
	for c, err := range e.s.Changes(e.ctx, 0) {
		e.must(err)
		changed = append(changed, c.TID)
	}
	wantList(e, "Transactions", iterated, want)
	wantList(e, "Changes", changed, want)
}

func testPublishNotWhenAborted(e *env) {
	oid := e.oid()
	first := e.store(oid, 0, Record("first"))
	publish := func(tid zeolite.TID, _ []zeolite.OID, visible func()) {
		e.Errorf("publish was called with %v", tid)
		visible()
	}
	tx := e.begin(zeolite.TxnMeta{})
	e.must(tx.Store(e.ctx, oid, first, Record("second")))
	e.must(tx.Vote(e.ctx))
	tx.Abort()
	if _, err := tx.Finish(e.ctx, publish); err == nil {
		e.Error("Finish after Abort succeeded")
	}
	e.wantCurrent(oid, Record("first"), first)
}

// Everything that a transaction changed is published, and is in Changes.
func testPublishChangedObjects(e *env) {
	oids := e.oids(4)
	first := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return errors.Join(
			tx.Store(e.ctx, oids[0], 0, Record("first")),
			tx.Store(e.ctx, oids[1], 0, Record("first")),
			tx.Store(e.ctx, oids[2], 0, Record("first")),
		)
	})
	check := func(want []zeolite.OID, fill func(tx zeolite.Txn) error) zeolite.TID {
		e.Helper()
		tx := e.begin(zeolite.TxnMeta{})
		defer tx.Abort()
		e.must(fill(tx))
		e.must(tx.Vote(e.ctx))
		tid, err := tx.Finish(e.ctx, func(_ zeolite.TID, oids []zeolite.OID, visible func()) {
			wantSet(e, "published objects", oids, want)
			visible()
		})
		e.must(err)
		for c, err := range e.s.Changes(e.ctx, tid-1) {
			e.must(err)
			wantSet(e, "Changes", c.OIDs, want)
		}
		return tid
	}
	second := check(oids, func(tx zeolite.Txn) error {
		return errors.Join(
			tx.Store(e.ctx, oids[3], 0, Record("wrong")),
			tx.Store(e.ctx, oids[0], first, Record("second")),
			tx.Delete(e.ctx, oids[1], first),
			tx.Restore(e.ctx, oids[2], Record("second"), 0),
			tx.Store(e.ctx, oids[3], 0, Record("second")),
		)
	})
	if e.s.Info().Undo {
		check(oids, func(tx zeolite.Txn) error {
			_, err := tx.Undo(e.ctx, second)
			return err
		})
	}
	check(nil, func(zeolite.Txn) error { return nil })
}
