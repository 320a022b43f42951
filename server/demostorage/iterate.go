package demostorage

import (
	"context"
	"iter"

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
	m := merge{s: s}
	var err error
	if m.changes, err = seek(ctx, s.changes, from); err == nil {
		m.base, err = seek(ctx, s.base, from)
	}
	if err == nil {
		err = m.settle(ctx)
	}
	if err != nil {
		return zeolite.CurrentRecord{}, err
	}
	oid, found := m.oid()
	if !found {
		return zeolite.CurrentRecord{}, &zeolite.NotFoundError{OID: from}
	}
	rec, err := m.record(ctx)
	if isNotFound(err) {
		return s.NextRecord(ctx, from) // deleted while it was looked at
	}
	if err != nil {
		return zeolite.CurrentRecord{}, err
	}
	m.base.pass(oid)
	m.changes.pass(oid)
	if err := m.settle(ctx); err != nil {
		return zeolite.CurrentRecord{}, err
	}
	rec.Next, rec.More = m.oid()
	return rec, nil
}

// merge is a walk over the objects of both parts. It is used by one goroutine.
type merge struct {
	s             *Storage
	base, changes cursor
	// unchanged says that the changes did not know the object of the base
	// when they were asked.
	unchanged bool
}

// cursor is where a walk over the objects of one part is. It is used by one
// goroutine.
type cursor struct {
	part zeolite.Storage
	oid  zeolite.OID
	end  bool
	// rec is the record of oid; after pass, that of the object before.
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

// pass goes to the next object, without loading it, if the cursor is at oid.
func (c *cursor) pass(oid zeolite.OID) {
	if !c.end && c.oid == oid {
		c.oid, c.end = c.rec.Next, !c.rec.More
	}
}

// baseFirst tells whether the next object is one that the changes do not have.
func (m *merge) baseFirst() bool {
	return !m.base.end && (m.changes.end || m.base.oid < m.changes.oid)
}

// oid is the next object; found is false at the end.
func (m *merge) oid() (oid zeolite.OID, found bool) {
	switch {
	case m.baseFirst():
		return m.base.oid, true
	case m.changes.end:
		return 0, false
	}
	return m.changes.oid, true
}

// settle moves the cursor of the base past objects that are deleted in the
// changes.
func (m *merge) settle(ctx context.Context) error {
	for m.baseFirst() {
		_, inBase, err := fallThrough(ctx, m.s, m.base.oid, func() (zeolite.TID, error) {
			return m.s.changes.CurrentTID(ctx, m.base.oid)
		})
		if inBase || err == nil {
			m.unchanged = inBase
			return nil
		}
		if !isNotFound(err) {
			return err
		}
		err = nil // it is deleted: go on
		switch rec := m.base.rec; {
		case rec.OID != m.base.oid:
			m.base, err = seek(ctx, m.s.base, m.base.oid)
		case rec.More:
			m.base, err = seek(ctx, m.s.base, rec.Next)
		default:
			m.base.end = true
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// record returns the record of the next object.
func (m *merge) record(ctx context.Context) (zeolite.CurrentRecord, error) {
	switch {
	case !m.baseFirst():
		return m.changes.rec, nil
	case m.unchanged:
		return m.base.rec, nil
	}
	// It was stored since the changes were asked for their next object.
	rev, err := m.s.LoadBefore(ctx, m.base.oid, zeolite.MaxTID)
	return zeolite.CurrentRecord{OID: m.base.oid, TID: rev.TID, Data: rev.Data}, err
}
