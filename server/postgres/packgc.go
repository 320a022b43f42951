package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/references"
)

// visitAtOnce is how many objects are loaded at once to find what they refer
// to.
const visitAtOnce = 500

// marker knows which objects can be reached: from the root as it was when the
// packed transactions end, or from any later revision. What a reader can still
// follow is kept.
type marker struct {
	seen  map[zeolite.OID]struct{}
	todo  []zeolite.OID // reachable, but not looked into yet
	upTo  zeolite.TID   // all later revisions up to this one were looked into
	found []zeolite.OID // scratch
}

func (m *marker) reachable(oid zeolite.OID) bool {
	_, ok := m.seen[oid]
	return ok
}

func (m *marker) reach(oid zeolite.OID) {
	if _, again := m.seen[oid]; !again {
		m.seen[oid] = struct{}{}
		m.todo = append(m.todo, oid)
	}
}

// lookInto reaches what a revision refers to.
func (m *marker) lookInto(oid zeolite.OID, state []byte) (err error) {
	if m.found, err = references.Find(m.found[:0], state); err != nil {
		return &zeolite.StorageError{Message: "cannot collect garbage: cannot read the references of " + oid.String(), Err: err}
	}
	for _, to := range m.found {
		m.reach(to)
	}
	return nil
}

// phaseMark is the phase that counts objects.
const phaseMark = "mark"

// markReachable fills the marker. Nobody is held up by it.
func (p *packer) markReachable(ctx context.Context) error {
	var root bool
	if err := p.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM object_state WHERE zoid = 0 AND state IS NOT NULL)").Scan(&root); err != nil {
		return err
	}
	if !root {
		// Everything would be garbage: rather a mistake than a wish.
		return &zeolite.StorageError{Message: "cannot collect garbage: there is no root object",
			Err: &zeolite.NotFoundError{OID: zeolite.RootOID}}
	}
	if err := p.start(ctx, phaseMark, "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'current_object'::regclass"); err != nil {
		return err
	}
	p.marker = marker{seen: map[zeolite.OID]struct{}{}, upTo: p.tid}
	p.marker.reach(zeolite.RootOID)
	return p.markLater(ctx)
}

// markLater marks what is reachable from the revisions that were committed
// since the last call, and all that was reached before.
func (p *packer) markLater(ctx context.Context) error {
	m := &p.marker
	var last zeolite.TID
	if err := p.conn.QueryRow(ctx, lastTIDQuery).Scan(&last); err != nil {
		return err
	}
	if last > m.upTo {
		if err := p.look(ctx, "SELECT zoid, state FROM object_state WHERE tid > $1 AND tid <= $2 AND state IS NOT NULL",
			int64(m.upTo), int64(last)); err != nil {
			return err
		}
		m.upTo = last
	}
	for len(m.todo) > 0 {
		n := min(len(m.todo), visitAtOnce)
		oids := make([]int64, n)
		for i, oid := range m.todo[len(m.todo)-n:] {
			oids[i] = int64(oid)
		}
		m.todo = m.todo[:len(m.todo)-n]
		err := p.look(ctx, `SELECT r.zoid, r.state FROM unnest($1::bigint[]) AS v (zoid) CROSS JOIN LATERAL (
				SELECT o.zoid, o.state FROM object_state o WHERE o.zoid = v.zoid AND o.tid <= $2 ORDER BY o.tid DESC LIMIT 1) r
			WHERE r.state IS NOT NULL`, oids, int64(p.tid))
		if err != nil {
			return err
		}
		if p.phase == phaseMark { // the sweep counts revisions
			p.report(n)
		}
	}
	return nil
}

// look looks into the revisions that a query selects.
func (p *packer) look(ctx context.Context, query string, args ...any) error {
	rows, err := p.conn.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	var oid zeolite.OID
	var state []byte
	_, err = pgx.ForEachRow(rows, []any{&oid, &state}, func() error { return p.marker.lookInto(oid, state) })
	return err
}
