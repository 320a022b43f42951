package storagetest

import (
	"errors"
	"math/rand/v2"
	"strings"

	"github.com/zeolite-go/zeolite"
)

var commitTests = []test{
	{"Store", testStore},
	{"StoreConflict", testStoreConflict},
	{"ResolveConflict", testResolveConflict},
	{"DeleteErrors", testDeleteErrors},
	{"CheckCurrent", testCheckCurrent},
	{"LastStoreWins", testLastStoreWins},
	{"ManyObjects", testManyObjects},
	{"NoObjects", testNoObjects},
	{"Abort", testAbort},
	{"WrongOrder", testWrongOrder},
	{"Meta", testMeta},
	{"MetaTooLong", testMetaTooLong},
	{"GivenTID", testGivenTID},
	{"FarTID", testFarTID},
	{"FarOID", testFarOID},
}

// noise returns n bytes that do not compress and differ by seed.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b) // never fails
	return b
}

func testStore(e *env) {
	oids := e.oids(2)
	before := e.s.LastTID()
	tid := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		if err := tx.Store(e.ctx, oids[0], 0, Record("zero")); err != nil {
			return err
		}
		return tx.Store(e.ctx, oids[1], 0, Record("one"))
	})
	if tid <= before || e.s.LastTID() != tid {
		e.Errorf("Finish: %v, LastTID: %v, before: %v", tid, e.s.LastTID(), before)
	}
	e.wantCurrent(oids[0], Record("zero"), tid)
	e.wantCurrent(oids[1], Record("one"), tid)
}

func testStoreConflict(e *env) {
	oid, other := e.oid(), e.oid()
	first := e.store(oid, 0, Record("first"))
	second := e.store(oid, first, Record("second"))
	for _, serial := range []zeolite.TID{0, first, first - 1, second - 1, second + 1} {
		err := e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
			return tx.Store(e.ctx, oid, serial, Record("lost update"))
		})
		e.wantConflict(err, zeolite.ConflictError{OID: oid, Committed: second, Seen: serial})
	}
	e.wantCurrent(oid, Record("second"), second)
	if e.h.Remote {
		return
	}

	// A call that failed leaves the transaction as it was.
	tx := e.begin(zeolite.TxnMeta{})
	e.must(tx.Store(e.ctx, other, 0, Record("other")))
	for range 3 {
		err := tx.Store(e.ctx, oid, first, Record("lost update"))
		e.wantConflict(err, zeolite.ConflictError{OID: oid, Committed: second, Seen: first})
	}
	e.must(tx.Vote(e.ctx))
	tid, err := tx.Finish(e.ctx, func(_ zeolite.TID, oids []zeolite.OID, visible func()) {
		wantSet(e, "changed objects", oids, []zeolite.OID{other})
		visible()
	})
	e.must(err)
	e.wantCurrent(other, Record("other"), tid)
	e.wantCurrent(oid, Record("second"), second)
}

// A conflict is over when the object is stored again with the right serial.
func testResolveConflict(e *env) {
	if e.h.Remote {
		e.doesNotApply("which conflicts may be resolved is between the peers")
	}
	oid := e.oid()
	first := e.store(oid, 0, Record("first"))
	second := e.store(oid, first, Record("second"))
	tid := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		e.wantConflict(tx.Store(e.ctx, oid, first, Record("mine")),
			zeolite.ConflictError{OID: oid, Committed: second, Seen: first})
		return tx.Store(e.ctx, oid, second, Record("resolved"))
	})
	e.wantCurrent(oid, Record("resolved"), tid)
}

func testDeleteErrors(e *env) {
	oid, unknown := e.oid(), e.oid()
	first := e.store(oid, 0, Record("first"))
	second := e.store(oid, first, Record("second"))
	err := e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.Delete(e.ctx, unknown, 0) })
	e.wantNotFound("Delete", err)
	for _, serial := range []zeolite.TID{0, first, second + 1} {
		err := e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.Delete(e.ctx, oid, serial) })
		e.wantConflict(err, zeolite.ConflictError{OID: oid, Committed: second, Seen: serial})
	}
	e.wantCurrent(oid, Record("second"), second)
	e.remove(oid, second)
	e.wantGone(oid)
}

func testCheckCurrent(e *env) {
	read, written, gone, unknown := e.oid(), e.oid(), e.oid(), e.oid()
	first := e.store(read, 0, Record("first"))
	second := e.store(read, first, Record("second"))
	died := e.remove(gone, e.store(gone, 0, Record("gone")))

	for _, serial := range []zeolite.TID{0, first, second + 1} {
		err := e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
			if err := tx.Store(e.ctx, written, 0, Record("written")); err != nil {
				return err
			}
			return tx.CheckCurrent(e.ctx, read, serial)
		})
		e.wantConflict(err, zeolite.ConflictError{OID: read, Committed: second, Seen: serial, Read: true})
	}
	for _, oid := range []zeolite.OID{unknown, gone} {
		err := e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.CheckCurrent(e.ctx, oid, died) })
		e.wantNotFound("CheckCurrent", err)
	}
	e.wantGone(written)

	tid := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		if err := tx.CheckCurrent(e.ctx, read, second); err != nil {
			return err
		}
		return tx.Store(e.ctx, written, 0, Record("written"))
	})
	e.wantCurrent(written, Record("written"), tid)
	e.wantCurrent(read, Record("second"), second) // checking is not writing
	for c, err := range e.s.Changes(e.ctx, tid-1) {
		e.must(err)
		wantSet(e, "changed objects", c.OIDs, []zeolite.OID{written})
	}
}

func testLastStoreWins(e *env) {
	oids := e.oids(4)
	again, dead, alive, fresh := oids[0], oids[1], oids[2], oids[3]
	first := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		for _, oid := range oids[:3] {
			if err := tx.Store(e.ctx, oid, 0, Record("first")); err != nil {
				return err
			}
		}
		return nil
	})
	tid := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return errors.Join(
			tx.Store(e.ctx, fresh, 0, Record("wrong")),
			tx.Store(e.ctx, again, first, Record("wrong")),
			tx.Store(e.ctx, dead, first, Record("wrong")),
			tx.Delete(e.ctx, alive, first),
			tx.Store(e.ctx, again, first, Record("again")),
			tx.Delete(e.ctx, dead, first),
			tx.Store(e.ctx, alive, first, Record("alive")),
			tx.Store(e.ctx, fresh, 0, Record("fresh")),
		)
	})
	e.wantCurrent(fresh, Record("fresh"), tid)
	e.wantCurrent(again, Record("again"), tid)
	e.wantCurrent(alive, Record("alive"), tid)
	e.wantGone(dead)
	e.wantLoad(dead, tid, Record("first"), first, tid)
	for t, err := range e.s.Transactions(e.ctx, tid, tid) {
		e.must(err)
		var stored []zeolite.OID
		for r, err := range t.Records {
			e.must(err)
			stored = append(stored, r.OID)
		}
		wantSet(e, "records", stored, oids)
	}
}

func testManyObjects(e *env) {
	oids := e.oids(3000)
	tid := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		for _, oid := range oids {
			if err := tx.Store(e.ctx, oid, 0, Record(oid.String())); err != nil {
				return err
			}
		}
		return nil
	})
	for i := 0; i < len(oids); i += 97 {
		e.wantCurrent(oids[i], Record(oids[i].String()), tid)
	}
	for c, err := range e.s.Changes(e.ctx, tid-1) {
		e.must(err)
		wantSet(e, "changed objects", c.OIDs, oids)
	}
}

// A transaction that only read may be committed too. Whether the storage keeps
// it is its own affair, but LastTID must not go back when it is opened again:
// a client's cache must never know more than its server.
func testNoObjects(e *env) {
	oid := e.oid()
	first := e.store(oid, 0, Record("x"))
	tid := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.CheckCurrent(e.ctx, oid, first) })
	last := e.s.LastTID()
	if tid <= first || (last != first && last != tid) {
		e.Errorf("LastTID after an empty transaction %v: %v, before: %v", tid, last, first)
	}
	next := e.store(oid, first, Record("y"))
	if next <= tid {
		e.Errorf("transaction %v follows %v", next, tid)
	}
	e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.CheckCurrent(e.ctx, oid, next) })
	last = e.s.LastTID()
	e.reopen()
	if now := e.s.LastTID(); now != last {
		e.Errorf("LastTID was %v, is %v after opening again", last, now)
	}
}

func testAbort(e *env) {
	oid, fresh := e.oid(), e.oid()
	first := e.store(oid, 0, Record("first"))
	phases := []struct {
		name string
		do   func(tx zeolite.Txn)
	}{
		{"begun", func(zeolite.Txn) {}},
		{"stored", func(tx zeolite.Txn) {
			e.must(tx.Store(e.ctx, oid, first, Record("aborted")))
			e.must(tx.Store(e.ctx, fresh, 0, Record("aborted")))
		}},
		{"deleted", func(tx zeolite.Txn) { e.must(tx.Delete(e.ctx, oid, first)) }},
		{"conflict", func(tx zeolite.Txn) {
			e.must(tx.Store(e.ctx, fresh, 0, Record("aborted")))
			if err := tx.Store(e.ctx, oid, first-1, Record("aborted")); err == nil && !e.h.Remote {
				e.Fatal("no conflict")
			}
		}},
		{"vote failed", func(tx zeolite.Txn) {
			err := tx.Store(e.ctx, oid, first-1, Record("aborted"))
			if err == nil {
				err = tx.Vote(e.ctx)
			}
			if err == nil {
				e.Fatal("no conflict")
			}
		}},
		{"voted", func(tx zeolite.Txn) {
			e.must(tx.Store(e.ctx, oid, first, Record("aborted")))
			e.must(tx.Store(e.ctx, fresh, 0, Record("aborted")))
			e.must(tx.Vote(e.ctx))
		}},
	}
	for _, phase := range phases {
		tx := e.begin(zeolite.TxnMeta{Description: []byte(phase.name)})
		phase.do(tx)
		tx.Abort()
		tx.Abort()
		if err := tx.Vote(e.ctx); err == nil {
			e.Errorf("%s: Vote after Abort succeeded", phase.name)
		}
		if _, err := tx.Finish(e.ctx, nil); err == nil {
			e.Errorf("%s: Finish after Abort succeeded", phase.name)
		}
		tx.Abort()
		e.wantCurrent(oid, Record("first"), first)
		e.wantGone(fresh)
		if last := e.s.LastTID(); last != first {
			e.Errorf("%s: LastTID after Abort: got %v, want %v", phase.name, last, first)
		}
	}

	tx := e.begin(zeolite.TxnMeta{})
	e.must(tx.Store(e.ctx, oid, first, Record("second")))
	e.must(tx.Vote(e.ctx))
	second, err := tx.Finish(e.ctx, nil)
	e.must(err)
	tx.Abort()
	e.wantCurrent(oid, Record("second"), second)
	e.store(fresh, 0, Record("not aborted"))
	e.reopen()
	e.wantCurrent(oid, Record("second"), second)
}

// Calls in the wrong order are errors and do no harm.
func testWrongOrder(e *env) {
	oid := e.oid()
	first := e.store(oid, 0, Record("first"))

	tx := e.begin(zeolite.TxnMeta{})
	e.must(tx.Store(e.ctx, oid, first, Record("not voted")))
	if _, err := tx.Finish(e.ctx, nil); err == nil {
		e.Error("Finish without Vote succeeded")
	}
	tx.Abort()
	e.wantCurrent(oid, Record("first"), first)

	tx = e.begin(zeolite.TxnMeta{})
	e.must(tx.Store(e.ctx, oid, first, Record("second")))
	e.must(tx.Vote(e.ctx))
	if err := tx.Store(e.ctx, oid, first, Record("late")); err == nil {
		e.Error("Store after Vote succeeded")
	}
	if err := tx.Delete(e.ctx, oid, first); err == nil {
		e.Error("Delete after Vote succeeded")
	}
	second, err := tx.Finish(e.ctx, nil)
	e.must(err)
	e.wantCurrent(oid, Record("second"), second)
	if err := tx.Store(e.ctx, oid, second, Record("late")); err == nil {
		e.Error("Store after Finish succeeded")
	}
	if err := tx.Vote(e.ctx); err == nil {
		e.Error("Vote after Finish succeeded")
	}
	if _, err := tx.Finish(e.ctx, nil); err == nil {
		e.Error("a second Finish succeeded")
	}
	tx.Abort()
	e.wantCurrent(oid, Record("second"), second)
	if last := e.s.LastTID(); last != second {
		e.Errorf("LastTID: got %v, want %v", last, second)
	}
}

func testMeta(e *env) {
	metas := []zeolite.TxnMeta{
		{},
		{User: []byte("/ jürgen"), Description: []byte("Übergrößenträger 日本語 \U0001f600\nsecond line")},
		{User: []byte(" "), Description: []byte("\x00 nul and \x7f"), Extension: Extension("wert ü")},
		{User: []byte(strings.Repeat("u", 65535)), Description: []byte(strings.Repeat("ü", 32767) + "d"),
			Extension: Extension(strings.Repeat("e", 65535-24))},
	}
	oid := e.oid()
	var serial zeolite.TID
	for _, meta := range metas {
		if e.h.Remote && len(meta.Extension) > 60000 {
			meta.Extension = nil // may grow when it is pickled again
		}
		serial = e.commit(meta, func(tx zeolite.Txn) error { return tx.Store(e.ctx, oid, serial, Record("x")) })
	}
	check := func() {
		i := 0
		for t, err := range e.s.Transactions(e.ctx, 0, zeolite.MaxTID) {
			e.must(err)
			if i == len(metas) {
				e.Fatalf("transaction %v is too much", t.TID)
			}
			e.wantMeta(t.TransactionInfo, metas[i])
			if t.Status != ' ' {
				e.Errorf("transaction %v has status %q", t.TID, t.Status)
			}
			i++
		}
		if i != len(metas) {
			e.Errorf("got %d transactions, want %d", i, len(metas))
		}
	}
	check()
	e.reopen()
	check()
}

func (e *env) wantMeta(got zeolite.TransactionInfo, want zeolite.TxnMeta) {
	e.Helper()
	if string(got.User) != string(want.User) {
		e.Errorf("user: got %s, want %s", brief(got.User), brief(want.User))
	}
	if string(got.Description) != string(want.Description) {
		e.Errorf("description: got %s, want %s", brief(got.Description), brief(want.Description))
	}
	if string(got.Extension) != string(want.Extension) && !e.h.Remote {
		e.Errorf("extension: got %s, want %s", brief(got.Extension), brief(want.Extension))
	}
}

func testMetaTooLong(e *env) {
	long := []byte(strings.Repeat("x", 65536))
	oid := e.oid()
	first := e.store(oid, 0, Record("first"))
	for _, meta := range []zeolite.TxnMeta{
		{User: long},
		{Description: long},
		{Extension: Extension(string(long))},
	} {
		err := e.refused(meta, func(tx zeolite.Txn) error {
			if err := tx.Store(e.ctx, oid, first, Record("second")); err != nil {
				return err
			}
			return tx.Vote(e.ctx)
		})
		e.Logf("refused with: %v", err)
	}
	e.wantCurrent(oid, Record("first"), first)
}

func testGivenTID(e *env) {
	oid := e.oid()
	first := e.storeAt(at(10), oid, 0, Record("first"))
	second := e.storeAt(first+1, oid, first, Record("second"))
	third := e.storeAt(at(20), oid, second, Record("third"))
	e.wantCurrent(oid, Record("third"), third)
	e.wantLoad(oid, first+1, Record("first"), first, second)
	e.wantLoad(oid, first+2, Record("second"), second, third)
	for _, tid := range []zeolite.TID{third, second, third - 1, 1} {
		e.refused(zeolite.TxnMeta{TID: tid}, func(tx zeolite.Txn) error {
			return tx.Store(e.ctx, oid, third, Record("out of order"))
		})
	}
	fourth := e.store(oid, third, Record("fourth"))
	if fourth <= third {
		e.Errorf("transaction %v follows %v", fourth, third)
	}

	// The clock may be behind the last transaction.
	ahead := zeolite.TIDFromTime(fourth.Time().AddDate(1, 0, 0))
	fifth := e.storeAt(ahead, oid, fourth, Record("fifth"))
	sixth := e.store(oid, fifth, Record("sixth"))
	seventh := e.store(oid, sixth, Record("seventh"))
	if !(fifth < sixth && sixth < seventh) {
		e.Errorf("tids do not grow: %v %v %v", fifth, sixth, seventh)
	}
	e.wantCurrent(oid, Record("seventh"), seventh)
}
