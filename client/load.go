package client

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
)

// loadKey names a load.
type loadKey struct {
	oid    zeolite.OID
	before zeolite.TID
}

// flights are the loads under way, each made once for all who want it. It is
// safe for concurrent use.
type flights struct {
	mu sync.Mutex
	by map[loadKey]*flight
}

// flight is a load under way. What follows done may be read when done is
// closed.
type flight struct {
	done chan struct{}
	rev  zeolite.Revision
	err  error
	// given up by the one who made it, whose context ended
	abandoned bool
}

// LoadBefore implements zeolite.Storage, from the cache if possible.
//
// What it shows is the database as of LastTID and no later: a moment beyond
// that is as good as the one just after it.
func (s *Storage) LoadBefore(ctx context.Context, oid zeolite.OID, before zeolite.TID) (zeolite.Revision, error) {
	if s.ctx.Err() != nil {
		return zeolite.Revision{}, zeolite.ErrClosed
	}
	if err := s.started(ctx); err != nil {
		return zeolite.Revision{}, err
	}
	for {
		last := s.LastTID()
		rev, err := s.loadAsOf(ctx, oid, min(before, last+1))
		if err == nil {
			if rev.End > s.LastTID() {
				rev.End = 0
			}
			rev.Data = bytes.Clone(rev.Data)
			return rev, nil
		}
		if before > last+1 && isAbsent(err) {
			if s.LastTID() > last {
				// The revision of that moment may be packed away by now.
				continue
			}
			if errors.Is(err, zeolite.ErrNotYet) {
				// It will exist, but for now nobody can know.
				err = &zeolite.NotFoundError{OID: oid}
			}
		}
		return zeolite.Revision{}, err
	}
}

// loadAsOf loads from the cache or the server. The data must not be changed.
func (s *Storage) loadAsOf(ctx context.Context, oid zeolite.OID, before zeolite.TID) (zeolite.Revision, error) {
	if rev, ok := s.cache.get(oid, before); ok {
		return rev, nil
	}
	return s.load(ctx, loadKey{oid, before})
}

// isAbsent tells whether an error says that there is no such revision.
func isAbsent(err error) bool {
	return errors.Is(err, zeolite.ErrNotYet) || errors.As(err, new(*zeolite.NotFoundError))
}

// load asks the server, unless somebody else is doing so already.
func (s *Storage) load(ctx context.Context, key loadKey) (zeolite.Revision, error) {
	for {
		s.flights.mu.Lock()
		f := s.flights.by[key]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			if s.flights.by == nil {
				s.flights.by = map[loadKey]*flight{}
			}
			s.flights.by[key] = f
			s.flights.mu.Unlock()
			s.fly(ctx, key, f)
			return f.rev, f.err
		}
		s.flights.mu.Unlock()
		select {
		case <-f.done:
			if !f.abandoned {
				return f.rev, f.err
			}
		case <-ctx.Done():
			return zeolite.Revision{}, s.ctxErr(ctx)
		}
	}
}

// fly makes a load for everybody who waits for it.
func (s *Storage) fly(ctx context.Context, key loadKey, f *flight) {
	rev, err := s.ask(ctx, key)
	s.flights.mu.Lock()
	delete(s.flights.by, key)
	s.flights.mu.Unlock()
	f.rev, f.err = rev, err
	f.abandoned = err != nil && ctx.Err() != nil
	close(f.done)
}

// ask asks the server. The cache learns the answer in the goroutine that reads the
// connection, before any later message is looked at: an invalidation that follows
// finds it there.
func (s *Storage) ask(ctx context.Context, key loadKey) (zeolite.Revision, error) {
	var rev zeolite.Revision
	err := s.read(ctx, func(l *link) error {
		answer := new(zeolite.Revision) // a late answer goes nowhere else
		err := l.stub.LoadBeforeHook(ctx, key.oid, key.before, func(r zeolite.Revision, err error) {
			if err != nil {
				return
			}
			s.cache.mu.Lock()
			s.cache.insertLocked(key.oid, r)
			s.cache.mu.Unlock()
			*answer = r
		})
		if err == nil {
			rev = *answer
		}
		return err
	})
	return rev, err
}

// Prefetch loads the revisions of many objects that were current just before
// a tid into the cache: by one request for a thousand of them, if the server
// knows how, else by one for each. All requests are sent at once, and are
// answered while Prefetch waits. Objects that do not exist are passed over.
func (s *Storage) Prefetch(ctx context.Context, oids []zeolite.OID, before zeolite.TID) error {
	if err := s.started(ctx); err != nil {
		return err
	}
	before = min(before, s.LastTID()+1)
	var missing []zeolite.OID
	for _, oid := range oids {
		if _, ok := s.cache.get(oid, before); !ok {
			missing = append(missing, oid)
		}
	}
	if err := s.loadMany(ctx, missing, before); !errors.Is(err, errNoLoadMany) {
		return err
	}
	// A group bounds the goroutines; their calls share a write all the same.
	const burst = 1000
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(burst)
	for _, oid := range missing {
		g.Go(func() error {
			_, err := s.load(ctx, loadKey{oid, before})
			if isAbsent(err) {
				return nil
			}
			return err
		})
	}
	return g.Wait()
}

// LoadSerial implements zeolite.Storage.
func (s *Storage) LoadSerial(ctx context.Context, oid zeolite.OID, serial zeolite.TID) ([]byte, error) {
	if s.ctx.Err() != nil {
		return nil, zeolite.ErrClosed
	}
	if err := s.started(ctx); err != nil {
		return nil, err
	}
	if serial > s.LastTID() {
		return nil, &zeolite.NotFoundError{OID: oid, TID: serial}
	}
	if rev, ok := s.cache.get(oid, serial+1); ok && rev.TID == serial {
		return bytes.Clone(rev.Data), nil
	}
	var data []byte
	err := s.read(ctx, func(l *link) (err error) {
		data, err = l.stub.LoadSerial(ctx, oid, serial)
		return err
	})
	return data, err
}

// CurrentTID implements zeolite.Storage. It loads the revision: what Python's
// server answers to getTid may be the serial of a deletion.
func (s *Storage) CurrentTID(ctx context.Context, oid zeolite.OID) (zeolite.TID, error) {
	rev, err := s.LoadBefore(ctx, oid, zeolite.MaxTID)
	return rev.TID, err
}

// NextRecord implements zeolite.Storage.
func (s *Storage) NextRecord(ctx context.Context, from zeolite.OID) (zeolite.CurrentRecord, error) {
	for {
		var rec zeolite.CurrentRecord
		err := s.read(ctx, func(l *link) (err error) {
			if !s.Info().RecordIteration {
				return zeolite.ErrUnsupported
			}
			rec, err = l.stub.RecordIternext(ctx, stubs.OptionalOID{OID: from, Set: from != 0})
			return err
		})
		var deleted *zeolite.NotFoundError
		switch {
		case err == nil:
			return rec, nil
		case isException(err, stubs.ClassValueError):
			return rec, &zeolite.NotFoundError{OID: from}
		case !errors.As(err, &deleted) || deleted.OID < from || deleted.OID+1 == 0:
			return rec, err
		}
		// Python's server stops at a deleted object.
		from = deleted.OID + 1
	}
}

// oidPool holds oids that the server handed out and nobody has asked for yet.
// It is safe for concurrent use.
type oidPool struct {
	mu   sync.Mutex
	oids []zeolite.OID
	era  int // counts drops
}

// drop forgets them: a server that was restarted would hand them out again.
func (p *oidPool) drop() {
	p.mu.Lock()
	p.oids = nil
	p.era++
	p.mu.Unlock()
}

// take takes out up to n oids.
func (p *oidPool) take(n int) (oids []zeolite.OID, era int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n = min(n, len(p.oids))
	oids, p.oids = p.oids[:n:n], p.oids[n:]
	return oids, p.era
}

func (p *oidPool) put(oids []zeolite.OID, era int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if era == p.era {
		p.oids = append(p.oids, oids...)
	}
}

// taken removes oids that somebody gave to objects without asking for them.
func (p *oidPool) taken(oids []zeolite.OID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.oids) == 0 {
		return
	}
	low, high := slices.Min(p.oids), slices.Max(p.oids)
	for _, oid := range oids {
		if low <= oid && oid <= high {
			p.oids = slices.DeleteFunc(p.oids, func(o zeolite.OID) bool { return o == oid })
		}
	}
}

// oidBatch is how many oids a server gives at once.
const oidBatch = 100

// NewOIDs implements zeolite.Storage. It asks the server for 100 oids at a
// time and keeps what is left over for the next call.
func (s *Storage) NewOIDs(ctx context.Context, n int) ([]zeolite.OID, error) {
	if n <= 0 {
		return nil, errors.New("NewOIDs: n must be positive")
	}
	var oids []zeolite.OID
	for last := 0; ; {
		if s.ctx.Err() != nil {
			return nil, zeolite.ErrClosed
		}
		some, era := s.oids.take(n - len(oids))
		if era != last {
			oids, last = nil, era // the next server may give the same ones
		}
		if oids = append(oids, some...); len(oids) == n {
			return oids, nil
		}
		var more []zeolite.OID
		err := s.read(ctx, func(l *link) (err error) {
			if l.readOnly {
				return zeolite.ErrReadOnly
			}
			more, err = l.stub.NewOIDs(ctx, oidBatch)
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(more) == 0 {
			return nil, &zeolite.StorageError{Message: "the server has no new oids"}
		}
		s.oids.put(more, era)
	}
}
