package storagetest

import (
	"errors"
	"fmt"
	"reflect"

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
	{"Merge", testUndoMerge},
	{"MergeSeveral", testUndoMergeSeveral},
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

// undoConflicts undoes transactions in one, which leaves conflicts to the caller.
// It checks that they are as Vote reports them. It is false if the storage
// refuses such an undo.
func (e *env) undoConflicts(tx zeolite.Txn, undo []zeolite.TID, want map[zeolite.OID]zeolite.ConflictError) bool {
	e.Helper()
	var err error
	for _, tid := range undo {
		if _, err = tx.Undo(e.ctx, tid); err != nil {
			break
		}
	}
	if err == nil {
		err = tx.Vote(e.ctx)
	}
	if isUndoError(err) {
		return false
	}
	conflicts := zeolite.Conflicts(err)
	if len(conflicts) != len(want) {
		e.Fatalf("got error %v, want %d conflicts", err, len(want))
	}
	for _, c := range conflicts {
		if !reflect.DeepEqual(*c, want[c.OID]) {
			e.Errorf("conflict of an undo: got %+v, want %+v", *c, want[c.OID])
		}
	}
	return true
}

// needMerge ends a test if the storage refuses the undo.
func (e *env) needMerge(merges bool) {
	e.Helper()
	if !merges {
		e.doesNotApply("the storage refuses to undo what needs a merge")
	}
}

func testUndoMerge(e *env) {
	e.needUndo()
	merged, other, gone := e.oid(), e.oid(), e.oid()
	first := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return errors.Join(tx.Store(e.ctx, merged, 0, Record("a")), tx.Store(e.ctx, other, 0, Record("b")))
	})
	second := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return errors.Join(tx.Store(e.ctx, merged, first, Record("a2")), tx.Store(e.ctx, other, first, Record("b2")),
			tx.Store(e.ctx, gone, 0, Record("c")))
	})
	third := e.store(merged, second, Record("a3"))

	want := map[zeolite.OID]zeolite.ConflictError{merged: {OID: merged, Committed: third, Seen: second, Data: Record("a")}}
	tx := e.begin(zeolite.TxnMeta{})
	defer tx.Abort()
	e.needMerge(e.undoConflicts(tx, []zeolite.TID{second}, want))
	for range 2 { // it stays as it is until the object is stored, on what is current
		err := tx.Vote(e.ctx)
		e.wantConflict(err, want[merged])
		if !e.h.Remote {
			err := tx.Store(e.ctx, merged, second, Record("stale"))
			e.wantConflict(err, zeolite.ConflictError{OID: merged, Committed: third, Seen: second})
		}
	}
	e.must(tx.Store(e.ctx, merged, third, Record("a3 without a2")))
	e.must(tx.Vote(e.ctx))
	fourth, err := tx.Finish(e.ctx, func(_ zeolite.TID, published []zeolite.OID, visible func()) {
		wantSet(e, "published objects", published, []zeolite.OID{merged, other, gone})
		visible()
	})
	e.must(err)
	e.wantCurrent(merged, Record("a3 without a2"), fourth)
	e.wantCurrent(other, Record("b"), fourth)
	e.wantGone(gone)
	e.checkDataTIDs()
	e.reopen()
	e.wantCurrent(merged, Record("a3 without a2"), fourth)
	fifth := e.undo(fourth)
	e.wantCurrent(merged, Record("a3"), fifth)
	e.wantCurrent(other, Record("b2"), fifth)
	e.wantCurrent(gone, Record("c"), fifth)

	tx = e.begin(zeolite.TxnMeta{}) // one that is given up leaves nothing
	e.undoConflicts(tx, []zeolite.TID{second}, map[zeolite.OID]zeolite.ConflictError{
		merged: {OID: merged, Committed: fifth, Seen: second, Data: Record("a")}})
	tx.Abort()
	e.wantCurrent(merged, Record("a3"), fifth)
	e.wantCurrent(other, Record("b2"), fifth)
}

// Several transactions that changed the same object are undone in one.
func testUndoMergeSeveral(e *env) {
	e.needUndo()
	for i, c := range []struct {
		undo                    []int
		committed, seen, before int // of the one conflict; or, with before alone, what it becomes; or it is refused
	}{
		{undo: []int{5, 4}, committed: 7, seen: 5, before: 3}, // as if they were one
		{undo: []int{5, 4, 3, 2}, committed: 7, seen: 5, before: 1},
		{undo: []int{5, 4, 3, 2, 1}}, // 1 has created it
		{undo: []int{7, 6, 4}, committed: 5, seen: 4, before: 3},
		{undo: []int{7, 5, 4}, committed: 6, seen: 5, before: 3},
		{undo: []int{2, 3, 4}, committed: 7, seen: 4, before: 1},
		{undo: []int{6, 7}, before: 5}, // nothing is left to be merged
		{undo: []int{5, 6, 7}, before: 4},
		{undo: []int{5, 3}}, // two merges
		{undo: []int{3, 5}},
		{undo: []int{5, 7}},
	} {
		oid := e.oid()
		tids := []zeolite.TID{0}
		for i := range 7 {
			tids = append(tids, e.store(oid, tids[i], Record(fmt.Sprint(i+1))))
		}
		var undo []zeolite.TID
		for _, i := range c.undo {
			undo = append(undo, tids[i])
		}
		tx := e.begin(zeolite.TxnMeta{})
		want := map[zeolite.OID]zeolite.ConflictError{}
		if c.seen != 0 {
			want[oid] = zeolite.ConflictError{OID: oid, Committed: tids[c.committed], Seen: tids[c.seen], Data: Record(fmt.Sprint(c.before))}
		}
		merges := e.undoConflicts(tx, undo, want)
		if c.before == 0 {
			if merges {
				e.Errorf("undo of %v: not refused", c.undo)
			}
			tx.Abort()
			continue
		}
		if !merges && i > 0 {
			e.Fatalf("undo of %v: refused", c.undo)
		}
		e.needMerge(merges)
		becomes := Record(fmt.Sprint(c.before))
		if c.seen != 0 {
			becomes = Record("merged")
			e.must(tx.Store(e.ctx, oid, tids[c.committed], becomes))
			e.must(tx.Vote(e.ctx))
		}
		tid, err := tx.Finish(e.ctx, nil)
		e.must(err)
		e.wantCurrent(oid, becomes, tid)
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
