package demostorage

import (
	"context"
	"errors"
	"math"

	"github.com/zeolite-go/zeolite"
)

// has tells whether part knows an object, be it deleted.
func has(ctx context.Context, part zeolite.Storage, oid zeolite.OID) (bool, error) {
	_, err := part.LoadBefore(ctx, oid, zeolite.ZeroTID)
	switch {
	case errors.Is(err, zeolite.ErrNotYet):
		return true, nil
	case isNotFound(err):
		return false, nil
	}
	return err == nil, err
}

func isNotFound(err error) bool {
	var missing *zeolite.NotFoundError
	return errors.As(err, &missing)
}

// fallThrough looks an object up in the changes. It returns inBase if they do
// not know it, and else what look, which must be a call to the changes, returns:
// *NotFoundError then says that the object is deleted there.
//
// A commit may come between the two questions. So an object counts as deleted
// only if it was known before look did not find it.
func fallThrough[T any](ctx context.Context, s *Storage, oid zeolite.OID, look func() (T, error)) (found T, inBase bool, err error) {
	for known := false; ; {
		found, err = look()
		if !isNotFound(err) || known {
			return found, false, err
		}
		if known, err = has(ctx, s.changes, oid); err != nil || !known {
			return found, err == nil, err
		}
	}
}

// LoadBefore implements zeolite.Storage.
func (s *Storage) LoadBefore(ctx context.Context, oid zeolite.OID, before zeolite.TID) (zeolite.Revision, error) {
	for {
		rev, inBase, err := fallThrough(ctx, s, oid, func() (zeolite.Revision, error) {
			return s.changes.LoadBefore(ctx, oid, before)
		})
		if inBase {
			return s.base.LoadBefore(ctx, oid, before)
		}
		if !errors.Is(err, zeolite.ErrNotYet) {
			return rev, err
		}
		rev, err = s.loadSuperseded(ctx, oid, before)
		if err != errPacked {
			return rev, err
		}
	}
}

// errPacked says that the changes forgot an object since they were asked.
var errPacked = errors.New("packed meanwhile")

// loadSuperseded loads the revision of oid that was current just before a TID
// at which the changes, which know the object, had no revision of it yet.
func (s *Storage) loadSuperseded(ctx context.Context, oid zeolite.OID, before zeolite.TID) (zeolite.Revision, error) {
	rev, err := s.base.LoadBefore(ctx, oid, before)
	if isNotFound(err) {
		known, hasErr := has(ctx, s.base, oid)
		if hasErr != nil {
			return zeolite.Revision{}, hasErr
		}
		if !known {
			err = zeolite.ErrNotYet // the object was created in the changes, later
		}
	}
	if err != nil || rev.End != zeolite.ZeroTID {
		return rev, err
	}

	// It is the newest of the base, and ends with the first of the changes.
	infos, err := s.changes.History(ctx, oid, math.MaxInt32)
	if isNotFound(err) || err == nil && len(infos) == 0 {
		// A pack has taken it since; or others have only just committed it,
		// and it is not shown yet: then to ask again would not help.
		if known, err := has(ctx, s.changes, oid); err != nil || !known {
			return rev, err
		}
		return zeolite.Revision{}, errPacked
	}
	if err != nil {
		return zeolite.Revision{}, err
	}
	first := infos[len(infos)-1]
	switch {
	case first.Status != 'p':
		rev.End = first.TID
	case before > s.baseLast.Successor():
		// There may have been revisions between the base and the first
		// one that is left, and one of them may be the one asked for.
		return zeolite.Revision{}, zeolite.ErrNotYet
	default:
		// When it ended is forgotten, but not before the base did.
		rev.End = s.baseLast.Successor()
	}
	return rev, nil
}

// LoadSerial implements zeolite.Storage.
func (s *Storage) LoadSerial(ctx context.Context, oid zeolite.OID, serial zeolite.TID) ([]byte, error) {
	data, err := s.changes.LoadSerial(ctx, oid, serial)
	if isNotFound(err) {
		return s.base.LoadSerial(ctx, oid, serial)
	}
	return data, err
}

// CurrentTID implements zeolite.Storage.
func (s *Storage) CurrentTID(ctx context.Context, oid zeolite.OID) (zeolite.TID, error) {
	tid, inBase, err := fallThrough(ctx, s, oid, func() (zeolite.TID, error) {
		return s.changes.CurrentTID(ctx, oid)
	})
	if inBase {
		return s.base.CurrentTID(ctx, oid)
	}
	return tid, err
}
