package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/zeolite-go/zeolite"
)

// Vote implements zeolite.Txn. From here to the end the transaction has a
// connection, a transaction of the database in which all is written under a TID
// for now, and locks there on all objects that it relies on: no other server
// can change them. What is left to do is to commit (finish.go).
func (t *txn) Vote(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.expect("Vote", open); err != nil {
		return err
	}
	if err := zeolite.CheckTID(t.meta.TID, t.s.publisher.horizon()); err != nil {
		return err
	}
	for _, p := range t.records {
		if p.upload == nil {
			continue
		}
		if err := p.upload.usable(); err != nil {
			return err
		}
	}
	if err := t.prepare(ctx); err != nil {
		return err
	}
	t.state = voted
	return nil
}

// prepare takes a connection and locks, unless Hold has, checks everything under
// them, and writes. If it fails, nothing is held. It is called with mu held.
func (t *txn) prepare(ctx context.Context) error {
	s := t.s
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	for range s.opts.CommitConns + 1 {
		if err := t.connect(ctx); err != nil {
			return err
		}
		conn := t.conn.Conn()
		if t.commit, err = t.claim(ctx, conn); err == nil {
			return nil
		}
		broken := conn.IsClosed()
		t.disconnect()
		if !broken || ctx.Err() != nil {
			return t.refusal(ctx, err)
		}
	}
	return s.fault(ctx, "cannot vote", fmt.Errorf("all connections broke"))
}

// connect takes a connection and begins a transaction of the database there,
// unless Hold has done so. It is called with mu held.
func (t *txn) connect(ctx context.Context) error {
	if t.conn != nil {
		return nil
	}
	s := t.s
	conn, err := s.commitConn(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Release()
		return zeolite.ErrClosed
	}
	s.open[t] = time.Now()
	s.working.Add(1)
	t.conn = conn
	return nil
}

// Hold implements zeolite.Holder. The objects are locked, as by a vote, and what
// was committed to them before is published, so that no store that relies on an
// older revision is mistaken for a good one.
func (t *txn) Hold(ctx context.Context, oids []zeolite.OID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.expect("Hold", open); err != nil {
		return err
	}
	ctx, leave, err := t.s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	t.records, t.undone = nil, nil
	clear(t.index)
	clear(t.reads)
	var keys []int64
	for _, oid := range oids {
		keys = append(keys, int64(oid))
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	if err := t.connect(ctx); err != nil {
		return err
	}
	b := &pgx.Batch{}
	t.queueBegin(b)
	b.Queue("SELECT pg_advisory_xact_lock(zoid) FROM unnest($1::bigint[]) AS l (zoid)", keys)
	if err := t.conn.Conn().SendBatch(ctx, b).Close(); err != nil {
		t.disconnect()
		return t.refusal(ctx, err)
	}
	return t.s.CatchUp(ctx)
}

// queueBegin adds the begin of a transaction to a batch, unless it has begun.
func (t *txn) queueBegin(b *pgx.Batch) {
	if t.conn.Conn().PgConn().TxStatus() == 'I' {
		b.Queue("BEGIN")
	}
}

// commitConn takes a connection of the pool for commits. It waits for one for a
// limited time: those who have them all may have stalled.
func (s *Storage) commitConn(ctx context.Context) (*pgxpool.Conn, error) {
	limit, cancel := context.WithTimeout(ctx, s.opts.LockTimeout)
	defer cancel()
	conn, err := s.commits.Acquire(limit)
	if err == nil {
		return conn, nil
	}
	if n, oldest := s.votedTxns(); limit.Err() != nil && ctx.Err() == nil && n >= s.opts.CommitConns {
		return nil, &zeolite.StorageError{Message: fmt.Sprintf("postgres: all %d connections for commits belong to transactions that "+
			"have voted and do not finish, the first for %v: set a transaction timeout, or allow more connections",
			n, time.Since(oldest).Round(time.Second)), Err: err}
	}
	return nil, s.fault(ctx, "cannot connect to commit", err)
}

// votedTxns returns how many transactions have voted, and when the first did.
func (s *Storage) votedTxns() (n int, oldest time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, since := range s.open {
		if oldest.IsZero() || since.Before(oldest) {
			oldest = since
		}
	}
	return len(s.open), oldest
}

// refusal makes an error of a vote one of the contract.
func (t *txn) refusal(ctx context.Context, err error) error {
	if conflicts := zeolite.Conflicts(err); conflicts != nil {
		return t.s.conflict(ctx, conflicts)
	}
	switch sqlState(err) {
	case codeLockTimeout, codeDeadlock:
		c := &zeolite.ConflictError{Message: "another server holds objects that this transaction needs, for too long"}
		if oids, _ := t.locks(); len(oids) > 0 {
			c.OID = zeolite.OID(oids[0])
		}
		return c
	}
	if isAnswer(err) {
		return err
	}
	return t.s.fault(ctx, "cannot vote", err)
}

// locks returns the objects to lock, in order, and for each whether others must
// not even rely on it. New objects need none: nobody else knows them, except
// the root, which two servers might create.
func (t *txn) locks() (oids []int64, write []bool) {
	for _, p := range t.records {
		if !p.unchecked && (p.serial != zeolite.ZeroTID || p.oid == zeolite.RootOID) {
			oids = append(oids, int64(p.oid))
		}
	}
	for oid := range t.reads {
		if i, stored := t.index[oid]; !stored || t.records[i].unchecked {
			oids = append(oids, int64(oid))
		}
	}
	slices.Sort(oids)
	for _, oid := range oids {
		i, stored := t.index[zeolite.OID(oid)]
		write = append(write, stored && !t.records[i].unchecked)
	}
	return oids, write
}

// lockQuery locks in the order of its argument, so that servers cannot wait for
// each other in a circle.
const lockQuery = `SELECT CASE WHEN write THEN pg_advisory_xact_lock(zoid) ELSE pg_advisory_xact_lock_shared(zoid) END
	FROM unnest($1::bigint[], $2::boolean[]) AS l (zoid, write)`

// conflictQuery finds the objects that are not as the transaction relies on
// them, nor as it has written them itself. A stored object that has no revision
// is no conflict: a pack has collected it.
const conflictQuery = `SELECT w.zoid, coalesce(c.tid, 0), w.serial, w.read
	FROM unnest($1::bigint[], $2::bigint[], $3::boolean[]) AS w (zoid, serial, read) LEFT JOIN current_object c USING (zoid)
	WHERE (c.tid <> w.serial AND c.tid <> coalesce(nullif(current_setting('` + tidSetting + `', true), '')::bigint, 0))
		OR (c.tid IS NULL AND w.read) ORDER BY w.zoid`

// queueConflicts adds conflictQuery to a batch. If the transaction has written,
// only what it stored can be in conflict still.
func (t *txn) queueConflicts(b *pgx.Batch, written bool) {
	var oids, serials []int64
	var reads []bool
	for _, p := range t.records {
		if !p.unchecked {
			oids, serials, reads = append(oids, int64(p.oid)), append(serials, int64(p.serial)), append(reads, false)
		}
	}
	if !written {
		for oid, serial := range t.reads {
			oids, serials, reads = append(oids, int64(oid)), append(serials, int64(serial)), append(reads, true)
		}
	}
	if oids == nil {
		return
	}
	b.Queue(conflictQuery, oids, serials, reads).Query(func(rows pgx.Rows) error {
		var conflicts []error
		var c zeolite.ConflictError
		_, err := pgx.ForEachRow(rows, []any{&c.OID, &c.Committed, &c.Seen, &c.Read}, func() error {
			if c.Committed == zeolite.ZeroTID {
				return &zeolite.NotFoundError{OID: c.OID}
			}
			found := c
			conflicts = append(conflicts, &found)
			return nil
		})
		return errors.Join(append(conflicts, err)...)
	})
}

// claim does what prepare needs on its connection.
func (t *txn) claim(ctx context.Context, conn *pgx.Conn) (*commit, error) {
	b := &pgx.Batch{}
	t.queueBegin(b)
	if oids, write := t.locks(); oids != nil {
		b.Queue(lockQuery, oids, write)
	}
	t.queueConflicts(b, false)
	t.queueUploads(b)
	t.queueUndo(b)
	c, err := t.write(ctx, conn, b)
	if err != nil {
		return nil, err
	}
	return c, t.s.pass(ctx, conn, slices.Max(append(c.oids, 0)))
}

// queueUploads makes sure that the large objects of uploads are there, and whole,
// and lets go of them as uploads: nobody can take them for orphans any more.
func (t *txn) queueUploads(b *pgx.Batch) {
	var loids []uint32
	var sizes []int64
	for _, p := range t.records {
		if p.upload != nil {
			loids, sizes = append(loids, p.upload.loid), append(sizes, p.upload.sent)
		}
	}
	if loids == nil {
		return
	}
	b.Queue(`WITH gone AS (DELETE FROM zeolite_upload WHERE loid = ANY($1) RETURNING loid)
		SELECT count(DISTINCT loid), coalesce(bool_and(lo_lseek64(lo_open(loid, $3), 0, 2) = size), true)
		FROM gone JOIN unnest($1::oid[], $2::bigint[]) AS u (loid, size) USING (loid)`, loids, sizes, modeRead).
		QueryRow(func(row pgx.Row) error {
			var n int
			var whole bool
			if err := row.Scan(&n, &whole); err != nil {
				return err
			}
			if n != len(loids) {
				return &zeolite.StorageError{Message: "postgres: the upload of a blob was removed as the remains of a server that died"}
			}
			if !whole {
				return errUploadTorn
			}
			return nil
		})
}

// queueUndo makes sure that no pack removes what an undo gives back.
func (t *txn) queueUndo(b *pgx.Batch) {
	if len(t.undone) == 0 {
		return
	}
	b.Queue("SELECT pg_try_advisory_xact_lock_shared($1::bigint)", packLock).QueryRow(func(row pgx.Row) error {
		var locked bool
		if err := row.Scan(&locked); err != nil {
			return err
		}
		if !locked {
			return &zeolite.UndoError{Reason: "the database is being packed"}
		}
		return nil
	})
	var tids []int64
	for tid := range t.undone {
		tids = append(tids, int64(tid))
	}
	b.Queue("SELECT count(*) FROM transaction WHERE tid = ANY($1) AND NOT packed", tids).QueryRow(func(row pgx.Row) error {
		var n int
		if err := row.Scan(&n); err != nil {
			return err
		}
		if n != len(tids) {
			return &zeolite.UndoError{Reason: "a transaction was packed meanwhile"}
		}
		return nil
	})
}
