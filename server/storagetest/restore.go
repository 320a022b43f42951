package storagetest

import (
	"errors"

	"github.com/zeolite-go/zeolite"
)

var restoreTests = []test{
	{"WithoutChecks", testRestoreWithoutChecks},
	{"Prev", testRestorePrev},
	{"Status", testRestoreStatus},
	{"CopyHistory", testCopyHistory},
}

func testRestoreWithoutChecks(e *env) {
	oid, fresh := e.oid(), e.oid()
	first := e.store(oid, 0, Record("first"))
	second := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return errors.Join(
			tx.Restore(e.ctx, oid, Record("second"), 0),
			tx.Restore(e.ctx, fresh, Record("fresh"), 0),
		)
	})
	e.wantCurrent(oid, Record("second"), second)
	e.wantCurrent(fresh, Record("fresh"), second)
	e.wantLoad(oid, second, Record("first"), first, second)
	third := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.Restore(e.ctx, oid, nil, 0) })
	e.wantGone(oid)
	e.wantLoad(oid, third, Record("second"), second, third)
	fourth := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return tx.Restore(e.ctx, oid, Record("fourth"), 0)
	})
	e.wantCurrent(oid, Record("fourth"), fourth)
	fifth := e.store(oid, fourth, Record("fifth"))
	e.wantCurrent(oid, Record("fifth"), fifth)
}

// The data of a restored record counts, whether or not prev names a revision
// of the storage.
func testRestorePrev(e *env) {
	oid := e.oid()
	first := e.store(oid, 0, Record("first"))
	second := e.store(oid, first, Record("second"))
	restore := func(data []byte, prev zeolite.TID) zeolite.TID {
		e.Helper()
		tid := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.Restore(e.ctx, oid, data, prev) })
		e.wantCurrent(oid, data, tid)
		return tid
	}
	third := restore(Record("first"), first)
	fourth := restore(Record("first"), third) // a reference to a reference
	restore(Record("unknown"), first-1)
	e.wantSerial(oid, second, Record("second"))
	e.wantSerial(oid, third, Record("first"))
	e.wantSerial(oid, fourth, Record("first"))
	e.checkDataTIDs()
	e.reopen()
	e.wantSerial(oid, third, Record("first"))
	e.wantSerial(oid, fourth, Record("first"))
}

// checkDataTIDs checks that records that share data name an earlier revision
// with that data.
func (e *env) checkDataTIDs() {
	e.Helper()
	for t, err := range e.s.Transactions(e.ctx, 0, zeolite.MaxTID) {
		e.must(err)
		for r, err := range t.Records {
			e.must(err)
			if r.DataTID == 0 {
				continue
			}
			if r.DataTID >= r.TID {
				e.Errorf("the record of %v at %v shares data with a later one, %v", r.OID, r.TID, r.DataTID)
			}
			e.wantSerial(r.OID, r.DataTID, r.Data)
		}
	}
}

func testRestoreStatus(e *env) {
	packed := e.commit(zeolite.TxnMeta{TID: at(1), Status: 'p'}, func(tx zeolite.Txn) error {
		return tx.Restore(e.ctx, zeolite.RootOID, Record("root"), 0)
	})
	normal := e.commit(zeolite.TxnMeta{TID: at(2), Status: ' '}, func(tx zeolite.Txn) error {
		return tx.Restore(e.ctx, zeolite.RootOID, Record("root"), 0)
	})
	check := func() {
		want := map[zeolite.TID]byte{packed: 'p', normal: ' '}
		for t, err := range e.s.Transactions(e.ctx, 0, zeolite.MaxTID) {
			e.must(err)
			if t.Status != want[t.TID] {
				e.Errorf("transaction %v has status %q, want %q", t.TID, t.Status, want[t.TID])
			}
		}
		if e.s.Info().Undo {
			wantList(e, "UndoLog", e.undoLog(), []zeolite.TID{normal})
		}
	}
	check()
	e.reopen()
	check()
}

// A copy is the same database: it loads the same at every TID, and has the
// same metadata.
func testCopyHistory(e *env) {
	h := newHistory(e, 7)
	for range 25 {
		h.step()
	}
	h.check()

	dst := e.another()
	taken := dst.oids(3)
	e.must(Copy(e.ctx, dst.s, e.s))
	if dst.s.LastTID() != e.s.LastTID() {
		e.Errorf("LastTID of the copy: %v, want %v", dst.s.LastTID(), e.s.LastTID())
	}
	h.e = dst
	h.check()
	dst.checkDataTIDs()

	var copied []zeolite.TransactionInfo
	for t, err := range dst.s.Transactions(e.ctx, 0, zeolite.MaxTID) {
		e.must(err)
		copied = append(copied, t.TransactionInfo)
	}
	i := 0
	for t, err := range e.s.Transactions(e.ctx, 0, zeolite.MaxTID) {
		e.must(err)
		if i == len(copied) || copied[i].TID != t.TID || copied[i].Status != t.Status {
			e.Fatalf("transaction %v is not in the copy", t.TID)
		}
		dst.wantMeta(copied[i], zeolite.TxnMeta{User: t.User, Description: t.Description, Extension: t.Extension})
		i++
	}

	// The copy lives on.
	for _, oid := range dst.oids(20) {
		_, err := dst.s.History(e.ctx, oid, 1)
		e.wantNotFound("a new oid", err)
		for _, old := range taken {
			if oid == old {
				e.Errorf("NewOIDs returned %v again", oid)
			}
		}
	}
	for range 10 {
		h.step()
	}
	h.check()
	dst.reopen()
	h.check()
}
