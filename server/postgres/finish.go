package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/zeolite-go/zeolite"
)

// commitTime limits how long a commit that can no longer be called off may
// take.
const commitTime = 10 * time.Minute

// maxWrite is about how many bytes of records go to the database at once.
const maxWrite = 16 << 20

// chooseTID takes the commit lock, which orders the commits of all servers, and
// under it a TID: what the clock of the database says, or the next one if that
// is not later than the last. A TID of the caller's must be later.
var chooseTID = fmt.Sprintf(`WITH
	moment AS (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS t),
	latest AS (%s AS tid)
	INSERT INTO transaction (tid, packed, username, description, extension)
	SELECT CASE WHEN $1::bigint > 0 THEN $1::bigint ELSE greatest(latest.tid + 1,
			((((((extract(year FROM t)::bigint - 1900) * 12 + extract(month FROM t)::bigint - 1) * 31
				+ extract(day FROM t)::bigint - 1) * 24 + extract(hour FROM t)::bigint) * 60
				+ extract(minute FROM t)::bigint) << 32)
			+ floor(extract(second FROM t)::numeric * 4294967296 / 60)::bigint) END,
		$2, $3, $4, $5
	FROM moment, latest WHERE $1::bigint = 0 OR $1::bigint > latest.tid
	RETURNING tid, (SELECT tid FROM latest), txid_current()`, lastTIDQuery)

// commit is a transaction that has its TID: between that and its publication it
// is in publisher.mine.
type commit struct {
	tid, prev zeolite.TID // prev is the TID before it, of whichever server
	xid       int64       // what the database calls it
	pid       uint32      // of the process there that commits it
	oids      []zeolite.OID
	publish   zeolite.Publish
	published bool // guarded by publisher.mu
}

// Finish implements zeolite.Txn.
func (t *txn) Finish(ctx context.Context, publish zeolite.Publish) (zeolite.TID, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.expect("Finish", voted); err != nil {
		if t.state != finished {
			t.end(aborted)
		}
		return 0, err
	}
	c, err := t.begin(ctx)
	if err != nil {
		t.end(aborted)
		return 0, err
	}
	c.publish = publish
	t.s.publisher.expect(c)
	// From here on the end of the context comes too late.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTime)
	defer cancel()
	if err := t.write(ctx, c); err != nil {
		if err = t.afterDoubt(ctx, c, err); err != nil {
			t.s.publisher.forget(c)
			if c.published { // somebody saw it in the database meanwhile
				err = nil
			} else {
				t.end(aborted)
				return 0, err
			}
		}
	}
	if err = t.settle(ctx, c); err != nil {
		t.s.publisher.forget(c)
		if c.published {
			err = nil
		}
	}
	for _, p := range t.records {
		if p.upload != nil {
			p.upload.gone = true
		}
	}
	t.end(finished)
	return c.tid, err
}

// begin gives the transaction its TID. If the connection broke since Vote,
// nothing is lost but the locks: they are taken again, once.
func (t *txn) begin(ctx context.Context) (*commit, error) {
	for again := false; ; again = true {
		c, err := t.choose(ctx)
		if err == nil {
			return c, nil
		}
		if again || ctx.Err() != nil || !t.conn.Conn().IsClosed() {
			return nil, t.refusal(ctx, err)
		}
		t.disconnect()
		if err := t.prepare(ctx); err != nil {
			return nil, err
		}
	}
}

func (t *txn) choose(ctx context.Context) (*commit, error) {
	ctx, leave, err := t.s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	conn := t.conn.Conn()
	c := &commit{pid: conn.PgConn().PID()}
	b := &pgx.Batch{}
	b.Queue("SET LOCAL lock_timeout = 0") // who holds the commit lock is about to let go
	b.Queue("SELECT pg_advisory_xact_lock($1::bigint)", commitLock)
	chosen := false
	b.Queue(chooseTID, int64(t.meta.TID), t.meta.Status == 'p', notNil(t.meta.User), notNil(t.meta.Description), notNil(t.meta.Extension)).
		Query(func(rows pgx.Rows) error {
			_, err := pgx.ForEachRow(rows, []any{&c.tid, &c.prev, &c.xid}, func() error {
				chosen = true
				return nil
			})
			return err
		})
	// Whom the locks did not keep out, like another creator of the same new
	// object, is found out here.
	t.queueConflicts(b)
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return nil, err
	}
	if !chosen {
		return nil, &zeolite.StorageError{Message: fmt.Sprintf("transaction %v is not later than the last one", t.meta.TID)}
	}
	for _, p := range t.records {
		c.oids = append(c.oids, p.oid)
	}
	t.s.oids.used(c.oids)
	return c, nil
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

const (
	insertStates = `INSERT INTO object_state (zoid, tid, prev_tid, md5, state_size, state)
		SELECT w.zoid, $1, coalesce(c.tid, 0), w.md5, coalesce(length(w.state), 0), w.state
		FROM unnest($2::bigint[], $3::text[], $4::bytea[]) WITH ORDINALITY AS w (zoid, md5, state, n)
		LEFT JOIN current_object c ON c.zoid = w.zoid ORDER BY w.n`
	updateCurrent = `INSERT INTO current_object (zoid, tid) SELECT zoid, $1 FROM unnest($2::bigint[]) AS w (zoid)
		ON CONFLICT (zoid) DO UPDATE SET tid = excluded.tid`
	insertBlobs = `INSERT INTO blob_chunk (zoid, tid, chunk_num, chunk)
		SELECT zoid, $1, 0, chunk FROM unnest($2::bigint[], $3::oid[]) AS w (zoid, chunk)`
)

// write writes everything and commits.
func (t *txn) write(ctx context.Context, c *commit) error {
	conn := t.conn.Conn()
	var oids, blobOIDs []int64
	var sums []*string
	var states [][]byte
	var blobs []uint32
	size := 0
	b := &pgx.Batch{}
	flush := func() {
		if oids != nil {
			b.Queue(insertStates, int64(c.tid), oids, sums, states)
			b.Queue(updateCurrent, int64(c.tid), oids)
		}
		oids, sums, states, size = nil, nil, nil, 0
	}
	for _, p := range t.records {
		oids, sums, states = append(oids, int64(p.oid)), append(sums, p.sum), append(states, p.data)
		if blob := p.blob(); blob != 0 {
			blobOIDs, blobs = append(blobOIDs, int64(p.oid)), append(blobs, blob)
		}
		if size += len(p.data) + 100; size < maxWrite {
			continue
		}
		flush()
		if err := conn.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		b = &pgx.Batch{}
	}
	flush()
	if blobs != nil {
		b.Queue(insertBlobs, int64(c.tid), blobOIDs, blobs)
	}
	b.Queue("SELECT pg_notify($1, $2)", channel, fmt.Sprint(uint64(c.tid)))
	committed := false
	b.Queue("COMMIT").Exec(func(tag pgconn.CommandTag) error {
		committed = tag.String() == "COMMIT"
		return nil
	})
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	if !committed {
		return errors.New("the database rolled the transaction back")
	}
	return nil
}

// afterDoubt finds out what became of a commit that reported an error. It
// returns nil if the transaction was committed, an error that wraps
// zeolite.ErrInDoubt if that cannot be found out, and else why it was not.
func (t *txn) afterDoubt(ctx context.Context, c *commit, cause error) error {
	s := t.s
	if conn := t.conn.Conn(); !conn.IsClosed() {
		return s.fault(ctx, "cannot commit", cause) // the database said so itself
	}
	s.log.Warn("the connection broke during a commit", "storage", s.name, "tid", c.tid, "error", cause)
	limit, cancel := context.WithTimeout(ctx, s.opts.DoubtTimeout)
	defer cancel()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		status, err := s.outcome(limit, c)
		switch {
		case err == nil && status == "committed":
			return nil
		case err == nil && status == "aborted":
			return &zeolite.StorageError{Message: "postgres: the connection broke during the commit, which was rolled back", Err: cause}
		}
		select {
		case <-limit.Done():
			return &zeolite.StorageError{Message: "postgres: transaction " + c.tid.String(), Err: fmt.Errorf("%w: %w", zeolite.ErrInDoubt, cause)}
		case <-time.After(wait):
		}
	}
}

// outcome asks what became of a commit: "committed", "aborted", or that it is
// not certain yet.
func (s *Storage) outcome(ctx context.Context, c *commit) (string, error) {
	conn, err := s.connect(ctx, appCommits)
	if err != nil {
		return "", err
	}
	defer disconnect(conn)
	// Its process may not have noticed yet that we have gone. To end it
	// settles the matter, and does no harm if it has committed.
	_, _ = conn.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_xid IS NOT NULL AND backend_xid::text::bigint = $2 & 4294967295",
		int64(c.pid), c.xid)
	var status string
	err = conn.QueryRow(ctx, "SELECT coalesce(txid_status($1), '')", c.xid).Scan(&status)
	if sqlState(err) == "22023" { // a crash has taken even its number
		return "aborted", nil
	}
	if err != nil || status != "committed" {
		return status, err
	}
	// A database that was replaced by a copy of itself may have given the
	// number to another transaction.
	var there bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM transaction WHERE tid = $1)", int64(c.tid)).Scan(&there)
	if err == nil && !there {
		status = "unknown"
	}
	return status, err
}

// settle publishes a transaction that is committed, after all before it. If the
// database goes away meanwhile it waits for its return for a while, since
// nobody can know what is to be published first.
func (t *txn) settle(ctx context.Context, c *commit) error {
	s := t.s
	var conn *pgxpool.Conn
	if t.conn != nil && !t.conn.Conn().IsClosed() {
		conn = t.conn
	}
	if conn != nil {
		if err := s.publishCommit(ctx, conn.Conn(), c); err == nil {
			return nil
		}
	}
	limit, cancel := context.WithTimeout(ctx, s.opts.DoubtTimeout)
	defer cancel()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := func() error {
			conn, err := s.connect(limit, appCommits)
			if err != nil {
				return err
			}
			defer disconnect(conn)
			return s.publishCommit(limit, conn, c)
		}()
		if err == nil {
			return nil
		}
		select {
		case <-limit.Done():
			// It is in the database; when that returns, it is published
			// like the transactions of others.
			return &zeolite.StorageError{Message: "postgres: transaction " + c.tid.String() + " is committed but cannot be shown",
				Err: fmt.Errorf("%w: %w", zeolite.ErrInDoubt, err)}
		case <-time.After(wait):
		}
	}
}
