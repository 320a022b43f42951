package filestorage

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/references"
)

// Undo implements zeolite.Txn, by FileStorage's rules: an object can be undone
// if its state now is the one that the transaction to be undone gave it. The
// new record points to the record before that one, or says that the object is
// gone if there was none. What this transaction undid before counts, so that
// several transactions can be undone in one, newest first. Where FileStorage
// would resolve a conflict, Vote reports it: see merge.
func (t *Txn) Undo(ctx context.Context, tid zeolite.TID) ([]zeolite.OID, error) {
	if err := t.enter(ctx, "Undo", txnOpen); err != nil {
		return nil, err
	}
	if err := t.gate(ctx); err != nil {
		return nil, err
	}
	r, err := t.s.read(ctx)
	if err != nil {
		return nil, err
	}
	defer r.done()
	u := undoer{t: t, reader: r, w: newWindow(r.file)}
	if err := u.plan(ctx, tid); err != nil {
		u.discard()
		return nil, err
	}
	return u.stage()
}

// undoer is one call of Undo. It plans everything before it changes the
// transaction. It is used by one goroutine.
type undoer struct {
	reader
	t       *Txn
	w       *window
	order   []zeolite.OID
	planned map[zeolite.OID]stagedRecord
	merges  map[zeolite.OID]merge
	failed  map[zeolite.OID]*zeolite.UndoError
}

// plan finds out what to write for each record of transaction tid.
func (u *undoer) plan(ctx context.Context, tid zeolite.TID) error {
	end := u.end.Load()
	pos, err := u.findTxn(ctx, tid, end)
	if err != nil {
		return err
	}
	if pos == end {
		return &zeolite.UndoError{Reason: "Invalid transaction id"}
	}
	h, err := u.w.txn(pos, end)
	if err != nil {
		return err
	}
	if h.tid != tid {
		return &zeolite.UndoError{Reason: "Invalid transaction id"}
	}
	if h.status != statusNormal {
		return &zeolite.UndoError{Reason: "non-undoable transaction"}
	}
	u.planned = make(map[zeolite.OID]stagedRecord)
	u.merges = make(map[zeolite.OID]merge)
	u.failed = make(map[zeolite.OID]*zeolite.UndoError)
	for pos := h.records(); pos < h.end(); {
		rec, err := u.w.record(&h, pos)
		if err != nil {
			return err
		}
		if err := u.record(rec); err != nil {
			return err
		}
		pos = rec.next()
	}
	if len(u.failed) > 0 {
		all := &zeolite.MultipleUndoErrors{}
		for _, oid := range u.order {
			e := u.failed[oid]
			if _, merge := u.merges[oid]; merge {
				e = &zeolite.UndoError{Reason: modifiedLater, OID: oid, HasOID: true}
			}
			if e != nil {
				all.Errs = append(all.Errs, e)
			}
		}
		return all
	}
	return nil
}

// record plans for one record. Of several of the same object the last counts.
func (u *undoer) record(rec recHeader) error {
	old, again := u.planned[rec.oid]
	_, merge := u.merges[rec.oid]
	if !again && !merge && u.failed[rec.oid] == nil {
		u.order = append(u.order, rec.oid)
	}
	u.t.dropOwnBlob(&old)
	delete(u.planned, rec.oid)
	delete(u.merges, rec.oid)
	delete(u.failed, rec.oid)

	reason, m, err := u.obstacle(rec)
	if err != nil {
		return err
	}
	if m != nil && m.now != m.undone {
		u.merges[rec.oid] = *m
		return nil
	}
	if reason != "" {
		u.failed[rec.oid] = &zeolite.UndoError{Reason: reason, OID: rec.oid, HasOID: true}
		return nil
	}
	p := stagedRecord{oid: rec.oid, back: rec.prev}
	if m != nil {
		p.back = m.back // all that was done since is undone, too
	}
	if p.back != 0 && u.t.s.blobs != nil {
		if p.blob, err = u.blobOf(rec.oid, p.back); err != nil {
			return err
		}
		p.ownBlob = p.blob != nil
	}
	u.planned[rec.oid] = p
	return nil
}

// modifiedLater is the reason where a merge would be needed.
const modifiedLater = "Some data were modified by a later transaction"

// merge is what an undo leaves to the caller, where FileStorage resolves a
// conflict by running the object's class: to merge what was done to the object
// since with what gives it the state back that it had before. A record that the
// transaction stages for the object settles it.
type merge struct {
	now, undone, back int64       // records with the state now, the one to be undone, and that before it
	committed         zeolite.TID // of the record now
}

// obstacle says why a record cannot be undone; it is empty if it can. If it
// can once its object is merged, the merge is not nil.
func (u *undoer) obstacle(rec recHeader) (reason string, m *merge, err error) {
	if earlier, ok := u.t.unmerged[rec.oid]; ok {
		return u.further(rec, earlier)
	}
	now, pos, staged, err := u.current(rec.oid)
	if err != nil {
		return "", nil, err
	}
	if !staged && pos == rec.pos || now.dataLen == 0 && now.back == rec.pos {
		return "", nil, nil
	}
	// The object was changed since, but perhaps only to and fro.
	undone, undoneAt, err := u.dataAt(rec.oid, rec.pos)
	if err != nil {
		return "", nil, err
	}
	var current []byte
	currentAt := int64(-1)
	switch {
	case staged && now.dataLen > 0:
		current = make([]byte, now.dataLen)
		err = u.t.stage.readAt(current, pos+recHdrLen)
	case staged:
		current, currentAt, err = u.dataAt(rec.oid, now.back)
	default:
		current, currentAt, err = u.dataAt(rec.oid, pos)
	}
	if err != nil {
		return "", nil, err
	}
	switch {
	case undone == nil && current == nil, undone != nil && undoneAt == currentAt:
		return "", nil, nil
	case undone == nil || current == nil:
		return "the object was deleted, or came back, in a later transaction", nil, nil
	case bytes.Equal(undone, current) && !references.IsBlob(current):
		// Records of blobs are all alike, the blobs are not.
		return "", nil, nil
	case rec.prev == 0:
		return "Can't undo an add transaction followed by conflicting transactions.", nil, nil
	case currentAt < 0 || references.IsBlob(undone) || references.IsBlob(current):
		return modifiedLater, nil, nil
	}
	m = &merge{now: pos, undone: rec.pos, back: rec.prev, committed: now.tid}
	if staged {
		// An undo of this transaction gave the object that state again.
		h, _, err := u.readHeader(rec.oid, now.back, u.buf[:])
		if err != nil {
			return "", nil, err
		}
		m.now, m.committed = now.back, h.tid
	}
	return u.mergeable(rec.oid, m)
}

// further is obstacle for an object that an earlier undo of this transaction
// left to be merged. If one of the two gives it the state which the other is to
// undo, both are one merge; anything else would take two, one on top of the other.
func (u *undoer) further(rec recHeader, m merge) (string, *merge, error) {
	var at [5]int64 // where the data is
	for i, pos := range [...]int64{rec.pos, rec.prev, m.now, m.undone, m.back} {
		data, dataAt, err := u.dataAt(rec.oid, pos)
		if err != nil {
			return "", nil, err
		}
		if data == nil {
			return modifiedLater, nil, nil
		}
		at[i] = dataAt
	}
	undone, before, now, laterUndone, laterBack := at[0], at[1], at[2], at[3], at[4]
	switch {
	case undone == laterBack:
		m.back = rec.prev
	case before == laterUndone:
		m.undone = rec.pos
		if undone == now {
			m.undone = m.now
		}
	default:
		return modifiedLater, nil, nil
	}
	return u.mergeable(rec.oid, &m)
}

// mergeable makes sure that there is a state to be merged, and no blob.
func (u *undoer) mergeable(oid zeolite.OID, m *merge) (string, *merge, error) {
	before, _, err := u.dataAt(oid, m.back)
	if err != nil {
		return "", nil, err
	}
	if before == nil || references.IsBlob(before) {
		return modifiedLater, nil, nil
	}
	return "", m, nil
}

// undoConflicts reports what is left to be merged, as far as it is no more than
// conflictBytes: it is all in memory.
func (t *Txn) undoConflicts(ctx context.Context) error {
	r, err := t.s.read(ctx)
	if err != nil {
		return err
	}
	defer r.done()
	u := undoer{reader: r}
	var conflicts []error
	size := 0
	for _, oid := range slices.Sorted(maps.Keys(t.unmerged)) {
		m := t.unmerged[oid]
		data, _, err := u.dataAt(oid, m.back)
		if err != nil {
			return err
		}
		undone, _, err := u.readHeader(oid, m.undone, u.buf[:])
		if err != nil {
			return err
		}
		if size += len(data); size > conflictBytes && len(conflicts) > 0 {
			break
		}
		conflicts = append(conflicts, &zeolite.ConflictError{OID: oid, Committed: m.committed, Seen: undone.tid, Data: data})
	}
	return errors.Join(conflicts...)
}

// conflictBytes is also what the server puts into a reply to a vote (server/txn.go):
// more would be read in vain.
const conflictBytes = 16 << 20

// current returns the newest record of an object as this transaction sees it,
// with its position in the stage or in the file.
func (u *undoer) current(oid zeolite.OID) (h recHeader, pos int64, staged bool, err error) {
	if i, ok := u.t.newest[oid]; ok {
		r := &u.t.recs[i]
		return recHeader{oid: oid, pos: r.off, dataLen: r.dataLen, back: r.back}, r.off, true, nil
	}
	var buf [recHdrLen + backLen]byte
	h, _, err = u.generation.current(oid, buf[:])
	return h, h.pos, false, err
}

// dataAt returns the data that the record at pos has or points to, and where
// the record is that has it. The data is nil if the object is gone or pos is 0.
func (u *undoer) dataAt(oid zeolite.OID, pos int64) ([]byte, int64, error) {
	if pos == 0 {
		return nil, 0, nil
	}
	h, n, err := u.readHeader(oid, pos, u.buf[:])
	if err == nil {
		h, n, err = u.withData(h, u.buf[:], n)
	}
	if err != nil {
		return nil, 0, err
	}
	data, err := u.readData(h, u.buf[:], n)
	return data, h.pos, err
}

// blobOf makes another name for the blob of the record at pos, if it has one.
func (u *undoer) blobOf(oid zeolite.OID, pos int64) (*upload, error) {
	h, n, err := u.readHeader(oid, pos, u.buf[:])
	if err != nil {
		return nil, err
	}
	data, err := u.readData(h, u.buf[:], n)
	if err != nil || !references.IsBlob(data) {
		return nil, err
	}
	for {
		blob, err := u.t.s.copyBlob(oid, h.tid)
		if !isNotFound(err) || h.back == 0 {
			return blob, err
		}
		// A record that shares its data may share the blob, too.
		if h, _, err = u.readHeader(oid, h.back, u.buf[:]); err != nil {
			return nil, err
		}
	}
}

// stage adds what was planned to the transaction.
func (u *undoer) stage() ([]zeolite.OID, error) {
	for i, oid := range u.order {
		if m, ok := u.merges[oid]; ok {
			if u.t.unmerged == nil {
				u.t.unmerged = make(map[zeolite.OID]merge)
			}
			u.t.unmerged[oid] = m
			continue
		}
		if err := u.t.stageRecord(u.planned[oid], nil); err != nil {
			if i > 0 {
				// Part of it is staged: no half of an undo may be committed.
				u.t.broken = err
			}
			for _, oid := range u.order[i:] {
				p := u.planned[oid]
				u.t.dropOwnBlob(&p)
			}
			return nil, err
		}
	}
	return u.order, nil
}

// discard forgets what was planned.
func (u *undoer) discard() {
	for _, p := range u.planned {
		u.t.dropOwnBlob(&p)
	}
}
