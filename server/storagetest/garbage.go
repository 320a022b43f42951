package storagetest

import (
	"errors"

	"github.com/zeolite-go/zeolite"
)

var garbageTests = []test{
	{"Unreachable", testGarbage},
	{"OfThen", testGarbageOfThen},
	{"Keep", testKeepGarbage},
	{"NewOIDs", testGarbageNewOIDs},
	{"NoRoot", testGarbageNoRoot},
}

// world has the objects of newWorld besides the root.
type world struct{ a, b, gone, lost, ring1, ring2 zeolite.OID }

// newWorld commits, at second 1, a root and what it leads to, root -> a -> b and
// root -> gone -> lost, and two objects that refer to each other only.
func (e *env) newWorld() world {
	e.Helper()
	o := e.oids(6)
	w := world{o[0], o[1], o[2], o[3], o[4], o[5]}
	e.commit(zeolite.TxnMeta{TID: at(1)}, func(tx zeolite.Txn) error {
		return errors.Join(
			tx.Store(e.ctx, zeolite.RootOID, 0, Record("root", w.a, w.gone)),
			tx.Store(e.ctx, w.a, 0, Record("a", w.b)),
			tx.Store(e.ctx, w.b, 0, Record("b", zeolite.RootOID, w.a)),
			tx.Store(e.ctx, w.gone, 0, Record("gone", w.lost)),
			tx.Store(e.ctx, w.lost, 0, Record("lost")),
			tx.Store(e.ctx, w.ring1, 0, Record("ring", w.ring2)),
			tx.Store(e.ctx, w.ring2, 0, Record("ring", w.ring1)),
		)
	})
	return w
}

func testGarbage(e *env) {
	e.needPack()
	w := e.newWorld()
	e.storeAt(at(2), zeolite.RootOID, at(1), Record("root", w.a))
	e.storeAt(at(3), w.gone, at(1), Record("still gone", w.lost))
	e.pack(at(3.5), true)
	check := func() {
		e.wantCurrent(zeolite.RootOID, Record("root", w.a), at(2))
		e.wantCurrent(w.a, Record("a", w.b), at(1))
		e.wantCurrent(w.b, Record("b", zeolite.RootOID, w.a), at(1))
		for _, oid := range []zeolite.OID{w.gone, w.lost, w.ring1, w.ring2} {
			e.wantGone(oid)
			e.wantSerial(oid, at(1), nil)
			e.wantSerial(oid, at(3), nil)
			_, err := e.s.History(e.ctx, oid, 1)
			e.wantNotFound("History of garbage", err)
		}
		if e.s.Info().RecordIteration {
			e.walk([]zeolite.OID{zeolite.RootOID, w.a, w.b}, 0)
		}
		if last := e.s.LastTID(); last != at(3) {
			e.Errorf("LastTID: got %v, want %v", last, at(3))
		}
	}
	check()
	e.reopen()
	check()
}

// Garbage is what was unreachable at the moment of the pack: what became
// unreachable since, or was made since, stays.
func testGarbageOfThen(e *env) {
	e.needPack()
	w := e.newWorld()
	made := e.oid()
	e.storeAt(at(2), w.a, at(1), Record("a2", w.b))
	e.storeAt(at(3), zeolite.RootOID, at(1), Record("root", w.a))
	e.storeAt(at(4), made, 0, Record("nobody refers to it yet"))
	e.pack(at(2.5), true)
	e.wantCurrent(w.gone, Record("gone", w.lost), at(1))
	e.wantCurrent(w.lost, Record("lost"), at(1))
	e.wantCurrent(made, Record("nobody refers to it yet"), at(4))
	e.wantCurrent(w.a, Record("a2", w.b), at(2))
	e.wantSerial(w.a, at(1), nil)
	e.wantLoad(zeolite.RootOID, at(3), Record("root", w.a, w.gone), at(1), at(3))
	e.wantGone(w.ring1)
	e.wantGone(w.ring2)

	e.storeAt(at(5), zeolite.RootOID, at(3), Record("root", w.a, made))
	e.pack(at(5.5), true)
	e.wantGone(w.gone)
	e.wantGone(w.lost)
	e.wantCurrent(made, Record("nobody refers to it yet"), at(4))
}

func testKeepGarbage(e *env) {
	e.needPack()
	w := e.newWorld()
	e.storeAt(at(2), zeolite.RootOID, at(1), Record("root"))
	e.pack(at(2.5), false)
	e.wantSerial(zeolite.RootOID, at(1), nil)
	e.wantCurrent(w.a, Record("a", w.b), at(1))
	e.wantCurrent(w.lost, Record("lost"), at(1))
	e.wantCurrent(w.ring1, Record("ring", w.ring2), at(1))
	// What was reachable at an earlier moment cannot be told any more.
	e.pack(at(1.5), true)
	e.wantCurrent(zeolite.RootOID, Record("root"), at(2))
	e.wantCurrent(w.lost, Record("lost"), at(1))
	e.wantCurrent(w.ring1, Record("ring", w.ring2), at(1))
	// The next pack takes it.
	e.storeAt(at(3), zeolite.RootOID, at(2), Record("root, later"))
	e.pack(at(3.5), true)
	e.wantGone(w.a)
	e.wantGone(w.lost)
	e.wantGone(w.ring1)
}

// An oid is never handed out again, even if its object was garbage.
func testGarbageNewOIDs(e *env) {
	e.needPack()
	e.storeAt(at(1), zeolite.RootOID, 0, Record("root"))
	oids := e.oids(10)
	garbage := oids[9]
	e.storeAt(at(2), garbage, 0, Record("garbage"))
	e.pack(at(2.5), true)
	e.wantGone(garbage)
	old := map[zeolite.OID]bool{}
	for _, oid := range oids {
		old[oid] = true
	}
	for _, oid := range e.oids(200) {
		if old[oid] || oid == zeolite.RootOID {
			e.Errorf("NewOIDs returned %v again", oid)
		}
	}
}

// Without a root everything would be garbage. Whatever a storage makes of it,
// an error must leave the database as it was.
func testGarbageNoRoot(e *env) {
	e.needPack()
	oid := e.oid()
	tids := e.revise(oid, 3)
	yes := true
	if err := e.s.(zeolite.Packer).Pack(e.ctx, at(3.5), zeolite.PackOptions{GC: &yes}); err == nil {
		return
	}
	e.wantTIDs(tids)
	e.wantCurrent(oid, Record("3"), tids[2])
	e.pack(at(3.5), false)
	e.wantTIDs(tids[2:])
	e.wantCurrent(oid, Record("3"), tids[2])
}
