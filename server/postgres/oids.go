package postgres

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite"
)

// oidsPerStep is how many oids a value of the sequence stands for: value n is
// the oids from n*16-15 to n*16.
const oidsPerStep = 16

// allocator hands out oids. It is safe for concurrent use.
type allocator struct {
	mu   sync.Mutex
	left []zeolite.OID // taken from the sequence, not handed out yet
	// passed is an oid up to which the sequence is known to have counted.
	passed zeolite.OID
}

// NewOIDs implements zeolite.Storage.
func (s *Storage) NewOIDs(ctx context.Context, n int) ([]zeolite.OID, error) {
	if s.opts.ReadOnly {
		return nil, zeolite.ErrReadOnly
	}
	if n <= 0 {
		return nil, &zeolite.StorageError{Message: fmt.Sprintf("cannot make %d new oids", n)}
	}
	a := &s.oids
	a.mu.Lock()
	oids := a.take(n, nil)
	a.mu.Unlock()
	if len(oids) == n {
		if _, leave, err := s.enter(ctx); err == nil {
			leave()
			s.serials.fresh(oids)
			return oids, nil
		}
	}
	// Asking again after a broken connection leaves a hole, which is harmless.
	var steps []int64
	err := s.read(ctx, "cannot make new oids", func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "SELECT nextval('zoid_seq') FROM generate_series(1, $1::int)",
			(n-len(oids)+oidsPerStep-1)/oidsPerStep)
		if err == nil {
			steps, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		}
		return err
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, step := range steps {
		if step < 1 || step > math.MaxInt64/oidsPerStep {
			return nil, &zeolite.StorageError{Message: "postgres: no oids are left"}
		}
		for oid := zeolite.OID(step-1)*oidsPerStep + 1; oid <= zeolite.OID(step)*oidsPerStep; oid++ {
			a.left = append(a.left, oid)
			a.passed = max(a.passed, oid)
		}
	}
	if err != nil {
		a.left = append(a.left, oids...)
		return nil, err
	}
	oids = a.take(n, oids)
	s.serials.fresh(oids)
	return oids, nil
}

// take moves oids to what is handed out, until that are n.
func (a *allocator) take(n int, oids []zeolite.OID) []zeolite.OID {
	k := min(n-len(oids), len(a.left))
	oids = append(oids, a.left[:k]...)
	a.left = a.left[k:]
	return oids
}

// used takes note of oids that objects have, whoever chose them.
func (a *allocator) used(oids []zeolite.OID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.left) == 0 {
		return
	}
	least, largest := slices.Min(a.left), slices.Max(a.left)
	for _, oid := range oids {
		if oid >= least && oid <= largest {
			a.left = slices.DeleteFunc(a.left, func(left zeolite.OID) bool { return left == oid })
		}
	}
}

// counted returns the last value of the sequence.
func counted(ctx context.Context, conn *pgx.Conn) (step int64, err error) {
	err = conn.QueryRow(ctx, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM zoid_seq").Scan(&step)
	return step, err
}

// checkOID refuses the largest oids, unless the sequence has come as far.
func (s *Storage) checkOID(ctx context.Context, oid zeolite.OID) error {
	if zeolite.CheckOID(oid, 0) == nil {
		return nil
	}
	var last int64
	err := s.read(ctx, "cannot look how far oids are counted", func(ctx context.Context, conn *pgx.Conn) (err error) {
		last, err = counted(ctx, conn)
		return err
	})
	if err != nil {
		return err
	}
	return zeolite.CheckOID(oid, zeolite.OID(min(last, math.MaxInt64/oidsPerStep))*oidsPerStep)
}

// pass makes the sequence count past oid, which somebody chose without asking.
func (s *Storage) pass(ctx context.Context, conn *pgx.Conn, oid zeolite.OID) error {
	a := &s.oids
	a.mu.Lock()
	passed := a.passed
	a.mu.Unlock()
	if oid <= passed {
		return nil
	}
	step := (int64(oid) + oidsPerStep - 1) / oidsPerStep
	last, err := counted(ctx, conn)
	switch {
	case err != nil:
		return err
	case step > last+maxCounting:
		err = s.jump(ctx, step)
	default:
		err = countUp(ctx, conn, step-last)
	}
	if err == nil {
		a.mu.Lock()
		a.passed = max(a.passed, oid)
		a.mu.Unlock()
	}
	return err
}

// jump sets the sequence to a step that is far ahead of everybody who counts, so
// nobody can get there between the look and the jump. But others may jump, too,
// and then go on counting: so only one does so at a time, and looks again first.
// The lock is on a connection of its own, so that it does not last like the vote.
func (s *Storage) jump(ctx context.Context, step int64) error {
	return s.read(ctx, "cannot count past an oid", func(ctx context.Context, conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1::bigint)", oidLock); err != nil {
				return err
			}
			last, err := counted(ctx, conn)
			switch {
			case err != nil:
				return err
			case step > last+maxCounting:
				_, err = tx.Exec(ctx, "SELECT setval('zoid_seq', $1)", step)
			default:
				err = countUp(ctx, conn, step-last)
			}
			return err
		})
	})
}

// countUp counts the sequence up by some steps, if any. To set it could set it
// back, if others count meanwhile.
func countUp(ctx context.Context, conn *pgx.Conn, steps int64) error {
	if steps <= 0 {
		return nil
	}
	_, err := conn.Exec(ctx, "SELECT count(nextval('zoid_seq')) FROM generate_series(1, $1::bigint)", steps)
	return err
}

// maxCounting is how many steps the sequence is counted up rather than set.
const maxCounting = 10_000
