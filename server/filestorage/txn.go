package filestorage

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/zeolite-go/zeolite"
)

// Txn implements zeolite.Txn. It is used by one goroutine at a time; from the
// call of Finish until it returns, by the one that commits its group.
type Txn struct {
	s     *Storage
	meta  zeolite.TxnMeta
	state txnState

	// stage is the transaction as it will be in the file, but for the TID,
	// the length and positions, which commit fills in.
	stage  stage
	recs   []stagedRecord
	newest map[zeolite.OID]int // index in recs of the record that counts
	dead   int                 // number of records that were replaced
	// unmerged are the objects that an undo left to be merged; Vote tells.
	unmerged map[zeolite.OID]merge

	// gated says that records refer to positions in the current file, so
	// that packing must wait.
	gated    bool
	reserved int64 // bytes reserved by Vote
	// broken is why the transaction can only be aborted any more.
	broken error

	// For finish.go.
	publish zeolite.Publish
	done    chan struct{}
	tid     zeolite.TID
	pos     int64
	err     error
}

type txnState int

const (
	txnOpen txnState = iota
	txnVoted
	txnFinished
	txnAborted
)

func (st txnState) String() string {
	return [...]string{"open", "voted", "finished", "aborted"}[st]
}

// stagedRecord is a record in the stage.
type stagedRecord struct {
	oid     zeolite.OID
	off     int64 // in the stage
	dataLen int64 // 0: it has a back pointer
	back    int64
	dead    bool // a later record of the transaction replaces it
	// seen is the serial that was current when the record was staged, if
	// checked; commit makes sure that it still is.
	seen    zeolite.TID
	checked bool
	// seenPos is the position of that record, in the file seenIn.
	seenPos int64
	seenIn  *generation
	blob    *upload
	// ownBlob says that the transaction made the upload itself, to undo.
	ownBlob bool
}

func (r *stagedRecord) len() int64 {
	if r.dataLen == 0 {
		return recHdrLen + backLen
	}
	return recHdrLen + r.dataLen
}

// Begin implements zeolite.Storage.
func (s *Storage) Begin(ctx context.Context, meta zeolite.TxnMeta) (zeolite.Txn, error) {
	if err := s.writable(ctx); err != nil {
		return nil, err
	}
	if err := meta.Check(); err != nil {
		return nil, &zeolite.StorageError{Class: "ZODB.FileStorage.FileStorage.FileStorageError", Message: err.Error()}
	}
	if meta.Status == 0 {
		meta.Status = statusNormal
	}
	if err := zeolite.CheckTID(meta.TID, s.LastTID()); err != nil {
		return nil, err
	}
	t := &Txn{s: s, meta: meta, stage: newStage(s.spillDir(), s.opts.SpillBytes), newest: make(map[zeolite.OID]int)}
	header := appendTxnHeader(nil, 0, 0, statusUncommitted, meta.User, meta.Description, meta.Extension)
	if err := t.stage.append(header, nil); err != nil {
		t.stage.discard()
		return nil, &zeolite.StorageError{Message: "cannot begin a transaction", Err: err}
	}
	t.meta.User, t.meta.Description, t.meta.Extension = nil, nil, nil // they may be the caller's buffers
	return t, nil
}

// enter checks that a call fits the state of the transaction.
func (t *Txn) enter(ctx context.Context, call string, want txnState) error {
	if t.state != want {
		return &zeolite.TransactionError{Message: fmt.Sprintf("%s in a transaction that is %v", call, t.state)}
	}
	if t.broken != nil {
		return t.broken
	}
	return t.s.writable(ctx)
}

// Store implements zeolite.Txn. As in FileStorage the serial is not checked if
// the object has no record: it may be one that a pack collected.
func (t *Txn) Store(ctx context.Context, oid zeolite.OID, serial zeolite.TID, data []byte) error {
	if err := t.enter(ctx, "Store", txnOpen); err != nil {
		return err
	}
	return t.store(oid, serial, data, nil)
}

// StoreBlob implements zeolite.Txn.
func (t *Txn) StoreBlob(ctx context.Context, oid zeolite.OID, serial zeolite.TID, data []byte, blob zeolite.BlobUpload) error {
	if err := t.enter(ctx, "StoreBlob", txnOpen); err != nil {
		return err
	}
	u, err := t.s.ownUpload(blob)
	if err != nil {
		return err
	}
	return t.store(oid, serial, data, u)
}

func (t *Txn) store(oid zeolite.OID, serial zeolite.TID, data []byte, u *upload) error {
	if len(data) == 0 {
		return errNoData
	}
	if err := t.s.oids.check(oid); err != nil {
		return err
	}
	h, in, err := t.s.currentHeader(oid)
	if err != nil {
		return err
	}
	if m, merged := t.unmerged[oid]; h.pos != 0 && h.tid != serial && !(merged && m.committed == serial) {
		return &zeolite.ConflictError{OID: oid, Committed: h.tid, Seen: serial}
	}
	return t.stageRecord(stagedRecord{oid: oid, dataLen: int64(len(data)), seen: h.tid, checked: true, seenPos: h.pos, seenIn: in, blob: u}, data)
}

// Delete implements zeolite.Txn.
func (t *Txn) Delete(ctx context.Context, oid zeolite.OID, serial zeolite.TID) error {
	if err := t.enter(ctx, "Delete", txnOpen); err != nil {
		return err
	}
	h, in, err := t.s.currentHeader(oid)
	if err != nil {
		return err
	}
	if h.pos == 0 {
		return &zeolite.NotFoundError{OID: oid}
	}
	if h.tid != serial {
		return &zeolite.ConflictError{OID: oid, Committed: h.tid, Seen: serial}
	}
	if h.gone() {
		return &zeolite.NotFoundError{OID: oid}
	}
	return t.stageRecord(stagedRecord{oid: oid, seen: h.tid, checked: true, seenPos: h.pos, seenIn: in}, nil)
}

// CheckCurrent implements zeolite.Txn.
func (t *Txn) CheckCurrent(ctx context.Context, oid zeolite.OID, serial zeolite.TID) error {
	if err := t.enter(ctx, "CheckCurrent", txnOpen); err != nil {
		return err
	}
	current, err := t.s.CurrentTID(ctx, oid)
	if err != nil {
		return err
	}
	if current != serial {
		return &zeolite.ConflictError{OID: oid, Committed: current, Seen: serial, Read: true}
	}
	return nil
}

// Restore implements zeolite.Txn.
func (t *Txn) Restore(ctx context.Context, oid zeolite.OID, data []byte, prev zeolite.TID) error {
	if err := t.enter(ctx, "Restore", txnOpen); err != nil {
		return err
	}
	return t.restore(ctx, oid, data, prev, nil)
}

// RestoreBlob implements zeolite.Txn.
func (t *Txn) RestoreBlob(ctx context.Context, oid zeolite.OID, data []byte, prev zeolite.TID, blob zeolite.BlobUpload) error {
	if err := t.enter(ctx, "RestoreBlob", txnOpen); err != nil {
		return err
	}
	u, err := t.s.ownUpload(blob)
	if err != nil {
		return err
	}
	return t.restore(ctx, oid, data, prev, u)
}

func (t *Txn) restore(ctx context.Context, oid zeolite.OID, data []byte, prev zeolite.TID, u *upload) error {
	if data != nil && len(data) == 0 {
		return errNoData
	}
	if err := t.s.oids.check(oid); err != nil {
		return err
	}
	if pos, _ := t.s.gen.Load().index.get(oid); pos == unreadable {
		return errUnreadable // where would the record point back to?
	}
	rec := stagedRecord{oid: oid, dataLen: int64(len(data)), blob: u}
	if data != nil && prev != 0 {
		if err := t.gate(ctx); err != nil {
			return err
		}
		back, err := t.s.findEqual(oid, prev, data)
		if err != nil {
			return err
		}
		if back != 0 {
			rec.back, rec.dataLen, data = back, 0, nil
		}
	}
	return t.stageRecord(rec, data)
}

// gate keeps packing from replacing the file until the transaction ends.
func (t *Txn) gate(ctx context.Context) error {
	if t.gated {
		return nil
	}
	if err := t.s.packGate.enter(ctx); err != nil {
		return err
	}
	t.gated = true
	return nil
}

// findEqual returns the position of the record that revision tid of oid has,
// if its data is equal to data; 0 otherwise. The revision may be missing: prev
// of Restore is a hint.
func (s *Storage) findEqual(oid zeolite.OID, tid zeolite.TID, data []byte) (int64, error) {
	g, err := s.acquire()
	if err != nil {
		return 0, err
	}
	defer g.release()
	buf := guessPool.Get().(*[readGuess]byte)
	defer guessPool.Put(buf)
	h, n, err := g.revision(oid, tid, buf[:])
	if err != nil || h.pos == 0 {
		return 0, err
	}
	if h.dataLen != 0 && h.dataLen != int64(len(data)) {
		return 0, nil
	}
	pos := h.pos
	have, err := g.readData(h, buf[:], n)
	if err != nil || !bytes.Equal(have, data) {
		return 0, err
	}
	return pos, nil
}

var errNoData = &zeolite.StorageError{Message: "a record must have data"}

// stageRecord adds a record. It replaces an earlier one of the same object.
func (t *Txn) stageRecord(r stagedRecord, data []byte) error {
	r.off = t.stage.size()
	if err := t.s.space.checkQuota(r.off); err != nil {
		return err
	}
	var head [recHdrLen + backLen]byte
	b := appendRecHeader(head[:0], r.oid, 0, 0, 0, r.dataLen)
	if r.dataLen == 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(r.back))
	}
	if err := t.stage.append(b, data); err != nil {
		return &zeolite.StorageError{Message: "cannot stage a record", Err: err}
	}
	t.s.oids.noteUsed(r.oid)
	delete(t.unmerged, r.oid)
	if i, again := t.newest[r.oid]; again {
		old := &t.recs[i]
		old.dead = true
		t.dropOwnBlob(old)
		t.dead++
	}
	t.newest[r.oid] = len(t.recs)
	t.recs = append(t.recs, r)
	return nil
}

func (t *Txn) dropOwnBlob(r *stagedRecord) {
	if r.ownBlob {
		r.blob.Discard()
		r.blob, r.ownBlob = nil, false
	}
}

// Vote implements zeolite.Txn.
func (t *Txn) Vote(ctx context.Context) error {
	if err := t.enter(ctx, "Vote", txnOpen); err != nil {
		return err
	}
	if err := zeolite.CheckTID(t.meta.TID, t.s.LastTID()); err != nil {
		return err
	}
	if len(t.unmerged) > 0 {
		return t.undoConflicts(ctx)
	}
	var lastRecord, size int64
	size = t.stage.size() + lengthLen
	for i := range t.recs {
		r := &t.recs[i]
		if r.dead {
			size -= r.len()
			continue
		}
		if r.blob != nil {
			if err := r.blob.usable(); err != nil {
				return err
			}
			if err := t.s.blobs.makeDir(r.oid); err != nil {
				return err
			}
		}
		lastRecord = r.off
	}
	if err := t.s.space.reserve(size, min(lastRecord, size)); err != nil {
		return err
	}
	t.reserved = size
	if t.dead > 0 && t.stage.inMemory() {
		t.compact()
	}
	if t.stage.inMemory() {
		// Now the stage is the transaction, byte for byte.
		t.stage.buf = binary.BigEndian.AppendUint64(t.stage.buf, uint64(size-lengthLen))
	}
	t.state = txnVoted
	return nil
}

// compact removes replaced records from a stage in memory.
func (t *Txn) compact() {
	live := t.recs[:0]
	to := int64(-1)
	for _, r := range t.recs {
		if to < 0 {
			to = r.off
		}
		if r.dead {
			continue
		}
		copy(t.stage.buf[to:], t.stage.buf[r.off:r.off+r.len()])
		r.off = to
		to += r.len()
		live = append(live, r)
	}
	t.stage.buf = t.stage.buf[:to]
	t.recs, t.dead, t.newest = live, 0, nil
}

// Abort implements zeolite.Txn.
func (t *Txn) Abort() {
	if t.state == txnFinished || t.state == txnAborted {
		return
	}
	t.state = txnAborted
	t.end()
}

// end releases what the transaction holds, but for blobs that it committed.
func (t *Txn) end() {
	if t.reserved > 0 {
		t.s.space.release(t.reserved)
		t.reserved = 0
	}
	for i := range t.recs {
		t.dropOwnBlob(&t.recs[i])
	}
	t.stage.discard()
	t.recs, t.newest = nil, nil
	if t.gated {
		t.gated = false
		t.s.packGate.leave()
	}
}
