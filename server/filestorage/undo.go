package filestorage

import (
	"bytes"
	"context"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/references"
)

// Undo implements zeolite.Txn, by FileStorage's rules: an object can be undone
// if its state now is the one that the transaction to be undone gave it. The
// new record points to the record before that one, or says that the object is
// gone if there was none. What this transaction undid before counts, so that
// several transactions can be undone in one, newest first.
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
			if e := u.failed[oid]; e != nil {
				all.Errs = append(all.Errs, e)
			}
		}
		return all
	}
	return nil
}

// record plans for one record. Of several of the same object the last counts.
func (u *undoer) record(rec recHeader) error {
	if _, again := u.planned[rec.oid]; !again && u.failed[rec.oid] == nil {
		u.order = append(u.order, rec.oid)
	}
	if old, again := u.planned[rec.oid]; again {
		u.t.dropOwnBlob(&old)
	}
	delete(u.planned, rec.oid)
	delete(u.failed, rec.oid)

	reason, err := u.obstacle(rec)
	if err != nil {
		return err
	}
	if reason != "" {
		u.failed[rec.oid] = &zeolite.UndoError{Reason: reason, OID: rec.oid, HasOID: true}
		return nil
	}
	p := stagedRecord{oid: rec.oid, back: rec.prev}
	if rec.prev != 0 && u.t.s.blobs != nil {
		if p.blob, err = u.blobOf(rec.oid, rec.prev); err != nil {
			return err
		}
		p.ownBlob = p.blob != nil
	}
	u.planned[rec.oid] = p
	return nil
}

// obstacle says why a record cannot be undone; it is empty if it can.
func (u *undoer) obstacle(rec recHeader) (string, error) {
	now, pos, staged, err := u.current(rec.oid)
	if err != nil {
		return "", err
	}
	if !staged && pos == rec.pos || now.dataLen == 0 && now.back == rec.pos {
		return "", nil
	}
	// The object was changed since, but perhaps only to and fro.
	undone, undoneAt, err := u.dataAt(rec.oid, rec.pos)
	if err != nil {
		return "", err
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
		return "", err
	}
	switch {
	case undone == nil && current == nil, undone != nil && undoneAt == currentAt:
		return "", nil
	case undone == nil || current == nil:
		return "the object was deleted, or came back, in a later transaction", nil
	case bytes.Equal(undone, current) && !references.IsBlob(current):
		// Records of blobs are all alike, the blobs are not.
		return "", nil
	case rec.prev == 0:
		return "Can't undo an add transaction followed by conflicting transactions.", nil
	}
	return "Some data were modified by a later transaction", nil
}

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
