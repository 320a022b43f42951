package memory

import (
	"context"
	"crypto/rand"
	"iter"
	"os"
	"path/filepath"

	"github.com/zeolite-go/zeolite"
)

// UndoLog implements zeolite.Undoer.
func (s *Storage) UndoLog(ctx context.Context) iter.Seq2[*zeolite.TransactionInfo, error] {
	return func(yield func(*zeolite.TransactionInfo, error) bool) {
		if err := s.rlock(ctx); err != nil {
			yield(nil, err)
			return
		}
		txns, packed := s.txns, s.packed
		s.mu.RUnlock()
		for i := len(txns) - 1; i >= 0 && txns[i].TID > packed; i-- {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			if txns[i].Status != ' ' {
				continue
			}
			info := txns[i].info()
			if !yield(&info, nil) {
				return
			}
		}
	}
}

// Undo implements zeolite.Txn. It sees what this transaction undid before, so
// several transactions can be undone in one, newest first.
func (t *txn) Undo(ctx context.Context, tid zeolite.TID) ([]zeolite.OID, error) {
	if err := t.enter(ctx, "Undo", open); err != nil {
		return nil, err
	}
	defer t.s.mu.RUnlock()
	undone := t.s.transaction(tid)
	if undone == nil {
		return nil, &zeolite.UndoError{Reason: "there is no transaction " + tid.String()}
	}
	if undone.Status != ' ' || tid <= t.s.packed {
		return nil, &zeolite.UndoError{Reason: "transaction " + tid.String() + " was packed"}
	}

	var (
		records []*pending
		oids    []zeolite.OID
		failed  []*zeolite.UndoError
	)
	for _, r := range undone.records {
		if !sameState(t.now(r.oid), r) {
			failed = append(failed, &zeolite.UndoError{
				Reason: "a later transaction changed the object", OID: r.oid, HasOID: true})
			continue
		}
		p := &pending{revision: revision{oid: r.oid}} // gone, if r created it
		if before := t.s.previous(r); before != nil {
			p.data, p.origin, p.blob = before.data, before.origin, before.blob
		}
		records = append(records, p)
		oids = append(oids, r.oid)
	}
	if failed != nil {
		return nil, &zeolite.MultipleUndoErrors{Errs: failed}
	}
	for i, p := range records {
		if err := p.linkBlob(); err != nil {
			for _, linked := range records[:i] {
				linked.dropLink()
			}
			return nil, err
		}
	}
	for _, p := range records {
		t.put(p)
	}
	t.s.undoMu.Lock()
	t.s.undoing[t] = struct{}{}
	t.s.undoMu.Unlock()
	return oids, nil
}

// undoEnded says that a pack need not look at the transaction any more: it is in
// Storage.txns, or never will be.
func (t *txn) undoEnded() {
	t.s.undoMu.Lock()
	delete(t.s.undoing, t)
	t.s.undoMu.Unlock()
}

// broughtBack returns what open transactions are going to bring back by undoing.
// It is called with mu held for writing: nothing is added to them meanwhile.
func (s *Storage) broughtBack() (revs []*revision) {
	s.undoMu.Lock()
	defer s.undoMu.Unlock()
	for t := range s.undoing {
		for _, p := range t.records {
			revs = append(revs, &p.revision)
		}
	}
	return revs
}

// linkBlob gives the blob that an undo brings back a file of its own: a pack may
// remove that of the revision it comes from, before this transaction finishes.
// It is called with s.mu held.
func (p *pending) linkBlob() error {
	if p.blob == "" {
		return nil
	}
	link := filepath.Join(filepath.Dir(p.blob), rand.Text()+".blob")
	if err := os.Link(p.blob, link); err != nil {
		return &zeolite.StorageError{Message: "cannot link a blob", Err: err}
	}
	p.blob = link
	return nil
}

// now returns the state of an object as this transaction leaves it. It is
// called with s.mu held.
func (t *txn) now(oid zeolite.OID) *revision {
	if i, changed := t.index[oid]; changed {
		return &t.records[i].revision
	}
	return t.s.current(oid)
}

// previous returns the revision before r, nil if r created the object. It is
// called with mu held.
func (s *Storage) previous(r *revision) *revision {
	revs := s.objects[r.oid]
	if i, ok := searchRevision(revs, r.tid); ok && i > 0 {
		return revs[i-1]
	}
	return nil
}

// sameState tells whether an object whose newest revision is now is as r left
// it: that is r itself, or it got back r's bytes by undoing, or both say that
// the object is gone.
func sameState(now, r *revision) bool {
	if now == nil || now.data == nil || r.data == nil {
		return now != nil && now.data == nil && r.data == nil
	}
	return now.origin == r.origin
}
