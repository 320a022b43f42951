package demostorage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/zeolite-go/zeolite"
)

// maxRandomOID is the largest oid that counting may begin with.
const maxRandomOID = 1 << 62

// oidSource counts up from a random oid, so that the oids of new objects of
// different changes over the same base, and those that the base itself hands
// out later, hardly ever meet. Its methods are called with mu held, but for
// jump in New.
type oidSource struct {
	mu          sync.Mutex
	first, next zeolite.OID   // those in between were handed out
	earlier     []oidSequence // handed out before the last jump
}

// oidSequence is the oids from first on, before next.
type oidSequence struct{ first, next zeolite.OID }

// jump goes on at another random oid.
func (o *oidSource) jump() {
	if o.next > o.first {
		o.earlier = append(o.earlier, oidSequence{o.first, o.next})
	}
	o.first = zeolite.OID(rand.Uint64N(maxRandomOID) + 1)
	o.next = o.first
}

// used tells whether next was handed out before.
func (o *oidSource) used() bool {
	for _, seq := range o.earlier {
		if seq.first <= o.next && o.next < seq.next {
			return true
		}
	}
	return false
}

// NewOIDs implements zeolite.Storage. As in ZODB nothing but chance keeps two
// processes, one after the other, from handing out the same oid before an
// object has it.
func (s *Storage) NewOIDs(ctx context.Context, n int) ([]zeolite.OID, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if n <= 0 {
		return nil, &zeolite.StorageError{Message: fmt.Sprintf("cannot make %d new oids", n)}
	}
	if s.changes.Info().ReadOnly {
		return nil, zeolite.ErrReadOnly
	}
	s.oids.mu.Lock()
	defer s.oids.mu.Unlock()
	oids := make([]zeolite.OID, 0, min(n, 1<<10))
	for len(oids) < n {
		oid := s.oids.next
		taken := s.oids.used()
		for _, part := range []zeolite.Storage{s.changes, s.base} {
			if taken {
				break
			}
			var err error
			if taken, err = has(ctx, part, oid); err != nil {
				return nil, err
			}
		}
		if taken {
			s.oids.jump()
			continue
		}
		s.oids.next++
		oids = append(oids, oid)
	}
	return oids, nil
}
