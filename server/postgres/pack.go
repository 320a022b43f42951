package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite"
)

// batches says how much of a pack is done at once.
type batches struct {
	// sweep is how many revisions a transaction of the sweep looks at, and
	// removes at most: each blob among them takes a place in PostgreSQL's
	// table of locks.
	sweep int
	// blobs is how many bytes of blobs a transaction of the sweep removes, if
	// there are several: it may hold up all commits for as long as that takes.
	// It is the same for the removal of orphans.
	blobs int64
	// mark is how many transactions get their mark, or are removed, at once.
	mark int
	// report is how often Progress is told at most.
	report time.Duration
}

var usualBatches = batches{sweep: 500, blobs: 16 << 20, mark: 5000, report: 500 * time.Millisecond}

// Pack implements zeolite.Packer. One pack runs at a time on a database,
// whoever runs it.
//
// It works in many small transactions, so that it holds up nobody for long and can
// be of any size. First it finds what is garbage, then it marks the transactions that
// are packed, so that none can be undone any more, and then it removes. If it
// ends in between, everything that is current at the moment it packs to, or
// later, is there and whole; part of what it was to remove is there still, and
// the next pack, to the same moment or a later one, takes that too.
//
// It passes over objects that a voted transaction is about to write: they are
// garbage for the next pack.
func (s *Storage) Pack(ctx context.Context, tid zeolite.TID, opts zeolite.PackOptions) error {
	if s.opts.ReadOnly {
		return zeolite.ErrReadOnly
	}
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	conn, err := s.connect(ctx, appPack)
	if err != nil {
		return s.fault(ctx, "cannot connect to pack", err)
	}
	defer disconnect(conn)
	p := &packer{s: s, conn: conn, progress: opts.Progress, gc: !s.opts.KeepGarbage}
	if opts.GC != nil {
		p.gc = *opts.GC
	}
	defer s.serials.forget()
	return s.fault(ctx, "cannot pack", p.run(ctx, min(tid, s.publisher.horizon())))
}

// packer is one Pack under way. It is used by the goroutine that packs.
type packer struct {
	s        *Storage
	conn     *pgx.Conn
	progress func(zeolite.PackProgress)
	gc       bool
	tid      zeolite.TID // the last transaction to pack
	marker   marker

	phase      string
	done       int64
	total      int64
	began      time.Time
	reportedAt time.Time
}

func (p *packer) run(ctx context.Context, limit zeolite.TID) error {
	var locked bool
	if err := p.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", packLock).Scan(&locked); err != nil {
		return err
	}
	if !locked {
		return &zeolite.StorageError{Message: "the database is being packed already, or a transaction undoes another"}
	}
	defer func() {
		// It goes with the connection too, but somewhat later.
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		_, _ = p.conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", packLock)
	}()
	var packed zeolite.TID
	err := p.conn.QueryRow(ctx, `SELECT
		coalesce((SELECT tid FROM transaction WHERE tid > 0 AND tid <= $1 ORDER BY tid DESC LIMIT 1), 0),
		coalesce((SELECT tid FROM transaction WHERE packed ORDER BY tid DESC LIMIT 1), 0)`, int64(limit)).Scan(&p.tid, &packed)
	if err != nil || p.tid == zeolite.ZeroTID || p.tid < packed {
		return err
	}
	if p.gc {
		if err := p.markReachable(ctx); err != nil {
			return err
		}
	}
	for _, step := range []func(context.Context) error{p.markPacked, p.sweep, p.removeTransactions} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// start begins a phase of total units.
func (p *packer) start(ctx context.Context, phase, totalQuery string, args ...any) error {
	p.phase, p.done, p.total, p.began = phase, 0, 0, time.Now()
	if err := p.conn.QueryRow(ctx, totalQuery, args...).Scan(&p.total); err != nil {
		return err
	}
	p.reportedAt = time.Time{}
	p.report(0)
	return nil
}

func (p *packer) report(n int) {
	p.done += int64(n)
	now := time.Now()
	if p.progress == nil || now.Sub(p.reportedAt) < p.s.batches.report {
		return
	}
	p.reportedAt = now
	progress := zeolite.PackProgress{Phase: p.phase, Done: p.done, Total: max(p.total, p.done)}
	if p.done > 0 && p.total > p.done {
		progress.Remaining = time.Duration(float64(now.Sub(p.began)) / float64(p.done) * float64(p.total-p.done))
	}
	p.progress(progress)
}

// markPacked makes the transactions packed ones: they cannot be undone any
// more, since what they superseded goes.
func (p *packer) markPacked(ctx context.Context) error {
	if err := p.start(ctx, "mark transactions", "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'transaction'::regclass"); err != nil {
		return err
	}
	for {
		tag, err := p.conn.Exec(ctx, `UPDATE transaction SET packed = true WHERE tid IN (
			SELECT tid FROM transaction WHERE tid > 0 AND tid <= $1 AND NOT packed ORDER BY tid LIMIT $2)`, int64(p.tid), p.s.batches.mark)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		p.report(int(tag.RowsAffected()))
	}
}

// revision is a row of object_state, as the sweep looks at it.
type revision struct {
	oid  zeolite.OID
	tid  zeolite.TID
	gone bool // it says that the object is gone
	// superseded says that a later one, still within the pack, follows.
	superseded bool
}

// sweep removes the revisions that were superseded when the packed transactions
// end, and those of objects that were gone, or garbage, by then.
func (p *packer) sweep(ctx context.Context) error {
	if err := p.start(ctx, "sweep", "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'object_state'::regclass"); err != nil {
		return err
	}
	oid, tid := int64(-1), int64(0)
	for {
		rows, err := p.conn.Query(ctx, `SELECT o.zoid, o.tid, o.state IS NULL, EXISTS (
				SELECT FROM object_state n WHERE n.zoid = o.zoid AND n.tid > o.tid AND n.tid <= $3)
			FROM object_state o WHERE (o.zoid, o.tid) > ($1, $2) AND o.tid <= $3 ORDER BY o.zoid, o.tid LIMIT $4`,
			oid, tid, int64(p.tid), p.s.batches.sweep)
		if err != nil {
			return err
		}
		revs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r revision, err error) {
			err = row.Scan(&r.oid, &r.tid, &r.gone, &r.superseded)
			return r, err
		})
		if err != nil || len(revs) == 0 {
			return err
		}
		parts, err := p.cut(ctx, revs)
		if err != nil {
			return err
		}
		for _, part := range parts {
			if err := p.remove(ctx, part); err != nil {
				return err
			}
			p.report(len(part))
		}
		last := revs[len(revs)-1]
		oid, tid = int64(last.oid), int64(last.tid)
	}
}

// goes tells whether the sweep removes a revision.
func (p *packer) goes(r revision) bool {
	return r.superseded || r.gone || (p.gc && !p.marker.reachable(r.oid))
}

// cut cuts revisions into parts, each for one transaction, so that not too much of
// blobs is removed at once.
func (p *packer) cut(ctx context.Context, revs []revision) (parts [][]revision, err error) {
	var oids, tids []int64
	for _, r := range revs {
		if p.goes(r) {
			oids, tids = append(oids, int64(r.oid)), append(tids, int64(r.tid))
		}
	}
	if oids == nil {
		return [][]revision{revs}, nil
	}
	rows, err := p.conn.Query(ctx, `SELECT zoid, tid, lo_lseek64(lo_open(chunk, $3), 0, 2)
		FROM blob_chunk JOIN unnest($1::bigint[], $2::bigint[]) AS v (zoid, tid) USING (zoid, tid)`, oids, tids, modeRead)
	if err != nil {
		return nil, err
	}
	sizes := map[revision]int64{}
	var of revision
	var size int64
	if _, err := pgx.ForEachRow(rows, []any{&of.oid, &of.tid, &size}, func() error {
		sizes[of] += size
		return nil
	}); err != nil {
		return nil, err
	}
	from, sum := 0, int64(0)
	for i, r := range revs {
		size := sizes[revision{oid: r.oid, tid: r.tid}]
		if sum > 0 && sum+size > p.s.batches.blobs {
			parts = append(parts, revs[from:i])
			from, sum = i, 0
		}
		sum += size
	}
	return append(parts, revs[from:]), nil
}

// remove removes those of some revisions that are to go.
func (p *packer) remove(ctx context.Context, revs []revision) error {
	var superseded, last bool
	for _, r := range revs {
		if p.goes(r) {
			superseded = superseded || r.superseded
			last = last || !r.superseded
		}
	}
	if !superseded && !last {
		return nil
	}
	return pgx.BeginFunc(ctx, p.conn, func(tx pgx.Tx) error {
		if last {
			// Whole objects go: nobody may write them, or refer to them,
			// between the decision and the deed. What a transaction refers
			// to that has voted is not seen before its Finish: if that is
			// garbage, the reference may dangle then.
			if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1::bigint)", commitLock); err != nil {
				return err
			}
			if p.gc {
				if err := p.markLater(ctx); err != nil {
					return err
				}
			}
		}
		var oids, tids []int64
		for _, r := range revs {
			if p.goes(r) {
				oids, tids = append(oids, int64(r.oid)), append(tids, int64(r.tid))
			}
		}
		if last {
			var err error
			if oids, tids, err = exceptTaken(ctx, tx, oids, tids); err != nil {
				return err
			}
		}
		if oids == nil {
			return nil
		}
		b := &pgx.Batch{}
		if last {
			b.Queue(`DELETE FROM current_object c USING unnest($1::bigint[], $2::bigint[]) AS v (zoid, tid)
				WHERE c.zoid = v.zoid AND c.tid = v.tid`, oids, tids)
		}
		// What followed a revision that goes, begins the object's history.
		b.Queue(`UPDATE object_state o SET prev_tid = 0 FROM unnest($1::bigint[], $2::bigint[]) AS v (zoid, tid)
			WHERE o.zoid = v.zoid AND o.prev_tid = v.tid AND o.tid > v.tid AND NOT EXISTS (
				SELECT FROM unnest($1::bigint[], $2::bigint[]) AS w (zoid, tid) WHERE w.zoid = o.zoid AND w.tid = o.tid)`, oids, tids)
		// Blobs go with it, by foreign key and trigger.
		b.Queue(`DELETE FROM object_state o USING unnest($1::bigint[], $2::bigint[]) AS v (zoid, tid)
			WHERE o.zoid = v.zoid AND o.tid = v.tid`, oids, tids)
		return tx.SendBatch(ctx, b).Close()
	})
}

// exceptTaken returns those revisions that may be removed: not those of objects
// that a voted transaction is about to write. To wait for one, with the commit
// lock, would let it wait for us.
func exceptTaken(ctx context.Context, tx pgx.Tx, oids, tids []int64) (free, freeTIDs []int64, err error) {
	rows, err := tx.Query(ctx, `WITH v AS MATERIALIZED (SELECT * FROM unnest($1::bigint[], $2::bigint[]) AS v (zoid, tid)),
			held AS MATERIALIZED (SELECT c.zoid FROM current_object c JOIN v USING (zoid, tid) FOR UPDATE OF c SKIP LOCKED)
		SELECT v.zoid, v.tid FROM v WHERE EXISTS (SELECT FROM held WHERE held.zoid = v.zoid)
			OR NOT EXISTS (SELECT FROM current_object c WHERE c.zoid = v.zoid AND c.tid = v.tid)`, oids, tids)
	if err != nil {
		return nil, nil, err
	}
	var oid, tid int64
	_, err = pgx.ForEachRow(rows, []any{&oid, &tid}, func() error {
		free, freeTIDs = append(free, oid), append(freeTIDs, tid)
		return nil
	})
	return free, freeTIDs, err
}

// removeTransactions removes the transactions that have lost all they did. The
// last one stays, without being shown, because its TID must not come again; so
// does one that a voted transaction names as the one before.
func (p *packer) removeTransactions(ctx context.Context) error {
	if err := p.start(ctx, "remove transactions", "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'transaction'::regclass"); err != nil {
		return err
	}
	for after := int64(0); ; {
		rows, err := p.conn.Query(ctx, "SELECT tid FROM transaction WHERE tid > $1 AND tid <= $2 AND packed ORDER BY tid LIMIT $3",
			after, int64(p.tid), p.s.batches.mark)
		if err != nil {
			return err
		}
		tids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil || len(tids) == 0 {
			return err
		}
		err = pgx.BeginFunc(ctx, p.conn, func(tx pgx.Tx) error {
			b := &pgx.Batch{}
			b.Queue(`UPDATE transaction t SET is_empty = true WHERE tid = ANY($1) AND NOT is_empty
				AND NOT EXISTS (SELECT FROM object_state o WHERE o.tid = t.tid)`, tids)
			b.Queue(fmt.Sprintf(`WITH gone AS (
					DELETE FROM transaction WHERE tid IN (
						SELECT tid FROM transaction t WHERE tid = ANY($1) AND is_empty AND tid < (%s)
						AND NOT EXISTS (SELECT FROM object_state o WHERE o.prev_tid = t.tid) FOR UPDATE SKIP LOCKED)
					RETURNING tid),
				refs AS (DELETE FROM object_ref USING gone WHERE object_ref.tid = gone.tid)
				DELETE FROM object_refs_added USING gone WHERE object_refs_added.tid = gone.tid`, lastTIDQuery), tids)
			return tx.SendBatch(ctx, b).Close()
		})
		if err != nil {
			return err
		}
		p.report(len(tids))
		after = tids[len(tids)-1]
	}
}
