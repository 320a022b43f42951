package demostorage

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/zeolite-go/zeolite"
)

// UndoLog implements zeolite.Undoer. Only transactions of the changes can be
// undone.
func (s *Storage) UndoLog(ctx context.Context) iter.Seq2[*zeolite.TransactionInfo, error] {
	if u, ok := s.changes.(zeolite.Undoer); ok && s.changes.Info().Undo {
		return u.UndoLog(ctx)
	}
	return func(yield func(*zeolite.TransactionInfo, error) bool) { yield(nil, zeolite.ErrUnsupported) }
}

// Undo implements zeolite.Txn. To the changes, a transaction that was the first
// to change an object of the base created the object, and undoing it makes the
// object disappear. So the state that it has in the base is put in place.
func (t *txn) Undo(ctx context.Context, tid zeolite.TID) ([]zeolite.OID, error) {
	if t.broken != nil {
		return nil, t.broken
	}
	oids, err := t.inner.Undo(ctx, tid)
	if err != nil || t.s.baseLast == zeolite.ZeroTID {
		return oids, err
	}
	undone := oids
	if len(undone) == 0 { // a network client learns it with the vote only
		undone, err = t.s.changed(ctx, tid)
	}
	for i := 0; err == nil && i < len(undone); i++ {
		err = t.putBack(ctx, undone[i], tid)
	}
	if err != nil {
		t.broken = err // half of it is undone
		return nil, err
	}
	return oids, nil
}

// changed returns the objects that transaction tid of the changes changed.
func (s *Storage) changed(ctx context.Context, tid zeolite.TID) ([]zeolite.OID, error) {
	for c, err := range s.changes.Changes(ctx, tid-1) {
		if err != nil || c.TID != tid {
			return nil, err
		}
		return append([]zeolite.OID(nil), c.OIDs...), nil
	}
	return nil, nil
}

// putBack restores the state of an object in the base, if it has one and the
// transaction tid, that is being undone, was the first to change it.
func (t *txn) putBack(ctx context.Context, oid zeolite.OID, tid zeolite.TID) error {
	_, err := t.s.changes.LoadBefore(ctx, oid, tid)
	if !errors.Is(err, zeolite.ErrNotYet) {
		if isNotFound(err) {
			err = nil // it was deleted then
		}
		return err
	}
	rev, err := t.s.base.LoadBefore(ctx, oid, zeolite.MaxTID)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	blob, err := t.copyBlob(ctx, oid, rev.TID)
	if err != nil {
		return err
	}
	if blob == nil {
		return t.inner.Restore(ctx, oid, rev.Data, zeolite.ZeroTID)
	}
	return t.inner.RestoreBlob(ctx, oid, rev.Data, zeolite.ZeroTID, blob)
}

// copyBlob uploads the blob of a revision of the base to the changes. It returns
// nil if there is none.
func (t *txn) copyBlob(ctx context.Context, oid zeolite.OID, tid zeolite.TID) (zeolite.BlobUpload, error) {
	blob, err := openBlob(ctx, t.s.base, oid, tid)
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	up, err := t.s.CreateBlob(ctx)
	if err != nil {
		return nil, err
	}
	t.uploads = append(t.uploads, up)
	if _, err := io.Copy(up, io.NewSectionReader(blob, 0, blob.Size())); err != nil {
		return nil, err
	}
	return up, up.Complete()
}
