package server

import (
	"context"
	"errors"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/stubs/spool"
)

// replay does what a transaction's log says.
type replay struct {
	s         *session
	t         *transaction
	result    stubs.VoteResult
	conflicts map[zeolite.OID]*zeolite.ConflictError // of objects not stored yet
	stores    map[zeolite.OID]int                    // the entries that met them
	undos     []*zeolite.ConflictError               // that undos met
}

func (r *replay) all(ctx context.Context) error {
	err := r.t.log.Each(func(i int, o *spool.Op) error {
		err := r.one(ctx, o)
		var conflict *zeolite.ConflictError
		switch {
		case err == nil:
			// A store that succeeds settles an earlier one that did not: this
			// is how a client brings in what it resolved.
			if o.Kind == spool.Store || o.Kind == spool.StoreBlob {
				delete(r.conflicts, o.OID)
			}
		case errors.As(err, &conflict) && (o.Kind == spool.Store || o.Kind == spool.StoreBlob):
			r.conflicts[o.OID], r.stores[o.OID] = conflict, i
		default:
			r.t.refused = r.t.refused || absurd(o)
			return err
		}
		return nil
	})
	if err != nil || len(r.conflicts) == 0 {
		return err
	}
	return r.report()
}

// absurd says that no storage takes what is to be stored: an empty record, or an
// oid that is too large.
func absurd(o *spool.Op) bool {
	switch o.Kind {
	case spool.Store, spool.StoreBlob, spool.Restore:
		return o.Size == 0 && !o.Gone || zeolite.CheckOID(o.OID, 0) != nil
	}
	return false
}

// late takes down conflicts that only the vote of the storage found: others
// committed to it meanwhile, or an undo met them. False says that they cannot be
// resolved: an object was only read, or it is not known which revision is in the
// way.
func (r *replay) late(conflicts []*zeolite.ConflictError) (resolvable bool, err error) {
	err = r.t.log.Each(func(i int, o *spool.Op) error {
		if o.Kind == spool.Store || o.Kind == spool.StoreBlob {
			r.stores[o.OID] = i
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	for _, c := range conflicts {
		_, stored := r.stores[c.OID]
		if c.Read || c.Committed == zeolite.ZeroTID || !stored && c.Data == nil {
			return false, nil
		}
		if c.Data != nil {
			r.undos = append(r.undos, c)
			continue
		}
		r.conflicts[c.OID] = c
	}
	return len(conflicts) > 0, nil
}

// conflictBytes is how many bytes a reply to vote may have before it stops short,
// as is what filestorage's vote reports of an undo, and conflictCost what a conflict
// takes of them beside its record, roughly.
const (
	conflictBytes = 16 << 20
	conflictCost  = 256
)

// report puts the conflicts into the result, in the order in which the objects
// were stored, and those of undos. All but the first that do not fit are left to
// the client's next vote, which meets them again.
func (r *replay) report() error {
	size := 0
	fits := func(bytes int) bool {
		size += bytes + conflictCost
		return size <= conflictBytes || len(r.result.Conflicts) == 0
	}
	add := func(c *zeolite.ConflictError, data []byte) {
		r.result.Conflicts = append(r.result.Conflicts,
			stubs.StoreConflict{OID: c.OID, Committed: c.Committed, Seen: c.Seen, Data: data})
	}
	err := r.t.log.Each(func(i int, o *spool.Op) error {
		c := r.conflicts[o.OID]
		if c == nil || r.stores[o.OID] != i || !fits(o.Size) {
			return nil
		}
		data, err := r.t.log.Record(o)
		add(c, data)
		return err
	})
	for _, c := range r.undos {
		if fits(len(c.Data)) {
			add(c, c.Data)
		}
	}
	return err
}

func (r *replay) one(ctx context.Context, o *spool.Op) error {
	txn := r.t.voted
	data, err := r.t.log.Record(o)
	if err != nil {
		return err
	}
	// Whatever record an object ends up with, a blob that was uploaded for it
	// stays with it: Python clients store the record both with and without
	// the blob, and a resolved record without.
	blob := r.t.blobs[o.OID]
	switch o.Kind {
	case spool.Store, spool.StoreBlob:
		if blob != nil {
			return txn.StoreBlob(ctx, o.OID, o.Serial, data, blob)
		}
		return txn.Store(ctx, o.OID, o.Serial, data)
	case spool.Delete:
		return txn.Delete(ctx, o.OID, o.Serial)
	case spool.Check:
		return txn.CheckCurrent(ctx, o.OID, o.Serial)
	case spool.Restore:
		switch {
		case o.Gone:
			data = nil
		case data == nil:
			data = []byte{}
		}
		if blob != nil {
			return txn.RestoreBlob(ctx, o.OID, data, o.Serial, blob)
		}
		return txn.Restore(ctx, o.OID, data, o.Serial)
	default: // spool.Undo
		changed, err := txn.Undo(ctx, o.Serial)
		r.result.Changed = append(r.result.Changed, changed...)
		return err
	}
}
