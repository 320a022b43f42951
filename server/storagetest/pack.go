package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/zeolite-go/zeolite"
)

var packTests = []test{
	{"Unsupported", testPackUnsupported},
	{"Empty", testPackEmpty},
	{"Superseded", testPackSuperseded},
	{"All", testPackAll},
	{"Earlier", testPackEarlier},
	{"Again", testPackAgain},
	{"Deleted", testPackDeleted},
	{"SharedData", testPackSharedData},
	{"Undo", testPackUndo},
	{"Blobs", testPackBlobs},
	{"EndedContext", testPackEndedContext},
	{"Progress", testPackProgress},
	{"CommitMeanwhile", testPackCommitMeanwhile},
}

func testPackUnsupported(e *env) {
	if e.s.Info().Pack {
		e.doesNotApply("the storage can pack")
	}
	if p, ok := e.s.(zeolite.Packer); ok {
		if err := p.Pack(e.ctx, zeolite.MaxTID, zeolite.PackOptions{}); !errors.Is(err, zeolite.ErrUnsupported) {
			e.Errorf("Pack: got error %v, want ErrUnsupported", err)
		}
	}
}

// pack packs. The moments that tests name lie between transactions, half a
// second off: a remote storage rounds them.
func (e *env) pack(tid zeolite.TID, gc bool) {
	e.Helper()
	e.must(e.s.(zeolite.Packer).Pack(e.ctx, tid, zeolite.PackOptions{GC: &gc}))
}

// revise commits n revisions of an object, at seconds 1 to n. The payload of
// each is its number.
func (e *env) revise(oid zeolite.OID, n int) []zeolite.TID {
	e.Helper()
	var tids []zeolite.TID
	serial := zeolite.ZeroTID
	for i := 1; i <= n; i++ {
		serial = e.storeAt(at(float64(i)), oid, serial, Record(fmt.Sprint(i)))
		tids = append(tids, serial)
	}
	return tids
}

func testPackEmpty(e *env) {
	e.needPack()
	e.pack(at(1), false)
	e.pack(at(2), true)
	oid := e.oid()
	tid := e.store(oid, 0, Record("x"))
	e.wantCurrent(oid, Record("x"), tid)
}

func testPackSuperseded(e *env) {
	e.needPack()
	oid := e.oid()
	tids := e.revise(oid, 5)
	e.pack(at(3.5), false)
	check := func() {
		e.wantSerial(oid, tids[0], nil)
		e.wantSerial(oid, tids[1], nil)
		e.wantLoad(oid, at(3.5), Record("3"), tids[2], tids[3])
		e.wantLoad(oid, tids[3], Record("3"), tids[2], tids[3])
		e.wantLoad(oid, tids[4], Record("4"), tids[3], tids[4])
		e.wantCurrent(oid, Record("5"), tids[4])
		e.wantSerial(oid, tids[2], Record("3"))
		e.wantSerial(oid, tids[3], Record("4"))
		e.wantNotYet(oid, tids[2])
		if n := revisions(e, oid); n != 3 {
			e.Errorf("History has %d entries, want 3", n)
		}
		if last := e.s.LastTID(); last != tids[4] {
			e.Errorf("LastTID: got %v, want %v", last, tids[4])
		}
		e.wantTIDs(tids[2:])
	}
	check()
	e.reopen()
	check()
	next := e.store(oid, tids[4], Record("6"))
	e.wantCurrent(oid, Record("6"), next)
}

// What commits after Pack was called is never packed, even if the moment is in
// the future.
func testPackAll(e *env) {
	e.needPack()
	oid := e.oid()
	tids := e.revise(oid, 5)
	future := zeolite.TIDFromTime(tids[4].Time().AddDate(0, 0, 1))
	e.pack(future, false)
	e.wantCurrent(oid, Record("5"), tids[4])
	e.wantTIDs(tids[4:])
	next := e.storeAt(at(6), oid, tids[4], Record("6"))
	e.wantLoad(oid, next, Record("5"), tids[4], next)
	e.pack(future, false)
	e.wantCurrent(oid, Record("6"), next)
	e.wantSerial(oid, tids[4], nil)
}

func testPackEarlier(e *env) {
	e.needPack()
	oid := e.oid()
	tids := e.revise(oid, 5)
	e.pack(at(0.5), false)
	e.wantTIDs(tids)
	e.pack(at(3.5), false)
	for _, n := range []float64{0, 1.5, 2.5, 3.5} {
		e.pack(at(n), false)
		e.wantTIDs(tids[2:])
		e.wantLoad(oid, tids[3], Record("3"), tids[2], tids[3])
		e.wantLoad(oid, tids[4], Record("4"), tids[3], tids[4])
		e.wantCurrent(oid, Record("5"), tids[4])
	}
}

func testPackAgain(e *env) {
	e.needPack()
	oid := e.oid()
	tids := e.revise(oid, 6)
	for n := 1; n <= 6; n++ {
		e.pack(at(float64(n)+0.5), false)
		e.wantTIDs(tids[n-1:])
		e.wantCurrent(oid, Record("6"), tids[5])
		e.wantSerial(oid, tids[n-1], Record(fmt.Sprint(n)))
	}
}

func testPackDeleted(e *env) {
	e.needPack()
	oids := e.oids(3)
	dead, later, back := oids[0], oids[1], oids[2]
	e.commit(zeolite.TxnMeta{TID: at(1)}, func(tx zeolite.Txn) error {
		return errors.Join(
			tx.Store(e.ctx, dead, 0, Record("1")),
			tx.Store(e.ctx, later, 0, Record("1")),
			tx.Store(e.ctx, back, 0, Record("1")),
		)
	})
	e.commit(zeolite.TxnMeta{TID: at(2)}, func(tx zeolite.Txn) error {
		return errors.Join(tx.Delete(e.ctx, dead, at(1)), tx.Delete(e.ctx, back, at(1)))
	})
	e.commit(zeolite.TxnMeta{TID: at(3)}, func(tx zeolite.Txn) error {
		return errors.Join(tx.Delete(e.ctx, later, at(1)), tx.Store(e.ctx, back, at(2), Record("3")))
	})
	e.pack(at(2.5), false)
	check := func() {
		e.wantGone(dead)
		e.wantSerial(dead, at(1), nil)
		e.wantGone(later)
		e.wantLoad(later, at(3), Record("1"), at(1), at(3))
		e.wantCurrent(back, Record("3"), at(3))
		e.wantSerial(back, at(1), nil)
		if _, err := e.s.LoadBefore(e.ctx, back, at(3)); !isNotFound(err) && !errors.Is(err, zeolite.ErrNotYet) {
			e.Errorf("LoadBefore while the object was deleted: got error %v", err)
		}
		if e.s.Info().RecordIteration {
			e.walk([]zeolite.OID{back}, 0)
		}
	}
	check()
	e.reopen()
	check()
	e.pack(at(3.5), false)
	e.wantGone(later)
	e.wantSerial(later, at(1), nil)
	e.wantCurrent(back, Record("3"), at(3))
}

// A revision that shares the data of one that is packed away keeps the data.
func testPackSharedData(e *env) {
	e.needPack()
	oid := e.oid()
	tids := e.revise(oid, 3)
	share := func(n float64, data []byte, prev zeolite.TID) {
		e.Helper()
		e.commit(zeolite.TxnMeta{TID: at(n)}, func(tx zeolite.Txn) error {
			return tx.Restore(e.ctx, oid, data, prev)
		})
	}
	if e.s.Info().Undo {
		e.commit(zeolite.TxnMeta{TID: at(4)}, func(tx zeolite.Txn) error {
			_, err := tx.Undo(e.ctx, tids[2])
			return err
		})
	} else {
		share(4, Record("2"), tids[1])
	}
	share(5, Record("1"), tids[0]) // over several revisions
	share(6, Record("2"), at(4))   // with one that shares it itself
	for _, n := range []float64{1.5, 2.5, 3.5, 4.5, 5.5, 6.5} {
		e.pack(at(n), false)
		e.wantSerial(oid, at(6), Record("2"))
		e.wantCurrent(oid, Record("2"), at(6))
		if n < 6 {
			e.wantLoad(oid, at(6), Record("1"), at(5), at(6))
		}
		if n < 5 {
			e.wantLoad(oid, at(5), Record("2"), at(4), at(5))
		}
		e.checkDataTIDs()
	}
	e.reopen()
	e.wantCurrent(oid, Record("2"), at(6))
}

func testPackUndo(e *env) {
	e.needPack()
	e.needUndo()
	oid := e.oid()
	tids := e.revise(oid, 5)
	e.pack(at(3.5), false)
	check := func() {
		wantList(e, "UndoLog", e.undoLog(), []zeolite.TID{tids[4], tids[3]})
		for _, tid := range tids[:3] {
			err := e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
				_, err := tx.Undo(e.ctx, tid)
				return err
			})
			if !isUndoError(err) {
				e.Errorf("undo of %v, which was packed: got error %v", tid, err)
			}
		}
	}
	check()
	e.reopen()
	check()
	e.undo(tids[4])
	tid := e.undo(tids[3])
	e.wantCurrent(oid, Record("3"), tid)
}

func testPackBlobs(e *env) {
	e.needPack()
	e.blobs()
	oids := e.oids(3)
	kept, garbage, removed := oids[0], oids[1], oids[2]
	e.storeAt(at(1), zeolite.RootOID, 0, Record("root", kept, removed))
	one, two, three := noise(1, 100_000), noise(2, 100), noise(3, 0)
	put := func(n float64, oid zeolite.OID, serial zeolite.TID, blob []byte) {
		e.Helper()
		e.storeBlobAs(zeolite.TxnMeta{TID: at(n)}, oid, serial, blob)
	}
	put(2, kept, 0, one)
	put(3, kept, at(2), two)
	put(4, garbage, 0, one)
	put(5, removed, 0, one)
	e.storeAt(at(5.5), zeolite.RootOID, at(1), Record("root", kept))
	e.commit(zeolite.TxnMeta{TID: at(6)}, func(tx zeolite.Txn) error { return tx.Delete(e.ctx, removed, at(5)) })
	put(7, kept, at(3), three)
	e.pack(at(6.5), true)
	check := func() {
		e.wantNoBlob(kept, at(2))
		e.wantBlob(kept, at(3), two)
		e.wantBlob(kept, at(7), three)
		e.wantNoBlob(garbage, at(4))
		e.wantNoBlob(removed, at(5))
		e.wantLoad(kept, at(7), BlobRecord(), at(3), at(7))
	}
	check()
	if e.s.Info().Undo { // shares the blob of a revision that goes then
		tid := e.undo(at(7))
		e.wantBlob(kept, tid, two)
		e.pack(zeolite.TIDFromTime(tid.Time().AddDate(0, 0, 1)), true)
		e.wantBlob(kept, tid, two)
		e.wantNoBlob(kept, at(3))
		e.wantNoBlob(kept, at(7))
		e.reopen()
		e.wantBlob(kept, tid, two)
		e.wantNoBlob(kept, at(3))
	}
}

func testPackEndedContext(e *env) {
	e.needPack()
	oid := e.oid()
	tids := e.revise(oid, 4)
	ended, cancel := context.WithCancel(e.ctx)
	cancel()
	no := false
	err := e.s.(zeolite.Packer).Pack(ended, at(3.5), zeolite.PackOptions{GC: &no})
	if err != nil && !errors.Is(err, context.Canceled) {
		e.Errorf("Pack: got error %v, want context.Canceled or none", err)
	}
	if err != nil && !e.h.Remote { // else it may be under way at the server
		e.wantTIDs(tids)
	}
	e.wantCurrent(oid, Record("4"), tids[3])
	if !e.h.Remote {
		e.pack(at(3.5), false)
		e.wantTIDs(tids[2:])
	}
}

func testPackProgress(e *env) {
	e.needPack()
	e.newWorld()
	e.storeAt(at(2), zeolite.RootOID, at(1), Record("root"))
	yes := true
	e.must(e.s.(zeolite.Packer).Pack(e.ctx, at(2.5), zeolite.PackOptions{GC: &yes, Progress: func(p zeolite.PackProgress) {
		if p.Phase == "" || p.Done < 0 || p.Remaining < 0 {
			e.Errorf("Progress was told %+v", p)
		}
	}}))
}

// Readers and writers go on during packs, and lose nothing.
func testPackCommitMeanwhile(e *env) {
	e.needPack()
	const objects, commits = 4, 15
	oids := e.oids(objects)
	e.store(zeolite.RootOID, 0, Record("root", oids...))
	pairs := make([]pair, 0, objects/2)
	first := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		for i, oid := range oids {
			if i%2 == 1 {
				pairs = append(pairs, pair{oids[i-1], oid})
			}
			if err := tx.Store(e.ctx, oid, 0, Record("0")); err != nil {
				return err
			}
		}
		return nil
	})
	var alone sync.Mutex
	var writing, other sync.WaitGroup
	done := make(chan struct{})
	lasts := make([]zeolite.TID, len(pairs))
	for i, p := range pairs {
		writing.Go(func() {
			lasts[i] = first
			for n := 1; n <= commits; n++ {
				if !e.h.ConcurrentTxns {
					alone.Lock()
				}
				tid, err := commitPair(e.ctx, e.s, p, lasts[i], Record(fmt.Sprint(n)))
				if !e.h.ConcurrentTxns {
					alone.Unlock()
				}
				if err != nil {
					e.Errorf("commit %d of %v: %v", n, p, err)
					return
				}
				lasts[i] = tid
			}
		})
	}
	packs := 0
	other.Go(func() {
		for running := true; running; packs++ {
			select {
			case <-done:
				running = false
			default:
			}
			gc := packs%2 == 0
			if err := e.s.(zeolite.Packer).Pack(e.ctx, e.s.LastTID(), zeolite.PackOptions{GC: &gc}); err != nil {
				e.Errorf("Pack: %v", err)
				return
			}
		}
	})
	other.Go(func() {
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
			}
			for _, oid := range oids {
				if _, err := e.s.LoadBefore(e.ctx, oid, zeolite.MaxTID); err != nil {
					e.Errorf("LoadBefore(%v) during packs: %v", oid, err)
					return
				}
			}
		}
	})
	writing.Wait()
	close(done)
	other.Wait()
	for i, p := range pairs {
		for _, oid := range p {
			e.wantCurrent(oid, Record(fmt.Sprint(commits)), lasts[i])
		}
	}
	e.Logf("%d packs during %d commits", packs, len(pairs)*commits)
	e.reopen()
	for i, p := range pairs {
		for _, oid := range p {
			e.wantCurrent(oid, Record(fmt.Sprint(commits)), lasts[i])
		}
	}
}

// commitPair commits data as the new state of both objects.
func commitPair(ctx context.Context, s zeolite.Storage, p pair, serial zeolite.TID, data []byte) (zeolite.TID, error) {
	tx, err := votePair(ctx, s, p, serial, data)
	if err != nil {
		return 0, err
	}
	return tx.Finish(ctx, nil)
}
