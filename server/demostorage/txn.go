package demostorage

import (
	"context"
	"errors"

	"github.com/zeolite-go/zeolite"
)

// txn is a transaction of the changes that knows the base. It is used by one
// goroutine at a time.
type txn struct {
	s     *Storage
	inner zeolite.Txn
	given bool // the TID
	// broken is why the transaction can only be aborted any more.
	broken error
	// uploads are copies of the base's blobs, made by Undo.
	uploads []zeolite.BlobUpload
}

// Begin implements zeolite.Storage.
func (s *Storage) Begin(ctx context.Context, meta zeolite.TxnMeta) (zeolite.Txn, error) {
	if err := zeolite.CheckTID(meta.TID, s.LastTID()); err != nil {
		return nil, err
	}
	inner, err := s.changes.Begin(ctx, meta)
	if err != nil {
		return nil, err
	}
	return &txn{s: s, inner: inner, given: meta.TID != zeolite.ZeroTID}, nil
}

// newest says what the base has of an object that the changes do not know.
type newest struct {
	known bool
	gone  bool
	tid   zeolite.TID // of the newest revision
}

// hidden returns what the base has of an object. inChanges says that the
// changes know the object, so that the base does not count.
func (s *Storage) hidden(ctx context.Context, oid zeolite.OID) (b newest, inChanges bool, err error) {
	_, inBase, err := fallThrough(ctx, s, oid, func() (zeolite.TID, error) {
		return s.changes.CurrentTID(ctx, oid)
	})
	if !inBase {
		if isNotFound(err) {
			err = nil // deleted, but known
		}
		return b, true, err
	}
	b.tid, err = s.base.CurrentTID(ctx, oid)
	if !isNotFound(err) {
		b.known = err == nil
		return b, false, err
	}
	// History also shows deletions.
	infos, err := s.base.History(ctx, oid, 1)
	if isNotFound(err) || err == nil && len(infos) == 0 {
		return newest{}, false, nil
	}
	if err != nil {
		return b, false, err
	}
	return newest{known: true, gone: true, tid: infos[0].TID}, false, nil
}

// Store implements zeolite.Txn.
func (t *txn) Store(ctx context.Context, oid zeolite.OID, serial zeolite.TID, data []byte) error {
	return t.store(ctx, oid, serial, func(serial zeolite.TID) error {
		return t.inner.Store(ctx, oid, serial, data)
	})
}

// StoreBlob implements zeolite.Txn.
func (t *txn) StoreBlob(ctx context.Context, oid zeolite.OID, serial zeolite.TID, data []byte, blob zeolite.BlobUpload) error {
	return t.store(ctx, oid, serial, func(serial zeolite.TID) error {
		return t.inner.StoreBlob(ctx, oid, serial, data, blob)
	})
}

// store checks the serial of an object that is in the base only. To the changes
// it is a new one.
func (t *txn) store(ctx context.Context, oid zeolite.OID, serial zeolite.TID, put func(serial zeolite.TID) error) error {
	if t.broken != nil {
		return t.broken
	}
	b, inChanges, err := t.s.hidden(ctx, oid)
	if err != nil {
		return err
	}
	if inChanges || !b.known {
		return put(serial)
	}
	if b.tid != serial {
		return &zeolite.ConflictError{OID: oid, Committed: b.tid, Seen: serial}
	}
	err = put(zeolite.ZeroTID)
	var conflict *zeolite.ConflictError
	if errors.As(err, &conflict) && conflict.OID == oid {
		// Somebody else wrote the object meanwhile, to changes that others
		// share.
		seen := *conflict
		seen.Seen = serial
		return &seen
	}
	return err
}

// Delete implements zeolite.Txn. That an object of the base is gone can only be
// restored to the changes: they do not know what they are to delete. It is the
// one use of Restore in a transaction that others may be beside; there is no
// revision to refer to, so that does no harm.
func (t *txn) Delete(ctx context.Context, oid zeolite.OID, serial zeolite.TID) error {
	if t.broken != nil {
		return t.broken
	}
	b, inChanges, err := t.s.hidden(ctx, oid)
	if err != nil {
		return err
	}
	if inChanges {
		return t.inner.Delete(ctx, oid, serial)
	}
	if err := b.check(oid, serial, false); err != nil {
		return err
	}
	return t.inner.Restore(ctx, oid, nil, zeolite.ZeroTID)
}

// CheckCurrent implements zeolite.Txn.
func (t *txn) CheckCurrent(ctx context.Context, oid zeolite.OID, serial zeolite.TID) error {
	if t.broken != nil {
		return t.broken
	}
	b, inChanges, err := t.s.hidden(ctx, oid)
	if err != nil {
		return err
	}
	if inChanges {
		return t.inner.CheckCurrent(ctx, oid, serial)
	}
	return b.check(oid, serial, true)
}

// check fails unless the object exists and serial is current.
func (b newest) check(oid zeolite.OID, serial zeolite.TID, read bool) error {
	if !b.known || b.gone {
		return &zeolite.NotFoundError{OID: oid}
	}
	if b.tid != serial {
		return &zeolite.ConflictError{OID: oid, Committed: b.tid, Seen: serial, Read: read}
	}
	return nil
}

// Restore implements zeolite.Txn.
func (t *txn) Restore(ctx context.Context, oid zeolite.OID, data []byte, prev zeolite.TID) error {
	if t.broken != nil {
		return t.broken
	}
	return t.inner.Restore(ctx, oid, data, t.s.inChanges(prev))
}

// RestoreBlob implements zeolite.Txn.
func (t *txn) RestoreBlob(ctx context.Context, oid zeolite.OID, data []byte, prev zeolite.TID, blob zeolite.BlobUpload) error {
	if t.broken != nil {
		return t.broken
	}
	return t.inner.RestoreBlob(ctx, oid, data, t.s.inChanges(prev), blob)
}

// inChanges returns the TID of a revision whose data the changes may share:
// zero if it is in the base.
func (s *Storage) inChanges(prev zeolite.TID) zeolite.TID {
	if prev <= s.baseLast {
		return zeolite.ZeroTID
	}
	return prev
}

// Vote implements zeolite.Txn.
func (t *txn) Vote(ctx context.Context) error {
	if t.broken != nil {
		return t.broken
	}
	if err := t.checkClock(); err != nil {
		return err
	}
	return t.inner.Vote(ctx)
}

func (t *txn) checkClock() error {
	if t.given {
		return nil
	}
	return t.s.checkClock()
}

// Finish implements zeolite.Txn. Should the clock have been put back since
// Vote, the transaction is aborted rather than put before the base.
func (t *txn) Finish(ctx context.Context, publish zeolite.Publish) (zeolite.TID, error) {
	err := t.broken
	if err == nil {
		err = t.checkClock()
	}
	if err != nil {
		t.Abort()
		return 0, err
	}
	tid, err := t.inner.Finish(ctx, publish)
	if err != nil && !errors.Is(err, zeolite.ErrInDoubt) {
		t.discard()
	}
	return tid, err
}

// Abort implements zeolite.Txn.
func (t *txn) Abort() {
	t.inner.Abort()
	t.discard()
}

// discard removes copies of blobs, unless a Finish consumed them.
func (t *txn) discard() {
	for _, up := range t.uploads {
		up.Discard() // what is left goes with the storage's temporary files
	}
	t.uploads = nil
}
