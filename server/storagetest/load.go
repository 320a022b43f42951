package storagetest

import (
	"bytes"
	"errors"
	"slices"

	"github.com/zeolite-go/zeolite"
)

var loadTests = []test{
	{"Empty", testEmpty},
	{"Boundaries", testBoundaries},
	{"Deleted", testDeleted},
	{"TIDsOfAnySize", testTIDsOfAnySize},
	{"AnyBytes", testAnyBytes},
	{"ResultsBelongToCaller", testResultsBelongToCaller},
	{"LargeRecord", testLargeRecord},
	{"EmptyRecord", testEmptyRecord},
	{"History", testHistory},
	{"NewOIDs", testNewOIDs},
}

func testEmpty(e *env) {
	if tid := e.s.LastTID(); tid != zeolite.ZeroTID {
		e.Errorf("LastTID of an empty storage: %v", tid)
	}
	for _, oid := range []zeolite.OID{0, 1, 1 << 40, 1<<63 + 1, 1<<64 - 1} {
		e.wantGone(oid)
		_, err := e.s.LoadBefore(e.ctx, oid, 0)
		e.wantNotFound("LoadBefore(0)", err)
		e.wantSerial(oid, 0, nil)
		e.wantSerial(oid, 1, nil)
		_, err = e.s.History(e.ctx, oid, 1)
		e.wantNotFound("History", err)
	}
	if info := e.s.Info(); info.ReadOnly {
		e.Error("Info says read-only")
	}
}

func testBoundaries(e *env) {
	oid, other := e.oid(), e.oid()
	var tids []zeolite.TID
	var datas [][]byte
	serial := zeolite.ZeroTID
	for _, text := range []string{"first", "second", "third"} {
		data := Record(text)
		serial = e.storeAt(e.later(), oid, serial, data)
		tids, datas = append(tids, serial), append(datas, data)
		e.wantCurrent(oid, data, serial)
	}
	last := e.storeAt(e.later(), other, 0, Record("other")) // later, but of another object

	e.wantNotYet(oid, 0)
	e.wantNotYet(oid, 1)
	e.wantNotYet(oid, tids[0]-1)
	e.wantNotYet(oid, tids[0])
	for i, tid := range tids {
		end := zeolite.ZeroTID
		if i+1 < len(tids) {
			end = tids[i+1]
			e.wantLoad(oid, end-1, datas[i], tid, end)
			e.wantLoad(oid, end, datas[i], tid, end)
		}
		e.wantLoad(oid, tid+1, datas[i], tid, end)
		e.wantSerial(oid, tid, datas[i])
		e.wantSerial(oid, tid-1, nil)
		e.wantSerial(oid, tid+1, nil)
	}
	e.wantLoad(oid, last, datas[2], tids[2], 0)
	e.wantLoad(oid, last+1, datas[2], tids[2], 0)
	e.wantSerial(oid, last, nil)
	if got := e.s.LastTID(); got != last {
		e.Errorf("LastTID: got %v, want %v", got, last)
	}
}

func testDeleted(e *env) {
	oid := e.oid()
	data := Record("short life")
	born := e.store(oid, 0, data)
	died := e.remove(oid, born)
	e.wantGone(oid)
	e.wantLoad(oid, died, data, born, died)
	e.wantNotYet(oid, born)
	_, err := e.s.LoadBefore(e.ctx, oid, died+1)
	e.wantNotFound("LoadBefore after the deletion", err)
	e.wantSerial(oid, born, data)
	e.wantSerial(oid, died, nil)

	// Writing the object again continues its history.
	for _, serial := range []zeolite.TID{born, died - 1, died + 1} {
		err := e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
			return tx.Store(e.ctx, oid, serial, Record("ghost"))
		})
		e.wantConflict(err, zeolite.ConflictError{OID: oid, Committed: died, Seen: serial})
	}
	again := Record("again")
	back := e.store(oid, died, again)
	e.wantCurrent(oid, again, back)
	_, err = e.s.LoadBefore(e.ctx, oid, back)
	e.wantNotFound("LoadBefore between deletion and return", err)
	e.wantLoad(oid, died, data, born, died)
}

// A TID is 8 bytes, and a peer may send any.
func testTIDsOfAnySize(e *env) {
	oid := e.oid()
	data := Record("x")
	tid := e.store(oid, 0, data)
	for _, before := range []zeolite.TID{zeolite.MaxTID, zeolite.MaxTID + 1, 1<<64 - 1} {
		e.wantLoad(oid, before, data, tid, 0)
	}
	e.wantSerial(oid, zeolite.MaxTID, nil)
	e.wantSerial(oid, 1<<64-1, nil)
	n := 0
	for _, err := range e.s.Transactions(e.ctx, 0, 1<<64-1) {
		e.must(err)
		n++
	}
	if n != 1 {
		e.Errorf("Transactions up to the largest number yields %d transactions, want 1", n)
	}
	for c, err := range e.s.Changes(e.ctx, 1<<64-1) {
		e.Errorf("Changes after the largest number yields %v, %v", c, err)
	}
}

// A storage never looks into records.
func testAnyBytes(e *env) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, data := range [][]byte{{0}, {'.'}, all, bytes.Repeat([]byte{0xff}, 70000), []byte("FS30"), make([]byte, 8)} {
		oid := e.oid()
		tid := e.store(oid, 0, data)
		e.wantCurrent(oid, data, tid)
	}
}

func testResultsBelongToCaller(e *env) {
	oid := e.oid()
	want := Record("unspoilt")
	given := slices.Clone(want)
	tid := e.store(oid, 0, given)
	spoil(given)
	rev, err := e.s.LoadBefore(e.ctx, oid, zeolite.MaxTID)
	e.must(err)
	spoil(rev.Data)
	data, err := e.s.LoadSerial(e.ctx, oid, tid)
	e.must(err)
	spoil(data)
	for t, err := range e.s.Transactions(e.ctx, 0, zeolite.MaxTID) {
		e.must(err)
		for r, err := range t.Records {
			e.must(err)
			spoil(r.Data)
		}
	}
	e.wantCurrent(oid, want, tid)
}

func spoil(b []byte) {
	for i := range b {
		b[i] ^= 0xff
	}
}

func testLargeRecord(e *env) {
	oid := e.oid()
	data := noise(1, 16<<20)
	tid := e.store(oid, 0, data)
	e.wantCurrent(oid, data, tid)
}

// Data.fs cannot keep a record of no bytes, so no storage takes one: the
// answer is an error and not a damaged database.
func testEmptyRecord(e *env) {
	oid := e.oid()
	var wrong *zeolite.StorageError
	err := e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.Store(e.ctx, oid, 0, []byte{}) })
	if !errors.As(err, &wrong) {
		e.Errorf("storing an empty record: got error %v, want *StorageError", err)
	}
	err = e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.Store(e.ctx, oid, 0, nil) })
	if !errors.As(err, &wrong) {
		e.Errorf("storing nil: got error %v, want *StorageError", err)
	}
	e.wantGone(oid)
	tid := e.store(oid, 0, Record("x"))
	e.wantCurrent(oid, Record("x"), tid)
}

func testHistory(e *env) {
	oid := e.oid()
	datas := [][]byte{Record("a"), Record("bb"), nil, Record("dddd")}
	var tids []zeolite.TID
	for i, data := range datas {
		meta := zeolite.TxnMeta{
			User:        []byte{'u', byte('0' + i)},
			Description: []byte{'d', byte('0' + i)},
		}
		var serial zeolite.TID
		if i > 0 {
			serial = tids[i-1]
		}
		tids = append(tids, e.commit(meta, func(tx zeolite.Txn) error {
			if data == nil {
				return tx.Delete(e.ctx, oid, serial)
			}
			return tx.Store(e.ctx, oid, serial, data)
		}))
		e.store(e.oid(), 0, Record("not in this history"))
	}
	for _, n := range []int{1, 2, 3, 4, 5, 1000} {
		got, err := e.s.History(e.ctx, oid, n)
		e.must(err)
		if len(got) != min(n, 4) {
			e.Errorf("History(%d): got %d entries", n, len(got))
			continue
		}
		for i, info := range got {
			j := len(datas) - 1 - i
			if info.TID != tids[j] || info.Size != int64(len(datas[j])) ||
				string(info.User) != string([]byte{'u', byte('0' + j)}) ||
				string(info.Description) != string([]byte{'d', byte('0' + j)}) {
				e.Errorf("History(%d)[%d]: got %v, size %d, user %q, description %q; want that of transaction %d, %v, size %d",
					n, i, info.TID, info.Size, info.User, info.Description, j, tids[j], len(datas[j]))
			}
		}
	}
}

func testNewOIDs(e *env) {
	seen := map[zeolite.OID]bool{zeolite.RootOID: true}
	fresh := func(n int) []zeolite.OID {
		oids := e.oids(n)
		for _, oid := range oids {
			if seen[oid] {
				e.Fatalf("NewOIDs returned %v again", oid)
			}
			seen[oid] = true
		}
		return oids
	}
	for range 5 {
		fresh(1)
		fresh(100)
	}
	// Oids that objects have already, though nobody asked for them.
	taken := slices.Max(fresh(1)) + 5
	seen[taken] = true
	e.store(taken, 0, Record("took its own oid"))
	fresh(50)
	stored := fresh(3)
	tx := e.begin(zeolite.TxnMeta{})
	for _, oid := range stored {
		e.must(tx.Store(e.ctx, oid, 0, Record("x")))
	}
	e.must(tx.Vote(e.ctx))
	_, err := tx.Finish(e.ctx, nil)
	e.must(err)
	if _, err := e.s.NewOIDs(e.ctx, 0); err == nil && !e.h.Remote {
		e.Error("NewOIDs(0) succeeded")
	}
	e.reopen()
	fresh(500)
}
