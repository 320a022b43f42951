package storagetest

import (
	"context"
	"errors"

	"github.com/zeolite-go/zeolite"
)

var lifecycleTests = []test{
	{"Close", testClose},
	{"Reopen", testReopen},
	{"ReadOnly", testReadOnly},
	{"EndedContext", testEndedContext},
	{"ContextEndsInIteration", testContextEndsInIteration},
}

func testClose(e *env) {
	oid := e.oid()
	first := e.store(oid, 0, Record("first"))
	tx := e.begin(zeolite.TxnMeta{})
	e.must(tx.Store(e.ctx, oid, first, Record("second")))
	e.must(e.s.Close())
	e.must(e.s.Close())

	closed := func(what string, err error) {
		e.Helper()
		if !errors.Is(err, zeolite.ErrClosed) {
			e.Errorf("%s: got error %v, want ErrClosed", what, err)
		}
	}
	_, err := e.s.LoadBefore(e.ctx, oid, zeolite.MaxTID)
	closed("LoadBefore", err)
	_, err = e.s.LoadSerial(e.ctx, oid, first)
	closed("LoadSerial", err)
	_, err = e.s.CurrentTID(e.ctx, oid)
	closed("CurrentTID", err)
	_, err = e.s.History(e.ctx, oid, 1)
	closed("History", err)
	_, err = e.s.NewOIDs(e.ctx, 1000)
	closed("NewOIDs", err)
	_, err = e.s.Begin(e.ctx, zeolite.TxnMeta{})
	closed("Begin", err)
	for _, err := range e.s.Transactions(e.ctx, 0, zeolite.MaxTID) {
		closed("Transactions", err)
	}
	for _, err := range e.s.Changes(e.ctx, 0) {
		closed("Changes", err)
	}
	if err := tx.Vote(e.ctx); err == nil {
		e.Error("Vote after Close succeeded")
	}
	if _, err := tx.Finish(e.ctx, nil); err == nil {
		e.Error("Finish after Close succeeded")
	}
	tx.Abort()
	e.s.Info()
	e.s.LastTID()
}

func testReopen(e *env) {
	e.need("to outlive Close", e.h.Reopen != nil)
	oid := e.oid()
	first := e.store(oid, 0, Record("first"))
	second := e.store(oid, first, Record("second"))
	tx := e.begin(zeolite.TxnMeta{})
	e.must(tx.Store(e.ctx, oid, second, Record("third")))
	e.must(tx.Vote(e.ctx))
	e.reopen() // aborts
	tx.Abort()
	if last := e.s.LastTID(); last != second {
		e.Errorf("LastTID: got %v, want %v", last, second)
	}
	e.wantCurrent(oid, Record("second"), second)
	e.wantTIDs([]zeolite.TID{first, second})
	third := e.store(oid, second, Record("third"))
	if third <= second {
		e.Errorf("transaction %v follows %v", third, second)
	}
	e.reopen()
	e.wantCurrent(oid, Record("third"), third)
	e.wantLoad(oid, third, Record("second"), second, third)
}

func testReadOnly(e *env) {
	if e.h.ReopenReadOnly == nil {
		e.doesNotApply("the storage cannot be opened read-only")
	}
	oid := e.oid()
	first := e.store(oid, 0, Record("first"))
	second := e.store(oid, first, Record("second"))
	e.must(e.s.Close())
	e.use(e.h.ReopenReadOnly(e.T))
	if !e.s.Info().ReadOnly {
		e.Error("Info does not say read-only")
	}
	if _, err := e.s.Begin(e.ctx, zeolite.TxnMeta{}); !errors.Is(err, zeolite.ErrReadOnly) {
		e.Errorf("Begin: got error %v, want ErrReadOnly", err)
	}
	if _, err := e.s.NewOIDs(e.ctx, 1); !errors.Is(err, zeolite.ErrReadOnly) {
		e.Errorf("NewOIDs: got error %v, want ErrReadOnly", err)
	}
	e.wantCurrent(oid, Record("second"), second)
	e.wantLoad(oid, second, Record("first"), first, second)
	e.wantTIDs([]zeolite.TID{first, second})
	if last := e.s.LastTID(); last != second {
		e.Errorf("LastTID: got %v, want %v", last, second)
	}
}

// A call whose context has ended may still succeed, if it does so at once; if
// it fails, the error is that of the context, and nothing is half-done.
func testEndedContext(e *env) {
	oid, fresh := e.oid(), e.oid()
	first := e.store(oid, 0, Record("first"))
	ended, cancel := context.WithCancel(e.ctx)
	cancel()
	check := func(what string, err error) {
		e.Helper()
		if err != nil && !errors.Is(err, context.Canceled) {
			e.Errorf("%s: got error %v, want context.Canceled or none", what, err)
		}
	}
	_, err := e.s.LoadBefore(ended, oid, zeolite.MaxTID)
	check("LoadBefore", err)
	_, err = e.s.LoadSerial(ended, oid, first)
	check("LoadSerial", err)
	_, err = e.s.CurrentTID(ended, oid)
	check("CurrentTID", err)
	_, err = e.s.History(ended, oid, 1)
	check("History", err)
	_, err = e.s.NewOIDs(ended, 1)
	check("NewOIDs", err)
	if tx, err := e.s.Begin(ended, zeolite.TxnMeta{}); err != nil {
		check("Begin", err)
	} else {
		tx.Abort()
	}

	tx := e.begin(zeolite.TxnMeta{})
	stored := tx.Store(ended, fresh, 0, Record("fresh"))
	check("Store", stored)
	e.must(tx.Store(e.ctx, oid, first, Record("second")))
	if err := tx.Vote(ended); err != nil {
		check("Vote", err)
		tx.Abort()
		tx = e.begin(zeolite.TxnMeta{})
		stored = tx.Store(ended, fresh, 0, Record("fresh"))
		e.must(tx.Store(e.ctx, oid, first, Record("second")))
		e.must(tx.Vote(e.ctx))
	}
	tid, err := tx.Finish(ended, nil)
	switch {
	case err == nil:
		e.wantCurrent(oid, Record("second"), tid)
		if stored == nil {
			e.wantCurrent(fresh, Record("fresh"), tid)
		} else {
			e.wantGone(fresh)
		}
	case errors.Is(err, zeolite.ErrInDoubt):
	default:
		check("Finish", err)
		tx.Abort()
		e.wantCurrent(oid, Record("first"), first)
		e.wantGone(fresh)
	}

	again := e.oid()
	tid = e.store(again, 0, Record("goes on"))
	e.wantCurrent(again, Record("goes on"), tid)
}

func testContextEndsInIteration(e *env) {
	tids := e.storeMany(30)
	ctx, cancel := context.WithCancel(e.ctx)
	n := 0
	for t, err := range e.s.Transactions(ctx, 0, zeolite.MaxTID) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				e.Errorf("Transactions: got error %v, want context.Canceled", err)
			}
			n = -1 // nothing may follow the error
			continue
		}
		if n < 0 || t.TID != tids[n] {
			e.Fatalf("Transactions yields %v after %d others", t.TID, n)
		}
		n++
		cancel()
	}
	ctx, cancel = context.WithCancel(e.ctx)
	defer cancel()
	n = 0
	for c, err := range e.s.Changes(ctx, 0) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				e.Errorf("Changes: got error %v, want context.Canceled", err)
			}
			n = -1
			continue
		}
		if n < 0 || c.TID != tids[n] {
			e.Fatalf("Changes yields %v after %d others", c.TID, n)
		}
		n++
		cancel()
	}
	e.wantTIDs(tids)
}
