package storagetest

import "github.com/zeolite-go/zeolite"

// A TID that is given leaves room for those that follow.
func testFarTID(e *env) {
	oid := e.oid()
	first := e.store(oid, 0, Record("first"))
	for _, tid := range []zeolite.TID{zeolite.MaxTID - 1, zeolite.MaxTID - 1<<40} {
		e.refused(zeolite.TxnMeta{TID: tid}, func(tx zeolite.Txn) error {
			return tx.Store(e.ctx, oid, first, Record("far"))
		})
	}
	second := e.storeAt(zeolite.MaxTID-1<<56, oid, first, Record("second"))
	third := e.store(oid, second, Record("third"))
	fourth := e.storeAt(third.Successor(), oid, third, Record("fourth")) // as a copy of this would
	fifth := e.store(oid, fourth, Record("fifth"))
	e.reopen()
	sixth := e.store(oid, fifth, Record("sixth"))
	e.wantCurrent(oid, Record("sixth"), sixth)
}

// Whatever oids clients choose, there is room for new ones.
func testFarOID(e *env) {
	if e.h.Remote {
		e.doesNotApply("it is the server that counts oids")
	}
	for _, oid := range []zeolite.OID{1<<63 - 1, 1<<63 - 2, 1<<63 - 1<<40, 1 << 63, 1<<64 - 1} {
		e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.Store(e.ctx, oid, 0, Record("far")) })
		e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.Restore(e.ctx, oid, Record("far"), 0) })
	}
	count := func() {
		for _, oid := range e.oids(100) {
			e.store(oid, 0, Record("new"))
		}
	}
	tx := e.begin(zeolite.TxnMeta{})
	e.must(tx.Store(e.ctx, 3<<61, 0, Record("aborted")))
	e.must(tx.Vote(e.ctx))
	tx.Abort()
	count()
	for _, oid := range []zeolite.OID{1<<62 + 1000, 3 << 61} { // DemoStorage counts from some oid up to 1<<62
		e.store(oid, 0, Record("chosen"))
		count()
		e.reopen()
		count()
	}
}
