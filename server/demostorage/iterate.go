package demostorage

import (
	"context"
	"errors"
	"iter"
	"math"

	"github.com/zeolite-go/zeolite"
)

// History implements zeolite.Storage: that in the changes, then that in the
// base.
func (s *Storage) History(ctx context.Context, oid zeolite.OID, n int) ([]zeolite.TransactionInfo, error) {
	infos, err := s.changes.History(ctx, oid, n)
	known := err == nil
	if err != nil && !isNotFound(err) || known && len(infos) >= n {
		return infos, err
	}
	older, err := s.base.History(ctx, oid, n-len(infos))
	if known && isNotFound(err) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return append(infos, older...), nil
}

// Transactions implements zeolite.Storage.
func (s *Storage) Transactions(ctx context.Context, start, stop zeolite.TID) iter.Seq2[*zeolite.TransactionRecord, error] {
	return chain(s.base.Transactions(ctx, start, stop), s.changes.Transactions(ctx, start, stop))
}

// Changes implements zeolite.Storage.
func (s *Storage) Changes(ctx context.Context, after zeolite.TID) iter.Seq2[zeolite.Change, error] {
	if after >= s.baseLast {
		return s.changes.Changes(ctx, after)
	}
	return chain(s.base.Changes(ctx, after), s.changes.Changes(ctx, after))
}

// chain yields one sequence after the other, up to the first error.
func chain[T any](parts ...iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, part := range parts {
			for v, err := range part {
				if !yield(v, err) || err != nil {
					return
				}
			}
		}
	}
}

// NextRecord implements zeolite.Storage: it merges the objects of both parts.
// Objects of the base that are deleted in the changes are passed over.
func (s *Storage) NextRecord(ctx context.Context, from zeolite.OID) (zeolite.CurrentRecord, error) {
	if !s.Info().RecordIteration {
		return zeolite.CurrentRecord{}, zeolite.ErrUnsupported
	}
	changed, err := seek(ctx, s.changes, from)
	if err != nil {
		return zeolite.CurrentRecord{}, err
	}
	base, err := seek(ctx, s.base, from)
	if err != nil {
		return zeolite.CurrentRecord{}, err
	}
	var rec zeolite.CurrentRecord
	if err := s.skipDeleted(ctx, &base, changed); err != nil {
		return rec, err
	}
	switch {
	case changed.end && base.end:
		return rec, &zeolite.NotFoundError{OID: from}
	case base.end || !changed.end && changed.oid <= base.oid:
		rec = changed.rec
	default:
		// It may have been stored since the changes were asked.
		rev, err := s.LoadBefore(ctx, base.oid, math.MaxUint64)
		if isNotFound(err) {
			return s.NextRecord(ctx, base.oid+1)
		}
		if err != nil {
			return rec, err
		}
		rec = zeolite.CurrentRecord{OID: base.oid, TID: rev.TID, Data: rev.Data}
	}
	if !changed.end && changed.oid == rec.OID {
		changed.step()
	}
	if !base.end && base.oid == rec.OID {
		base.step()
	}
	if err := s.skipDeleted(ctx, &base, changed); err != nil {
		return zeolite.CurrentRecord{}, err
	}
	rec.Next, rec.More = 0, true
	switch {
	case changed.end && base.end:
		rec.More = false
	case base.end || !changed.end && changed.oid < base.oid:
		rec.Next = changed.oid
	default:
		rec.Next = base.oid
	}
	return rec, nil
}

// cursor is where a walk over the objects of one part is. It is used by one
// goroutine.
type cursor struct {
	part zeolite.Storage
	oid  zeolite.OID
	end  bool
	// rec is the record of oid, or of an oid before it, which tells the
	// way to this one.
	rec zeolite.CurrentRecord
}

// seek goes to the first object of part from an oid on.
func seek(ctx context.Context, part zeolite.Storage, from zeolite.OID) (cursor, error) {
	rec, err := part.NextRecord(ctx, from)
	if isNotFound(err) {
		return cursor{part: part, end: true}, nil
	}
	return cursor{part: part, oid: rec.OID, rec: rec}, err
}

// step goes to the object after that of the record, without loading it.
func (c *cursor) step() { c.oid, c.end = c.rec.Next, !c.rec.More }

// skipDeleted moves a cursor of the base past the objects that the changes
// say are gone, but not past where the changes are.
func (s *Storage) skipDeleted(ctx context.Context, base *cursor, changed cursor) error {
	for !base.end && (changed.end || base.oid < changed.oid) {
		_, inBase, err := fallThrough(ctx, s, base.oid, func() (zeolite.TID, error) {
			return s.changes.CurrentTID(ctx, base.oid)
		})
		if inBase || err == nil {
			return nil
		}
		if !isNotFound(err) {
			return err
		}
		if base.rec.OID != base.oid {
			if *base, err = seek(ctx, base.part, base.oid); err != nil || base.end {
				return err
			}
		}
		base.step()
	}
	return nil
}
