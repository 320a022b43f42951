package memory

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/zeolite-go/zeolite"
)

// txn gathers revisions until Finish. It is used by one goroutine at a time,
// and shares nothing with other transactions.
type txn struct {
	s       *Storage
	meta    zeolite.TxnMeta
	state   state
	records []*pending
	index   map[zeolite.OID]int // into records
}

// pending is a revision without its TID. If it has a blob, that is a link which
// Undo made, and its own.
type pending struct {
	revision
	upload *upload // nil if the revision brings no new blob
}

// dropLink removes the file that Undo made for the revision. One left behind goes
// with the directory on Close.
func (p *pending) dropLink() {
	if p.blob != "" {
		os.Remove(p.blob)
	}
}

type state string

const (
	open     state = "open"
	voted    state = "voted"
	finished state = "finished"
	aborted  state = "aborted"
)

// Begin implements zeolite.Storage.
func (s *Storage) Begin(ctx context.Context, meta zeolite.TxnMeta) (zeolite.Txn, error) {
	if err := s.rlock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	if err := meta.Check(); err != nil {
		return nil, err
	}
	if err := zeolite.CheckTID(meta.TID, s.last); err != nil {
		return nil, err
	}
	return &txn{s: s, meta: meta.Clone(), state: open, index: map[zeolite.OID]int{}}, nil
}

// enter begins a call that needs the transaction in the state want. Unless it
// fails the caller holds s.mu for reading.
func (t *txn) enter(ctx context.Context, call string, want state) error {
	if t.state != want {
		return &zeolite.TransactionError{Message: fmt.Sprintf("%s: the transaction is %s, not %s", call, t.state, want)}
	}
	return t.s.rlock(ctx)
}

// put adds a revision to the transaction, in place of one it has already.
func (t *txn) put(p *pending) {
	if i, again := t.index[p.oid]; again {
		t.records[i].dropLink()
		t.records[i] = p
		return
	}
	t.index[p.oid] = len(t.records)
	t.records = append(t.records, p)
}

// Store implements zeolite.Txn. The serial of an object that has no record is
// not checked, as in FileStorage: a writer may still know an object that a
// pack has collected.
func (t *txn) Store(ctx context.Context, oid zeolite.OID, serial zeolite.TID, data []byte) error {
	return t.store(ctx, "Store", oid, serial, data, nil)
}

// StoreBlob implements zeolite.Txn.
func (t *txn) StoreBlob(ctx context.Context, oid zeolite.OID, serial zeolite.TID, data []byte, blob zeolite.BlobUpload) error {
	u, err := t.s.ownUpload(blob)
	if err != nil {
		return err
	}
	return t.store(ctx, "StoreBlob", oid, serial, data, u)
}

func (t *txn) store(ctx context.Context, call string, oid zeolite.OID, serial zeolite.TID, data []byte, u *upload) error {
	if err := t.enter(ctx, call, open); err != nil {
		return err
	}
	defer t.s.mu.RUnlock()
	if len(data) == 0 {
		return errEmptyRecord
	}
	if err := zeolite.CheckOID(oid, t.s.maxOID); err != nil {
		return err
	}
	if cur := t.s.current(oid); cur != nil && cur.tid != serial {
		return &zeolite.ConflictError{OID: oid, Committed: cur.tid, Seen: serial}
	}
	t.put(&pending{revision{oid: oid, data: slices.Clone(data)}, u})
	return nil
}

// Delete implements zeolite.Txn.
func (t *txn) Delete(ctx context.Context, oid zeolite.OID, serial zeolite.TID) error {
	if err := t.enter(ctx, "Delete", open); err != nil {
		return err
	}
	defer t.s.mu.RUnlock()
	if err := t.s.checkCurrent(oid, serial, false); err != nil {
		return err
	}
	t.put(&pending{revision: revision{oid: oid}})
	return nil
}

// CheckCurrent implements zeolite.Txn. The caller's locks keep the answer true
// until Finish.
func (t *txn) CheckCurrent(ctx context.Context, oid zeolite.OID, serial zeolite.TID) error {
	if err := t.enter(ctx, "CheckCurrent", open); err != nil {
		return err
	}
	defer t.s.mu.RUnlock()
	return t.s.checkCurrent(oid, serial, true)
}

// checkCurrent is called with mu held.
func (s *Storage) checkCurrent(oid zeolite.OID, serial zeolite.TID, read bool) error {
	cur := s.current(oid)
	if cur == nil || (cur.data == nil && cur.tid == serial) {
		return &zeolite.NotFoundError{OID: oid}
	}
	if cur.tid != serial {
		return &zeolite.ConflictError{OID: oid, Committed: cur.tid, Seen: serial, Read: read}
	}
	return nil
}

// Restore implements zeolite.Txn.
func (t *txn) Restore(ctx context.Context, oid zeolite.OID, data []byte, prev zeolite.TID) error {
	return t.restore(ctx, "Restore", oid, data, prev, nil)
}

// RestoreBlob implements zeolite.Txn.
func (t *txn) RestoreBlob(ctx context.Context, oid zeolite.OID, data []byte, prev zeolite.TID, blob zeolite.BlobUpload) error {
	u, err := t.s.ownUpload(blob)
	if err != nil {
		return err
	}
	return t.restore(ctx, "RestoreBlob", oid, data, prev, u)
}

func (t *txn) restore(ctx context.Context, call string, oid zeolite.OID, data []byte, prev zeolite.TID, u *upload) error {
	if err := t.enter(ctx, call, open); err != nil {
		return err
	}
	defer t.s.mu.RUnlock()
	if data != nil && len(data) == 0 {
		return errEmptyRecord
	}
	if err := zeolite.CheckOID(oid, t.s.maxOID); err != nil {
		return err
	}
	p := &pending{revision{oid: oid, data: slices.Clone(data)}, u}
	// The copy is compared, not trusted: prev may be missing here, packed or
	// never copied, or be something else.
	if old := t.s.revision(oid, prev); old != nil && data != nil && slices.Equal(old.data, data) {
		p.data, p.origin = old.data, old.origin
	}
	t.put(p)
	return nil
}

// Vote implements zeolite.Txn.
func (t *txn) Vote(ctx context.Context) error {
	if err := t.enter(ctx, "Vote", open); err != nil {
		return err
	}
	defer t.s.mu.RUnlock()
	if err := zeolite.CheckTID(t.meta.TID, t.s.last); err != nil {
		return err
	}
	for _, p := range t.records {
		if p.upload == nil {
			continue
		}
		if err := p.upload.usable(); err != nil {
			return err
		}
	}
	t.state = voted
	return nil
}

// Finish implements zeolite.Txn. The commit lock makes choosing the TID,
// publishing and becoming visible one step for all other commits; loads go on
// until visible takes mu.
func (t *txn) Finish(ctx context.Context, publish zeolite.Publish) (zeolite.TID, error) {
	t.s.commit.Lock()
	defer t.s.commit.Unlock()
	if err := t.enter(ctx, "Finish", voted); err != nil {
		t.Abort()
		return 0, err
	}
	tid, err := t.meta.TID, zeolite.CheckTID(t.meta.TID, t.s.last)
	if tid == zeolite.ZeroTID {
		tid = t.s.last.Next(t.s.now())
	}
	t.s.mu.RUnlock()
	if err != nil {
		t.Abort()
		return 0, err
	}

	committed, oids := t.build(tid)
	t.state = finished
	defer t.undoEnded()
	shown := false
	visible := func() {
		if shown {
			return
		}
		shown = true
		t.s.mu.Lock()
		defer t.s.mu.Unlock()
		t.s.install(committed)
	}
	if publish != nil {
		publish(tid, oids, visible)
	}
	visible()
	return tid, nil
}

// build gives the transaction its TID and takes its blobs.
func (t *txn) build(tid zeolite.TID) (*transaction, []zeolite.OID) {
	committed := &transaction{TransactionInfo: zeolite.TransactionInfo{
		TID:         tid,
		Status:      ' ',
		User:        t.meta.User,
		Description: t.meta.Description,
		Extension:   t.meta.Extension,
		Size:        int64(len(t.meta.User) + len(t.meta.Description) + len(t.meta.Extension)),
	}}
	if t.meta.Status != 0 {
		committed.Status = t.meta.Status
	}
	oids := make([]zeolite.OID, 0, len(t.records))
	for _, p := range t.records {
		r := p.revision
		r.tid = tid
		if r.data != nil && r.origin == zeolite.ZeroTID {
			r.origin = tid
			committed.Size += int64(len(r.data))
		}
		if p.upload != nil {
			r.blob = p.upload.consume()
		}
		committed.records = append(committed.records, &r)
		oids = append(oids, r.oid)
	}
	return committed, oids
}

// Abort implements zeolite.Txn.
func (t *txn) Abort() {
	if t.state != finished {
		t.state = aborted
		t.undoEnded()
		for _, p := range t.records {
			p.dropLink()
		}
		t.records, t.index = nil, nil
	}
}

// VoteNow implements zeolite.QuickCommitter: there is nothing to wait for.
func (s *Storage) VoteNow([]zeolite.OID, int) bool { return true }

// FinishNow implements zeolite.QuickCommitter.
func (s *Storage) FinishNow(map[zeolite.OID]zeolite.BlobUpload) bool { return true }
