package storagetest

import (
	"errors"
	"fmt"

	"github.com/zeolite-go/zeolite"
)

var undoTests = []test{
	{"Unsupported", testUndoUnsupported},
	{"Change", testUndoChange},
	{"Creation", testUndoCreation},
	{"Deletion", testUndoDeletion},
	{"Undo", testUndoUndo},
	{"SeveralObjects", testUndoSeveralObjects},
	{"SeveralTransactions", testUndoSeveralTransactions},
	{"InTheWay", testUndoInTheWay},
	{"Unknown", testUndoUnknown},
	{"Log", testUndoLog},
}

func testUndoUnsupported(e *env) {
	if e.s.Info().Undo {
		e.doesNotApply("the storage can undo")
	}
	tid := e.store(e.oid(), 0, Record("x"))
	err := e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		_, err := tx.Undo(e.ctx, tid)
		return err
	})
	if !errors.Is(err, zeolite.ErrUnsupported) {
		e.Errorf("Undo: got error %v, want ErrUnsupported", err)
	}
	if u, ok := e.s.(zeolite.Undoer); ok {
		for _, err := range u.UndoLog(e.ctx) {
			if !errors.Is(err, zeolite.ErrUnsupported) {
				e.Errorf("UndoLog: got error %v, want ErrUnsupported", err)
			}
		}
	}
}

func (e *env) needUndo() {
	e.Helper()
	e.need("undo", e.s.Info().Undo)
	if _, ok := e.s.(zeolite.Undoer); !ok {
		e.Fatal("Info says that undo works, but the storage is no zeolite.Undoer")
	}
}

// undoLog returns the TIDs of the undo log.
func (e *env) undoLog() []zeolite.TID {
	e.Helper()
	var tids []zeolite.TID
	for t, err := range e.s.(zeolite.Undoer).UndoLog(e.ctx) {
		e.must(err)
		tids = append(tids, t.TID)
	}
	return tids
}

func testUndoChange(e *env) {
	e.needUndo()
	oid := e.oid()
	first := e.store(oid, 0, Record("first"))
	second := e.store(oid, first, Record("second"))
	tx := e.begin(zeolite.TxnMeta{Description: []byte("undo")})
	oids, err := tx.Undo(e.ctx, second)
	e.must(err)
	if !e.h.Remote {
		wantSet(e, "objects that Undo changed", oids, []zeolite.OID{oid})
	}
	e.must(tx.Vote(e.ctx))
	e.wantCurrent(oid, Record("second"), second)
	third, err := tx.Finish(e.ctx, nil)
	e.must(err)
	check := func() {
		e.wantCurrent(oid, Record("first"), third)
		e.wantLoad(oid, third, Record("second"), second, third)
		e.wantLoad(oid, second, Record("first"), first, second)
		e.checkDataTIDs()
		infos, err := e.s.History(e.ctx, oid, 10)
		e.must(err)
		if len(infos) != 3 || infos[0].TID != third {
			e.Fatalf("History: got %v", infos)
		}
		if size := infos[0].Size; size != 0 && size != int64(len(Record("first"))) {
			e.Errorf("History: the undone revision has size %d", size)
		}
	}
	check()
	e.reopen()
	check()
	fourth := e.store(oid, third, Record("fourth"))
	e.wantCurrent(oid, Record("fourth"), fourth)
}

func testUndoCreation(e *env) {
	e.needUndo()
	oid := e.oid()
	first := e.store(oid, 0, Record("first"))
	second := e.undo(first)
	e.wantGone(oid)
	e.wantLoad(oid, second, Record("first"), first, second)
	e.wantNotYet(oid, first)
	e.wantSerial(oid, second, nil)
	third := e.undo(second)
	e.wantCurrent(oid, Record("first"), third)
	_, err := e.s.LoadBefore(e.ctx, oid, third)
	e.wantNotFound("LoadBefore while the creation was undone", err)
	for t, err := range e.s.Transactions(e.ctx, second, second) {
		e.must(err)
		for r, err := range t.Records {
			e.must(err)
			if r.OID != oid || r.Data != nil {
				e.Errorf("the record that undoes a creation: got %v, %s", r.OID, brief(r.Data))
			}
		}
	}
}

func testUndoDeletion(e *env) {
	e.needUndo()
	oid := e.oid()
	first := e.store(oid, 0, Record("first"))
	second := e.remove(oid, first)
	third := e.undo(second)
	e.wantCurrent(oid, Record("first"), third)
	e.undo(third)
	e.wantGone(oid)
}

func testUndoUndo(e *env) {
	e.needUndo()
	oid := e.oid()
	first := e.store(oid, 0, Record("first"))
	second := e.store(oid, first, Record("second"))
	tid := e.undo(second)
	for i := range 6 {
		want := Record("first")
		if i%2 == 1 {
			want = Record("second")
		}
		e.wantCurrent(oid, want, tid)
		tid = e.undo(tid)
	}
	// The object is as its first transaction left it, so that can be undone.
	e.wantCurrent(oid, Record("first"), tid)
	last := e.undo(first)
	e.wantGone(oid)
	e.undo(last)
	e.checkDataTIDs()
	e.reopen()
	rev, err := e.s.LoadBefore(e.ctx, oid, zeolite.MaxTID)
	e.must(err)
	e.wantCurrent(oid, Record("first"), rev.TID)
}

func testUndoSeveralObjects(e *env) {
	e.needUndo()
	oids := e.oids(3)
	changed, removed, created := oids[0], oids[1], oids[2]
	first := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return errors.Join(tx.Store(e.ctx, changed, 0, Record("a")), tx.Store(e.ctx, removed, 0, Record("b")))
	})
	second := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return errors.Join(
			tx.Store(e.ctx, changed, first, Record("a2")),
			tx.Delete(e.ctx, removed, first),
			tx.Store(e.ctx, created, 0, Record("c")),
		)
	})
	third := e.undo(second)
	e.wantCurrent(changed, Record("a"), third)
	e.wantCurrent(removed, Record("b"), third)
	e.wantGone(created)
	fourth := e.undo(third)
	e.wantCurrent(changed, Record("a2"), fourth)
	e.wantGone(removed)
	e.wantCurrent(created, Record("c"), fourth)
}

func testUndoSeveralTransactions(e *env) {
	e.needUndo()
	oid, other := e.oid(), e.oid()
	var tids []zeolite.TID
	serial := zeolite.ZeroTID
	for i := range 4 {
		serial = e.store(oid, serial, Record(fmt.Sprint(i)))
		tids = append(tids, serial)
	}
	first := e.store(other, 0, Record("other"))
	tid := e.undo(first, tids[3], tids[2], tids[1])
	e.wantCurrent(oid, Record("0"), tid)
	e.wantGone(other)
	back := e.undo(tid)
	e.wantCurrent(oid, Record("3"), back)
	e.wantCurrent(other, Record("other"), back)
	all := e.undo(tids[3], tids[2], tids[1], tids[0])
	e.wantGone(oid)
	e.wantLoad(oid, all, Record("3"), back, all)
}

func testUndoInTheWay(e *env) {
	e.needUndo()
	oids := e.oids(4)
	first := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		for _, oid := range oids {
			if err := tx.Store(e.ctx, oid, 0, Record("first")); err != nil {
				return err
			}
		}
		return nil
	})
	second := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		for _, oid := range oids[:3] {
			if err := tx.Store(e.ctx, oid, first, Record("second")); err != nil {
				return err
			}
		}
		return nil
	})
	third := e.store(oids[0], second, Record("third"))
	fourth := e.remove(oids[1], second)

	err := e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		_, err := tx.Undo(e.ctx, second)
		return err
	})
	e.wantUndoError(err, oids[0], oids[1])
	err = e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		_, err := tx.Undo(e.ctx, first)
		return err
	})
	e.wantUndoError(err, oids[:3]...)

	if !e.h.Remote { // a call that failed leaves the transaction as it was
		tx := e.begin(zeolite.TxnMeta{})
		e.must(tx.Store(e.ctx, oids[3], first, Record("fifth")))
		if _, err := tx.Undo(e.ctx, second); !isUndoError(err) {
			e.Errorf("Undo: got error %v", err)
		}
		e.must(tx.Vote(e.ctx))
		fifth, err := tx.Finish(e.ctx, func(_ zeolite.TID, published []zeolite.OID, visible func()) {
			wantSet(e, "published objects", published, oids[3:])
			visible()
		})
		e.must(err)
		e.wantCurrent(oids[3], Record("fifth"), fifth)
	}
	e.wantCurrent(oids[0], Record("third"), third)
	e.wantGone(oids[1])
	e.wantCurrent(oids[2], Record("second"), second)

	// In the right order it works.
	e.undo(fourth)
	e.undo(third)
	last := e.undo(second)
	for _, oid := range oids[:3] {
		e.wantCurrent(oid, Record("first"), last)
	}
}

func testUndoUnknown(e *env) {
	e.needUndo()
	oid := e.oid()
	first := e.storeAt(at(1), oid, 0, Record("first"))
	for _, tid := range []zeolite.TID{0, 1, first - 1, first + 1, zeolite.MaxTID, 1<<64 - 1} {
		err := e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
			_, err := tx.Undo(e.ctx, tid)
			return err
		})
		e.wantUndoError(err)
	}
	e.wantCurrent(oid, Record("first"), first)
}

func testUndoLog(e *env) {
	e.needUndo()
	if tids := e.undoLog(); len(tids) != 0 {
		e.Errorf("UndoLog of an empty storage: %v", tids)
	}
	oid := e.oid()
	var metas []zeolite.TxnMeta
	var tids []zeolite.TID
	serial := zeolite.ZeroTID
	for i := range 5 {
		meta := zeolite.TxnMeta{
			User:        fmt.Appendf(nil, "user %d", i),
			Description: fmt.Appendf(nil, "größe %d", i),
			Extension:   Extension(fmt.Sprint(i)),
		}
		serial = e.commit(meta, func(tx zeolite.Txn) error {
			return tx.Store(e.ctx, oid, serial, Record(fmt.Sprint(i)))
		})
		metas, tids = append(metas, meta), append(tids, serial)
	}
	check := func() {
		i := len(tids)
		for t, err := range e.s.(zeolite.Undoer).UndoLog(e.ctx) {
			e.must(err)
			if i--; i < 0 || t.TID != tids[i] {
				e.Fatalf("UndoLog yields %v", t.TID)
			}
			e.wantMeta(*t, metas[i])
		}
		if i != 0 {
			e.Errorf("UndoLog lacks %d transactions", i)
		}
	}
	check()
	meta := zeolite.TxnMeta{Description: []byte("undo")}
	tid := e.commit(meta, func(tx zeolite.Txn) error {
		_, err := tx.Undo(e.ctx, serial)
		return err
	})
	metas, tids = append(metas, meta), append(tids, tid)
	check()
	e.reopen()
	check()
}
