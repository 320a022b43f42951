package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/zeolite-go/zeolite"
)

// oids returns n new oids.
func (e *env) oids(n int) []zeolite.OID {
	e.Helper()
	oids, err := e.s.NewOIDs(e.ctx, n)
	e.must(err)
	if len(oids) != n {
		e.Fatalf("NewOIDs(%d) returned %d oids", n, len(oids))
	}
	return oids
}

func (e *env) oid() zeolite.OID {
	e.Helper()
	return e.oids(1)[0]
}

func (e *env) begin(meta zeolite.TxnMeta) zeolite.Txn {
	e.Helper()
	tx, err := e.s.Begin(e.ctx, meta)
	e.must(err)
	return tx
}

// commit commits what fill does.
func (e *env) commit(meta zeolite.TxnMeta, fill func(tx zeolite.Txn) error) zeolite.TID {
	e.Helper()
	tx := e.begin(meta)
	defer tx.Abort()
	e.must(fill(tx))
	e.must(tx.Vote(e.ctx))
	tid, err := tx.Finish(e.ctx, nil)
	e.must(err)
	if meta.TID != 0 && tid != meta.TID {
		e.Fatalf("Finish returned %v for a transaction with tid %v", tid, meta.TID)
	}
	return tid
}

// store commits one revision.
func (e *env) store(oid zeolite.OID, serial zeolite.TID, data []byte) zeolite.TID {
	e.Helper()
	return e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return tx.Store(e.ctx, oid, serial, data)
	})
}

// remove commits a deletion.
func (e *env) remove(oid zeolite.OID, serial zeolite.TID) zeolite.TID {
	e.Helper()
	return e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return tx.Delete(e.ctx, oid, serial)
	})
}

// undo commits a transaction that undoes others.
func (e *env) undo(tids ...zeolite.TID) zeolite.TID {
	e.Helper()
	return e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		for _, tid := range tids {
			if _, err := tx.Undo(e.ctx, tid); err != nil {
				return err
			}
		}
		return nil
	})
}

// at returns a TID that tests give to transactions whose distance matters:
// second n of a day long ago.
func at(n float64) zeolite.TID {
	day := time.Date(2020, 2, 20, 0, 0, 0, 0, time.UTC)
	return zeolite.TIDFromTime(day.Add(time.Duration(n * float64(time.Second))))
}

// later returns a TID that is a second after the last transaction.
func (e *env) later() zeolite.TID {
	return max(at(0), zeolite.TIDFromTime(e.s.LastTID().Time().Add(time.Second)))
}

// storeAt is store with a given TID.
func (e *env) storeAt(tid zeolite.TID, oid zeolite.OID, serial zeolite.TID, data []byte) zeolite.TID {
	e.Helper()
	return e.commit(zeolite.TxnMeta{TID: tid}, func(tx zeolite.Txn) error {
		return tx.Store(e.ctx, oid, serial, data)
	})
}

// refused returns the error of a transaction that must fail, in call, or in
// Vote if the storage is remote. It aborts the transaction and checks that
// nothing was committed.
func (e *env) refused(meta zeolite.TxnMeta, call func(tx zeolite.Txn) error) error {
	e.Helper()
	last := e.s.LastTID()
	tx, err := e.s.Begin(e.ctx, meta)
	if err != nil {
		return err
	}
	defer tx.Abort()
	err = call(tx)
	if err == nil && (e.h.Remote || meta.TID != 0) {
		err = tx.Vote(e.ctx)
	}
	if err == nil {
		e.Fatal("a call that must fail did not")
	}
	tx.Abort()
	if now := e.s.LastTID(); now != last {
		e.Fatalf("a refused transaction moved LastTID from %v to %v", last, now)
	}
	return err
}

func (e *env) wantConflict(err error, want zeolite.ConflictError) {
	e.Helper()
	var got *zeolite.ConflictError
	if !errors.As(err, &got) {
		e.Fatalf("got error %v, want a conflict", err)
	}
	if got.OID != want.OID || got.Committed != want.Committed || got.Seen != want.Seen || got.Read != want.Read {
		e.Fatalf("got conflict %+v, want %+v", *got, want)
	}
}

func (e *env) wantNotFound(what string, err error) {
	e.Helper()
	if !isNotFound(err) {
		e.Fatalf("%s: got error %v, want *NotFoundError", what, err)
	}
}

func (e *env) wantUndoError(err error, oids ...zeolite.OID) {
	e.Helper()
	if !isUndoError(err) {
		e.Fatalf("got error %v, want *UndoError or *MultipleUndoErrors", err)
	}
	inTheWay := map[zeolite.OID]bool{}
	var one *zeolite.UndoError
	var many *zeolite.MultipleUndoErrors
	if errors.As(err, &many) {
		for _, u := range many.Errs {
			inTheWay[u.OID] = u.HasOID
		}
	} else if errors.As(err, &one) && one.HasOID {
		inTheWay[one.OID] = true
	}
	for _, oid := range oids {
		if !inTheWay[oid] {
			e.Errorf("%v is in the way of the undo, but the error does not say so: %v", oid, err)
		}
	}
	if len(oids) != len(inTheWay) {
		e.Errorf("the error names %d objects, want %d: %v", len(inTheWay), len(oids), err)
	}
}

func isNotFound(err error) bool {
	var nf *zeolite.NotFoundError
	return errors.As(err, &nf)
}

func isUndoError(err error) bool {
	var one *zeolite.UndoError
	var many *zeolite.MultipleUndoErrors
	return errors.As(err, &one) || errors.As(err, &many)
}

// wantLoad checks what LoadBefore returns.
func (e *env) wantLoad(oid zeolite.OID, before zeolite.TID, data []byte, tid, end zeolite.TID) {
	e.Helper()
	rev, err := e.s.LoadBefore(e.ctx, oid, before)
	if err != nil {
		e.Errorf("LoadBefore(%v, %v): %v", oid, before, err)
		return
	}
	if !bytes.Equal(rev.Data, data) || rev.TID != tid || rev.End != end {
		e.Errorf("LoadBefore(%v, %v): got %s, want %s", oid, before,
			show(rev.Data, rev.TID, rev.End), show(data, tid, end))
	}
}

// wantCurrent checks the current revision by all the ways there are to ask.
func (e *env) wantCurrent(oid zeolite.OID, data []byte, tid zeolite.TID) {
	e.Helper()
	e.wantLoad(oid, zeolite.MaxTID, data, tid, 0)
	e.wantSerial(oid, tid, data)
	if got, err := e.s.CurrentTID(e.ctx, oid); err != nil || got != tid {
		e.Errorf("CurrentTID(%v): got %v, %v, want %v", oid, got, err, tid)
	}
}

// wantGone checks that there is no object now.
func (e *env) wantGone(oid zeolite.OID) {
	e.Helper()
	_, err := e.s.LoadBefore(e.ctx, oid, zeolite.MaxTID)
	e.wantNotFound("LoadBefore", err)
	_, err = e.s.CurrentTID(e.ctx, oid)
	e.wantNotFound("CurrentTID", err)
}

// wantNotYet checks that the object exists, but did not before a TID.
func (e *env) wantNotYet(oid zeolite.OID, before zeolite.TID) {
	e.Helper()
	if _, err := e.s.LoadBefore(e.ctx, oid, before); !errors.Is(err, zeolite.ErrNotYet) {
		e.Errorf("LoadBefore(%v, %v): got error %v, want ErrNotYet", oid, before, err)
	}
}

// wantSerial checks what LoadSerial returns; nil data stands for NotFoundError.
func (e *env) wantSerial(oid zeolite.OID, serial zeolite.TID, data []byte) {
	e.Helper()
	got, err := e.s.LoadSerial(e.ctx, oid, serial)
	if data == nil {
		e.wantNotFound(fmt.Sprintf("LoadSerial(%v, %v)", oid, serial), err)
		return
	}
	if err != nil || !bytes.Equal(got, data) {
		e.Errorf("LoadSerial(%v, %v): got %s, %v, want %s", oid, serial, brief(got), err, brief(data))
	}
}

func show(data []byte, tid, end zeolite.TID) string {
	return fmt.Sprintf("%s of %v until %v", brief(data), tid, end)
}

// brief quotes data without its bulk.
func brief(data []byte) string {
	if len(data) > 160 {
		return fmt.Sprintf("%d bytes %q...", len(data), data[:160])
	}
	return fmt.Sprintf("%q", data)
}

// wantSet checks that got has the elements of want, each once, in any order.
func wantSet[T comparable](e *env, what string, got, want []T) {
	e.Helper()
	left := map[T]bool{}
	for _, w := range want {
		left[w] = true
	}
	for _, g := range got {
		if !left[g] {
			e.Errorf("%s: %v is too much, or there twice; got %v, want %v", what, g, got, want)
		}
		delete(left, g)
	}
	if len(left) > 0 {
		e.Errorf("%s: got %v, want %v", what, got, want)
	}
}
