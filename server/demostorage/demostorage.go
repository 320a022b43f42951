// Package demostorage puts a database of changes over a base that stays as it
// is, as ZODB's DemoStorage: reads fall through from the changes to the base,
// and all writes go to the changes. So a copy of production can be tried out,
// or many tests can share one set-up, and afterwards the changes are thrown
// away, or kept.
//
// # What is assumed
//
// The base must not change as long as there are changes over it. A base in which
// others commit (a zeolite.Watcher: the database of another server) gives wrong
// answers, as in ZODB. And the changes must not be packed by themselves, without
// their base: see Pack for what it would bring back.
//
// Every transaction of the changes is later than the last of the base: New
// refuses what contradicts that, and a transaction that the clock would put too
// early fails when it votes. So all TIDs are in one order, those of the base
// first, and whatever is iterated is the one part after the other.
//
// # What is found where
//
// The changes hide the base object by object: as soon as they have a revision
// of an object, even one that says that it is gone, its current state is theirs.
// The revisions of the base remain what came before. A storage does not say of
// a missing object whether it is unknown or deleted; asking what it was before
// all TIDs does: ErrNotYet of an object that is known, *NotFoundError of one
// that is not.
//
// Read the files in this order: demostorage.go, load.go, txn.go, undo.go,
// iterate.go, oids.go, blob.go, pack.go.
package demostorage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zeolite-go/zeolite"
)

// Options configure New. The zero value is usable.
type Options struct {
	// Name is what Info says; if empty it is made of the names of both
	// parts, as in ZODB.
	Name string
	// Now is the clock that the changes take their TIDs from, to tell
	// whether they will be later than those of the base; time.Now if nil.
	Now func() time.Time
}

// Storage is a zeolite.Storage made of two. It may be used by any number of
// goroutines. What can be undone, packed and kept as a blob depends on the
// storage for changes; Info says so.
type Storage struct {
	base, changes zeolite.Storage
	name          string
	now           func() time.Time

	// baseLast is the last transaction of the base, zero if that is empty.
	baseLast zeolite.TID
	oids     oidSource
}

var (
	_ zeolite.Storage     = (*Storage)(nil)
	_ zeolite.Undoer      = (*Storage)(nil)
	_ zeolite.Packer      = (*Storage)(nil)
	_ zeolite.BlobStorage = (*Storage)(nil)
	_ zeolite.Watcher     = (*Storage)(nil)
)

// New returns a storage that reads changes, then base, and writes to changes.
// Both belong to it from then on: its Close closes them. If New fails, they
// remain the caller's.
//
// New fails if the changes have a transaction that is not later than the last
// one of the base, because then the base has changed since, and if the changes
// have none but the clock says that the first would not be later.
func New(base, changes zeolite.Storage, opts Options) (*Storage, error) {
	s := &Storage{
		base:     base,
		changes:  changes,
		name:     cmp.Or(opts.Name, fmt.Sprintf("DemoStorage('%s', '%s')", base.Info().Name, changes.Info().Name)),
		now:      opts.Now,
		baseLast: base.LastTID(),
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.oids.jump()
	if s.baseLast == zeolite.ZeroTID {
		return s, nil
	}
	for t, err := range changes.Transactions(context.Background(), zeolite.ZeroTID, s.baseLast) {
		if err != nil {
			return nil, fmt.Errorf("reading the changes: %w", err)
		}
		return nil, &zeolite.StorageError{Message: fmt.Sprintf(
			"the base has changed since there are changes over it: its last transaction is %v (%v), the changes begin with %v (%v)",
			s.baseLast, s.baseLast.Time(), t.TID, t.TID.Time())}
	}
	if !changes.Info().ReadOnly {
		if err := s.checkClock(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// checkClock fails as long as the next transaction of the changes could get a
// TID that does not follow the base. Once there is one that does, all others
// do, whatever the clock says.
func (s *Storage) checkClock() error {
	if s.changes.LastTID() > s.baseLast || zeolite.TIDFromTime(s.now()) > s.baseLast {
		return nil
	}
	return &zeolite.StorageError{Message: fmt.Sprintf(
		"the last transaction of the base, %v, is in the future (%v): no transaction can follow it before that time",
		s.baseLast, s.baseLast.Time())}
}

// Info implements zeolite.Storage. An object that is in both parts is counted
// twice.
func (s *Storage) Info() zeolite.Info {
	base, changes := s.base.Info(), s.changes.Info()
	return zeolite.Info{
		Name:            s.name,
		Objects:         base.Objects + changes.Objects,
		Size:            base.Size + changes.Size,
		ReadOnly:        changes.ReadOnly,
		Undo:            changes.Undo,
		Pack:            changes.Pack,
		Blobs:           changes.Blobs,
		RecordIteration: base.RecordIteration && changes.RecordIteration,
	}
}

// LastTID implements zeolite.Storage.
func (s *Storage) LastTID() zeolite.TID { return max(s.baseLast, s.changes.LastTID()) }

// Watch implements zeolite.Watcher: it tells what others commit to the changes.
// What others commit to the base is not told, they must not.
func (s *Storage) Watch(publish zeolite.Publish, lost func()) {
	if w, ok := s.changes.(zeolite.Watcher); ok {
		w.Watch(publish, lost)
	}
}

// Close implements zeolite.Storage: it closes both parts.
func (s *Storage) Close() error {
	return errors.Join(s.changes.Close(), s.base.Close())
}
