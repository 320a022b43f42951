package storagetest

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/zeolite-go/zeolite"
)

// history makes random transactions and keeps, in the plainest way, what the
// storage must have after them. The goroutine of the test uses it.
type history struct {
	e       *env
	rnd     *rand.Rand
	given   bool // give all transactions a TID, a second apart
	seq     int  // makes all data different
	objects map[zeolite.OID][]state
	oids    []zeolite.OID // the keys of objects, oldest first
	txns    []modelTxn
	packed  zeolite.TID
}

// state is a revision. Its zero value but for the TID says that the object is
// gone.
type state struct {
	tid     zeolite.TID
	data    []byte
	blob    []byte
	hasBlob bool
	origin  zeolite.TID // the transaction that wrote the data first
	dropped bool        // by a pack
}

func (s state) gone() bool { return s.data == nil }

type modelTxn struct {
	tid  zeolite.TID
	oids []zeolite.OID // that changed, each once
}

func newHistory(e *env, seed uint64) *history {
	return &history{
		e:       e,
		rnd:     rand.New(rand.NewPCG(seed, seed)),
		objects: map[zeolite.OID][]state{},
	}
}

// step does something at random, mostly a commit.
func (h *history) step() {
	switch n := h.rnd.IntN(10); {
	case n < 6 || len(h.txns) < 3:
		h.commit()
	case n < 8 && h.e.s.Info().Undo:
		h.undo()
	case n < 9:
		h.conflict()
	default:
		h.abort()
	}
}

func (h *history) meta() zeolite.TxnMeta {
	h.seq++
	meta := zeolite.TxnMeta{
		User:        []byte("user " + strconv.Itoa(h.seq%5)),
		Description: []byte("step " + strconv.Itoa(h.seq)),
	}
	if h.seq%3 == 0 {
		meta.Extension = Extension(strconv.Itoa(h.seq))
	}
	if h.given {
		meta.TID = h.e.later()
	}
	return meta
}

func (h *history) current(oid zeolite.OID) state {
	states := h.objects[oid]
	if len(states) == 0 {
		return state{}
	}
	return states[len(states)-1]
}

// pick returns an object that exists, or one that does not yet, now and then.
func (h *history) pick() zeolite.OID {
	if len(h.oids) == 0 || h.rnd.IntN(4) == 0 {
		return h.e.oid()
	}
	return h.oids[h.rnd.IntN(len(h.oids))]
}

// fill makes random changes in a transaction and returns them.
func (h *history) fill(tx zeolite.Txn) map[zeolite.OID]state {
	e := h.e
	changes := map[zeolite.OID]state{}
	for range 1 + h.rnd.IntN(4) {
		h.seq++
		oid := h.pick()
		cur := h.current(oid)
		if _, again := changes[oid]; cur.dropped || (again && e.h.Remote) {
			// Which serial a storage wants that packed a deletion away is
			// its affair; and over a network blobs may be replayed last.
			continue
		}
		next := state{data: Record("state " + strconv.Itoa(h.seq))}
		var err error
		switch n := h.rnd.IntN(8); {
		case n == 0 && !cur.gone():
			next.data = nil
			err = tx.Delete(e.ctx, oid, cur.tid)
		case n <= 2 && e.s.Info().Blobs:
			next.data, next.hasBlob = BlobRecord(), true
			next.blob = noise(uint64(h.seq), h.rnd.IntN(3000))
			err = tx.StoreBlob(e.ctx, oid, cur.tid, next.data, e.upload(next.blob))
		default:
			err = tx.Store(e.ctx, oid, cur.tid, next.data)
		}
		e.must(err)
		changes[oid] = next
	}
	return changes
}

func (h *history) commit() {
	tx := h.e.begin(h.meta())
	defer tx.Abort()
	h.finish(tx, h.fill(tx))
}

// finish commits a transaction and adds its changes to the model.
func (h *history) finish(tx zeolite.Txn, changes map[zeolite.OID]state) {
	h.e.Helper()
	h.e.must(tx.Vote(h.e.ctx))
	var oids []zeolite.OID
	for oid := range changes {
		oids = append(oids, oid)
	}
	slices.Sort(oids) // a seed gives the same history each time
	tid, err := tx.Finish(h.e.ctx, func(_ zeolite.TID, published []zeolite.OID, visible func()) {
		wantSet(h.e, "published objects", published, oids)
		visible()
	})
	h.e.must(err)
	for _, oid := range oids {
		next := changes[oid]
		next.tid = tid
		if !next.gone() && next.origin == 0 {
			next.origin = tid
		}
		if len(h.objects[oid]) == 0 {
			h.oids = append(h.oids, oid)
		}
		h.objects[oid] = append(h.objects[oid], next)
	}
	h.txns = append(h.txns, modelTxn{tid, oids})
}

func (h *history) abort() {
	tx := h.e.begin(h.meta())
	h.fill(tx)
	if h.rnd.IntN(2) == 0 {
		h.e.must(tx.Vote(h.e.ctx))
	}
	tx.Abort()
}

// conflict stores with the serial of a revision that is not current any more.
func (h *history) conflict() {
	e := h.e
	oid := h.oids[h.rnd.IntN(len(h.oids))]
	states := h.objects[oid]
	cur := h.current(oid)
	if len(states) < 2 || cur.dropped {
		return
	}
	old := states[h.rnd.IntN(len(states)-1)].tid
	err := e.refused(h.meta(), func(tx zeolite.Txn) error { return tx.Store(e.ctx, oid, old, Record("stale")) })
	e.wantConflict(err, zeolite.ConflictError{OID: oid, Committed: cur.tid, Seen: old})
}

// undo undoes a random transaction, likelier a late one.
func (h *history) undo() {
	e := h.e
	t := h.txns[len(h.txns)-1-min(h.rnd.IntN(len(h.txns)), h.rnd.IntN(len(h.txns)))]
	changes := map[zeolite.OID]state{}
	var inTheWay []zeolite.OID
	merges := map[zeolite.OID]zeolite.ConflictError{} // what the storage may report instead
	for _, oid := range t.oids {
		states := h.objects[oid]
		i := slices.IndexFunc(states, func(s state) bool { return s.tid == t.tid })
		if cur := h.current(oid); cur.gone() != states[i].gone() || cur.origin != states[i].origin {
			inTheWay = append(inTheWay, oid)
			mergeable := func(s state) bool { return !s.gone() && !s.hasBlob }
			if i > 0 && mergeable(states[i-1]) && mergeable(states[i]) && mergeable(cur) {
				merges[oid] = zeolite.ConflictError{OID: oid, Committed: cur.tid, Seen: t.tid, Data: states[i-1].data}
			}
			continue
		}
		before := state{}
		if i > 0 {
			before = states[i-1]
			before.dropped = false
		}
		changes[oid] = before
	}
	if t.tid > h.packed && inTheWay != nil && len(merges) == len(inTheWay) && h.undoMerging(t.tid, changes, merges) {
		return
	}
	if t.tid <= h.packed || inTheWay != nil {
		err := e.refused(h.meta(), func(tx zeolite.Txn) error {
			_, err := tx.Undo(e.ctx, t.tid)
			return err
		})
		if t.tid > h.packed {
			e.wantUndoError(err, inTheWay...)
		} else if !isUndoError(err) {
			e.Errorf("undo of a packed transaction: got error %v", err)
		}
		return
	}
	tx := e.begin(h.meta())
	defer tx.Abort()
	oids, err := tx.Undo(e.ctx, t.tid)
	e.must(err)
	if !e.h.Remote {
		wantSet(e, "objects that Undo changed", oids, t.oids)
	}
	h.finish(tx, changes)
}

// undoMerging undoes a transaction, part of which has to be merged. It does nothing
// and returns false if the storage leaves no merges to its callers.
func (h *history) undoMerging(tid zeolite.TID, changes map[zeolite.OID]state, merges map[zeolite.OID]zeolite.ConflictError) bool {
	e := h.e
	tx := e.begin(h.meta())
	defer tx.Abort()
	if !e.undoConflicts(tx, []zeolite.TID{tid}, merges) {
		return false
	}
	for _, oid := range slices.Sorted(maps.Keys(merges)) { // a seed gives the same history each time
		h.seq++
		changes[oid] = state{data: Record("merged " + strconv.Itoa(h.seq))}
		e.must(tx.Store(e.ctx, oid, merges[oid].Committed, changes[oid].data))
	}
	h.finish(tx, changes)
	return true
}

// pack packs, without garbage collection, to a moment shortly after a random
// transaction.
func (h *history) pack() {
	t := h.txns[h.rnd.IntN(len(h.txns))]
	to := t.tid + (at(1)-at(0))/2
	no := false
	h.e.must(h.e.s.(zeolite.Packer).Pack(h.e.ctx, to, zeolite.PackOptions{GC: &no}))
	if t.tid <= h.packed {
		return
	}
	h.packed = t.tid
	for _, states := range h.objects {
		for i := range states {
			if i+1 < len(states) && states[i+1].tid <= to {
				states[i].dropped = true
			}
			if states[i].tid <= to && states[i].gone() {
				states[i].dropped = true // that an object is gone need not be kept
			}
		}
	}
}

// check compares all that can be asked with the model.
func (h *history) check() {
	h.e.Helper()
	last := zeolite.ZeroTID
	if n := len(h.txns); n > 0 {
		last = h.txns[n-1].tid
	}
	if got := h.e.s.LastTID(); got != last {
		h.e.Errorf("LastTID: got %v, want %v", got, last)
	}
	for _, oid := range h.oids {
		h.checkObject(oid)
		if h.e.Failed() {
			return // one is enough to look for the cause
		}
	}
	h.checkTransactions()
	if h.e.s.Info().RecordIteration {
		var live []zeolite.OID
		for _, oid := range h.oids {
			if !h.current(oid).gone() {
				live = append(live, oid)
			}
		}
		slices.Sort(live)
		if len(live) > 0 {
			h.e.walk(live, 0)
		}
	}
}

// checkObject loads an object at each boundary of the history.
func (h *history) checkObject(oid zeolite.OID) {
	e, states := h.e, h.objects[oid]
	for _, t := range h.txns {
		for _, before := range []zeolite.TID{t.tid, t.tid + 1} {
			if before > h.packed {
				h.checkLoad(oid, before)
			}
		}
	}
	h.checkLoad(oid, zeolite.MaxTID)
	for _, s := range states {
		if s.gone() || s.dropped {
			e.wantSerial(oid, s.tid, nil)
		} else {
			e.wantSerial(oid, s.tid, s.data)
		}
		if !e.s.Info().Blobs {
			continue
		}
		if s.hasBlob && !s.dropped {
			e.wantBlob(oid, s.tid, s.blob)
		} else {
			e.wantNoBlob(oid, s.tid)
		}
	}
	var kept []zeolite.TID
	for _, s := range slices.Backward(states) {
		if !s.dropped {
			kept = append(kept, s.tid)
		}
	}
	infos, err := e.s.History(e.ctx, oid, 1000)
	if isNotFound(err) {
		err = nil
	}
	e.must(err)
	var got []zeolite.TID
	for _, info := range infos {
		// A storage may keep the deletion before the oldest revision.
		if i := slices.IndexFunc(states, func(s state) bool { return s.tid == info.TID }); i >= 0 && states[i].gone() && states[i].dropped {
			continue
		}
		got = append(got, info.TID)
	}
	wantList(e, "History of "+oid.String(), got, kept)
}

func (h *history) checkLoad(oid zeolite.OID, before zeolite.TID) {
	e, states := h.e, h.objects[oid]
	i := len(states) - 1
	for i >= 0 && states[i].tid >= before {
		i--
	}
	if i >= 0 && !states[i].gone() {
		end := zeolite.ZeroTID
		if i+1 < len(states) {
			end = states[i+1].tid
		}
		e.wantLoad(oid, before, states[i].data, states[i].tid, end)
		return
	}
	_, err := e.s.LoadBefore(e.ctx, oid, before)
	notYet := errors.Is(err, zeolite.ErrNotYet)
	ok := isNotFound(err)
	switch {
	case h.packed != 0:
		ok = ok || notYet // a pack may forget that the object had been there before
	case i < 0:
		ok = notYet
	}
	if !ok {
		e.Errorf("LoadBefore(%v, %v): got error %v, want that the object is not there", oid, before, err)
	}
}

// checkTransactions checks what is iterated after the last pack.
func (h *history) checkTransactions() {
	e := h.e
	txns := h.txns
	for len(txns) > 0 && txns[0].tid <= h.packed {
		txns = txns[1:]
	}
	i := 0
	for t, err := range e.s.Transactions(e.ctx, h.packed+1, zeolite.MaxTID) {
		e.must(err)
		if i == len(txns) || t.TID != txns[i].tid {
			e.Fatalf("Transactions yields %v at place %d of %d", t.TID, i, len(txns))
		}
		var oids []zeolite.OID
		for r, err := range t.Records {
			e.must(err)
			oids = append(oids, r.OID)
			states := h.objects[r.OID]
			j := slices.IndexFunc(states, func(s state) bool { return s.tid == t.TID })
			if j < 0 || !bytes.Equal(states[j].data, r.Data) || states[j].gone() != (r.Data == nil) {
				e.Errorf("transaction %v has a wrong record of %v: %s", t.TID, r.OID, brief(r.Data))
			}
		}
		wantSet(e, "records of a transaction", oids, txns[i].oids)
		i++
	}
	n := 0
	for c, err := range e.s.Changes(e.ctx, h.packed) {
		e.must(err)
		if n == len(txns) || c.TID != txns[n].tid {
			e.Fatalf("Changes yields %v at place %d of %d", c.TID, n, len(txns))
		}
		wantSet(e, "oids of Changes", c.OIDs, txns[n].oids)
		n++
	}
	if i != len(txns) || n != len(txns) {
		e.Errorf("Transactions yields %d and Changes %d transactions, want %d", i, n, len(txns))
	}
	if e.s.Info().Undo {
		var want []zeolite.TID
		for _, t := range slices.Backward(txns) {
			want = append(want, t.tid)
		}
		wantList(e, "UndoLog", e.undoLog(), want)
	}
	e.checkDataTIDs()
}
