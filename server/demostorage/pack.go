package demostorage

import (
	"context"
	"fmt"

	"github.com/zeolite-go/zeolite"
)

// Pack implements zeolite.Packer: it packs the changes, and only as far as the
// base cannot shine through.
//
// Garbage is not collected unless that is asked for and the base is empty, so
// that the changes are the whole database. Otherwise it cannot be told from the
// changes what is garbage: their objects may be reached by way of objects that
// are in the base only, and the root itself may be there.
//
// What a pack forgets at once is that an object is gone, and then the object of
// the base would be back. So packing stops short of the first transaction that
// deleted an object of the base.
func (s *Storage) Pack(ctx context.Context, tid zeolite.TID, opts zeolite.PackOptions) error {
	packer, ok := s.changes.(zeolite.Packer)
	if !ok || !s.changes.Info().Pack {
		return zeolite.ErrUnsupported
	}
	if opts.GC == nil {
		opts.GC = new(bool)
	}
	if s.baseLast != zeolite.ZeroTID {
		if *opts.GC {
			return fmt.Errorf("garbage collection in changes over a base: %w", zeolite.ErrUnsupported)
		}
		var err error
		if tid, err = s.packable(ctx, min(tid, s.changes.LastTID())); err != nil {
			return err
		}
	}
	return packer.Pack(ctx, tid, opts)
}

// packable returns tid, or the moment before the first transaction up to tid
// that deleted an object of the base.
func (s *Storage) packable(ctx context.Context, tid zeolite.TID) (zeolite.TID, error) {
	for t, err := range s.changes.Transactions(ctx, zeolite.ZeroTID, tid) {
		if err != nil {
			return 0, err
		}
		for r, err := range t.Each() {
			if err != nil {
				return 0, err
			}
			if r.Data != nil {
				continue
			}
			inBase, err := has(ctx, s.base, r.OID)
			if err != nil {
				return 0, err
			}
			if inBase {
				return t.TID - 1, nil
			}
		}
	}
	return tid, nil
}
