package storagetest

import (
	"bytes"
	"errors"
	"slices"

	"github.com/zeolite-go/zeolite"
)

var iterateTests = []test{
	{"Ranges", testRanges},
	{"Records", testRecords},
	{"RecordsAgain", testRecordsAgain},
	{"Stop", testStop},
	{"CommitMeanwhile", testCommitMeanwhile},
	{"Changes", testChanges},
	{"NextRecord", testNextRecord},
	{"NextRecordDeleted", testNextRecordDeleted},
}

func wantList[T comparable](e *env, what string, got, want []T) {
	e.Helper()
	if !slices.Equal(got, want) {
		e.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// storeMany commits n transactions with one object each, a second apart.
func (e *env) storeMany(n int) []zeolite.TID {
	e.Helper()
	tids := make([]zeolite.TID, n)
	for i := range tids {
		tids[i] = e.storeAt(e.later(), e.oid(), 0, Record("x"))
	}
	return tids
}

func testRanges(e *env) {
	tids := e.storeMany(5)
	for _, r := range []struct {
		start, stop zeolite.TID
		want        []zeolite.TID
	}{
		{0, zeolite.MaxTID, tids},
		{0, 1<<64 - 1, tids},
		{tids[0], tids[4], tids},
		{tids[1], tids[3], tids[1:4]},
		{tids[1] + 1, tids[3] - 1, tids[2:3]},
		{tids[2], tids[2], tids[2:3]},
		{tids[2] + 1, tids[2] + 1, nil},
		{tids[3], tids[1], nil},
		{0, 0, nil},
		{0, tids[0] - 1, nil},
		{tids[4] + 1, zeolite.MaxTID, nil},
		{zeolite.MaxTID, zeolite.MaxTID, nil},
	} {
		var got []zeolite.TID
		for t, err := range e.s.Transactions(e.ctx, r.start, r.stop) {
			e.must(err)
			got = append(got, t.TID)
		}
		if !slices.Equal(got, r.want) {
			e.Errorf("Transactions(%v, %v): got %v, want %v", r.start, r.stop, got, r.want)
		}
	}
}

func testRecords(e *env) {
	oids := e.oids(4)
	slices.Reverse(oids) // the order of storing is not that of oids
	first := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		for _, oid := range oids {
			if err := tx.Store(e.ctx, oid, 0, Record(oid.String())); err != nil {
				return err
			}
		}
		return nil
	})
	second := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return errors.Join(tx.Delete(e.ctx, oids[2], first), tx.Store(e.ctx, oids[1], first, Record("second")))
	})
	want := []zeolite.DataRecord{
		{OID: oids[0], TID: first, Data: Record(oids[0].String())},
		{OID: oids[1], TID: first, Data: Record(oids[1].String())},
		{OID: oids[2], TID: first, Data: Record(oids[2].String())},
		{OID: oids[3], TID: first, Data: Record(oids[3].String())},
		{OID: oids[2], TID: second},
		{OID: oids[1], TID: second, Data: Record("second")},
	}
	var got, each []zeolite.DataRecord
	for t, err := range e.s.Transactions(e.ctx, 0, zeolite.MaxTID) {
		e.must(err)
		for r, err := range t.Each() {
			e.must(err)
			r.Data = slices.Clone(r.Data)
			each = append(each, r)
		}
		for r, err := range t.Records {
			e.must(err)
			if r.TID != t.TID {
				e.Errorf("transaction %v has a record with tid %v", t.TID, r.TID)
			}
			r.Data = slices.Clone(r.Data)
			got = append(got, r)
		}
	}
	if !slices.EqualFunc(got, want, equalRecords) {
		e.Errorf("records: got %q, want %q", got, want)
	}
	if !slices.EqualFunc(each, want, equalRecords) {
		e.Errorf("each record: got %q, want %q", each, want)
	}
}

func equalRecords(a, b zeolite.DataRecord) bool {
	return a.OID == b.OID && a.TID == b.TID && a.DataTID == b.DataTID &&
		bytes.Equal(a.Data, b.Data) && (a.Data == nil) == (b.Data == nil)
}

// Records can be ranged over repeatedly, and after the iteration that yielded
// them.
func testRecordsAgain(e *env) {
	oids := e.oids(3)
	for range 2 {
		e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
			for _, oid := range oids {
				if err := tx.Restore(e.ctx, oid, Record(oid.String()), 0); err != nil {
					return err
				}
			}
			return nil
		})
	}
	list := func(t *zeolite.TransactionRecord, n int) (got []zeolite.OID) {
		for r, err := range t.Records {
			e.must(err)
			if !bytes.Equal(r.Data, Record(r.OID.String())) {
				e.Errorf("record of %v: %s", r.OID, brief(r.Data))
			}
			if got = append(got, r.OID); len(got) == n {
				break
			}
		}
		return got
	}
	var kept []*zeolite.TransactionRecord
	for t, err := range e.s.Transactions(e.ctx, 0, zeolite.MaxTID) {
		e.must(err)
		wantList(e, "first record", list(t, 1), oids[:1])
		wantList(e, "all records", list(t, 99), oids)
		wantList(e, "all records again", list(t, 99), oids)
		kept = append(kept, t)
	}
	e.store(e.oid(), 0, Record("later"))
	for _, t := range kept {
		wantList(e, "records after the iteration", list(t, 99), oids)
	}
}

// An iteration that is broken off holds nothing.
func testStop(e *env) {
	tids := e.storeMany(4)
	for range 20 {
		for t, err := range e.s.Transactions(e.ctx, 0, zeolite.MaxTID) {
			e.must(err)
			if t.TID != tids[0] {
				e.Errorf("first transaction: got %v, want %v", t.TID, tids[0])
			}
			for _, err := range t.Records {
				e.must(err)
				break
			}
			break
		}
		for c, err := range e.s.Changes(e.ctx, tids[0]) {
			e.must(err)
			if c.TID != tids[1] {
				e.Errorf("first change: got %v, want %v", c.TID, tids[1])
			}
			break
		}
	}
	e.storeMany(1)
	if e.s.Info().Undo {
		u := e.s.(zeolite.Undoer)
		for _, err := range u.UndoLog(e.ctx) {
			e.must(err)
			break
		}
	}
	e.storeMany(1)
}

// The consumer may use the storage, and even write.
func testCommitMeanwhile(e *env) {
	tids := e.storeMany(3)
	var seen []zeolite.TID
	for t, err := range e.s.Transactions(e.ctx, 0, tids[2]) {
		e.must(err)
		seen = append(seen, t.TID)
		for r, err := range t.Records {
			e.must(err)
			e.wantSerial(r.OID, t.TID, r.Data)
			e.store(r.OID, r.TID, Record("y"))
		}
	}
	wantList(e, "Transactions", seen, tids)
	for c, err := range e.s.Changes(e.ctx, tids[1]) {
		e.must(err)
		e.store(e.oid(), 0, Record("z"))
		if c.TID > tids[2] {
			break // there would be no end if new transactions are included
		}
	}
}

func testChanges(e *env) {
	oids := e.oids(3)
	var want []zeolite.Change
	add := func(tid zeolite.TID, oids ...zeolite.OID) {
		want = append(want, zeolite.Change{TID: tid, OIDs: oids})
	}
	first := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return errors.Join(
			tx.Store(e.ctx, oids[0], 0, Record("a")),
			tx.Store(e.ctx, oids[1], 0, Record("a")),
			tx.Store(e.ctx, oids[0], 0, Record("b")), // once in Changes, all the same
		)
	})
	add(first, oids[0], oids[1])
	add(e.remove(oids[0], first), oids[0])
	restored := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return tx.Restore(e.ctx, oids[2], Record("restored"), 0)
	})
	add(restored, oids[2])
	if e.s.Info().Undo {
		add(e.undo(restored), oids[2])
	}
	check := func() {
		for i := range len(want) + 1 {
			after := zeolite.ZeroTID
			if i > 0 {
				after = want[i-1].TID
			}
			for _, after := range []zeolite.TID{after, after + 1} {
				if i < len(want) && after == want[i].TID {
					continue // TIDs may follow each other without a gap
				}
				n := i
				for c, err := range e.s.Changes(e.ctx, after) {
					e.must(err)
					if n == len(want) {
						e.Errorf("Changes(%v) yields %v too much", after, c)
						continue
					}
					if c.TID != want[n].TID {
						e.Errorf("Changes(%v): got %v, want %v", after, c.TID, want[n].TID)
					}
					wantSet(e, "oids of Changes", c.OIDs, want[n].OIDs)
					n++
				}
				if n != len(want) {
					e.Errorf("Changes(%v) ended after %d of %d", after, n-i, len(want)-i)
				}
			}
		}
	}
	check()
	e.reopen()
	check()
}

func testNextRecord(e *env) {
	if !e.s.Info().RecordIteration {
		if _, err := e.s.NextRecord(e.ctx, 0); !errors.Is(err, zeolite.ErrUnsupported) {
			e.Errorf("NextRecord: got error %v, want ErrUnsupported", err)
		}
		e.need("record iteration", false)
	}
	_, err := e.s.NextRecord(e.ctx, 0)
	e.wantNotFound("NextRecord of an empty storage", err)

	oids := append([]zeolite.OID{zeolite.RootOID}, e.oids(6)...)
	far := oids[6] + 70000 // past a page of any index
	oids = append(oids, far)
	slices.Sort(oids)
	first := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		for _, oid := range slices.Backward(oids) {
			if err := tx.Store(e.ctx, oid, 0, Record("first")); err != nil {
				return err
			}
		}
		return nil
	})
	e.walk(oids, 0)
	e.store(oids[2], first, Record("second"))
	e.walk(oids, 0)
	e.walk(oids[3:], oids[2]+1)
	_, err = e.s.NextRecord(e.ctx, far+1)
	e.wantNotFound("NextRecord after the last object", err)
	_, err = e.s.NextRecord(e.ctx, 1<<64-1)
	e.wantNotFound("NextRecord from the largest number", err)

}

func testNextRecordDeleted(e *env) {
	e.need("record iteration", e.s.Info().RecordIteration)
	oids := append([]zeolite.OID{zeolite.RootOID}, e.oids(6)...)
	far := oids[6] + 70000
	oids = append(oids, far)
	slices.Sort(oids)
	first := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		for _, oid := range oids {
			if err := tx.Store(e.ctx, oid, 0, Record("first")); err != nil {
				return err
			}
		}
		return nil
	})
	second := e.store(oids[2], first, Record("second"))
	e.remove(oids[0], first)
	e.remove(oids[2], second)
	e.remove(oids[3], first)
	e.remove(far, first)
	e.walk([]zeolite.OID{oids[1], oids[4], oids[5], oids[6]}, 0)
	e.walk([]zeolite.OID{oids[4], oids[5], oids[6]}, oids[2])
	_, err := e.s.NextRecord(e.ctx, far)
	e.wantNotFound("NextRecord of a deleted object, the last", err)
}

// walk checks that NextRecord finds these objects from an oid on.
func (e *env) walk(want []zeolite.OID, from zeolite.OID) {
	e.Helper()
	var got []zeolite.OID
	for more := true; more; {
		rec, err := e.s.NextRecord(e.ctx, from)
		if err != nil {
			e.Errorf("NextRecord(%v): %v", from, err)
			break
		}
		if rec.OID < from || len(got) > len(want) {
			e.Errorf("NextRecord(%v) returned %v", from, rec.OID)
			break
		}
		got = append(got, rec.OID)
		e.wantCurrent(rec.OID, rec.Data, rec.TID)
		from, more = rec.Next, rec.More
	}
	wantList(e, "NextRecord", got, want)
}
