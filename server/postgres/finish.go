package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/zeolite-go/zeolite"
)

// commitTime limits how long a commit that can no longer be called off may
// take.
const commitTime = 10 * time.Minute

// commit is a transaction that is written in the database, and not committed
// yet. Before it can be visible there it is entered in publisher.mine, and stays
// until its publication.
type commit struct {
	tid, prev zeolite.TID // prev is the TID before it, of whichever server
	xid       int64       // what the database calls it
	pid       uint32      // of the process there that commits it
	oids      []zeolite.OID
	publish   zeolite.Publish
	published bool // guarded by publisher.mu
}

// Finish implements zeolite.Txn. It takes the commit lock, which orders the
// commits of all servers, and commits. If a later TID was committed since Vote,
// the transaction is given a new one first.
func (t *txn) Finish(ctx context.Context, publish zeolite.Publish) (zeolite.TID, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.expect("Finish", voted); err != nil {
		if t.state != finished {
			t.end(aborted)
		}
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		t.end(aborted)
		return 0, err
	}
	// From here on the end of the context comes too late, and so does that of
	// the storage, nearly.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTime)
	defer cancel()
	defer context.AfterFunc(t.s.ctx, func() { time.AfterFunc(closeTime, cancel) })()
	c, err := t.finish(ctx, publish)
	if err != nil {
		t.end(aborted)
		return 0, err
	}
	if err = t.settle(ctx, c); err != nil {
		err = t.s.publisher.forget(c, err)
	}
	for _, p := range t.records {
		if p.upload != nil {
			p.upload.gone = true
		}
	}
	t.end(finished)
	return c.tid, err
}

// finish commits. If that certainly failed because the connection broke, or
// because the database chose this transaction to resolve a deadlock, it votes
// and tries again, once.
func (t *txn) finish(ctx context.Context, publish zeolite.Publish) (*commit, error) {
	for again := false; ; again = true {
		c, err := t.commitNow(ctx, publish)
		if err == nil {
			return c, nil
		}
		if errors.Is(err, zeolite.ErrInDoubt) {
			return nil, err
		}
		lost := t.conn.Conn().IsClosed() || sqlState(err) == codeDeadlock
		if again || !lost || t.s.ctx.Err() != nil {
			return nil, t.s.fault(ctx, "cannot commit", err)
		}
		t.disconnect()
		if err := t.prepare(ctx); err != nil {
			return nil, err
		}
	}
}

// queueTurn adds to a batch the wait for the commit lock. Who has it is about to
// let go.
func queueTurn(b *pgx.Batch) {
	b.Queue("SET LOCAL lock_timeout = 0")
	b.Queue("SELECT pg_advisory_xact_lock($1::bigint)", commitLock)
}

// turnQuery finds the last TID before a transaction's own, and fails, by
// dividing by zero, if there is one that is later.
const (
	turnQuery = `SELECT tid, 1 / (tid < $1)::int FROM (SELECT coalesce((
		SELECT tid FROM transaction WHERE tid <> $1 ORDER BY tid DESC LIMIT 1), 0) AS tid OFFSET 0) latest`
	codeDivisionByZero = "22012"
)

// commitNow commits in one step, if the TID that the transaction was written
// under is the next one.
func (t *txn) commitNow(ctx context.Context, publish zeolite.Publish) (*commit, error) {
	conn, c, p := t.conn.Conn(), t.commit, &t.s.publisher
	c.publish = publish
	if c.tid > p.horizon() {
		b := &pgx.Batch{}
		b.Queue("SAVEPOINT voted")
		queueTurn(b)
		b.Queue(turnQuery, int64(c.tid)).QueryRow(func(row pgx.Row) error { return row.Scan(&c.prev, nil) })
		err := t.sendCommit(ctx, b, c)
		if sqlState(err) != codeDivisionByZero {
			return c, err
		}
		if _, err := conn.Exec(ctx, "ROLLBACK TO SAVEPOINT voted"); err != nil {
			return nil, err
		}
	}
	if t.meta.TID != zeolite.ZeroTID {
		return nil, t.notLater()
	}
	c, err := t.renumber(ctx)
	if err != nil {
		return nil, err
	}
	return c, t.sendCommit(ctx, &pgx.Batch{}, c)
}

// sendCommit sends what is queued, and the commit. What fails certainly leaves
// nothing behind, unless the error wraps zeolite.ErrInDoubt.
func (t *txn) sendCommit(ctx context.Context, b *pgx.Batch, c *commit) error {
	reached, committed := false, false
	b.Queue("SELECT pg_notify($1, $2)", channel, fmt.Sprint(uint64(c.tid))).Exec(func(pgconn.CommandTag) error {
		reached = true
		return nil
	})
	b.Queue("COMMIT").Exec(func(tag pgconn.CommandTag) error {
		committed = tag.String() == "COMMIT"
		return nil
	})
	t.s.publisher.expect(c)
	err := t.conn.Conn().SendBatch(ctx, b).Close()
	if err == nil && !committed {
		err = errors.New("the database rolled the transaction back")
	}
	if err == nil {
		return nil
	}
	if reached || !certain(err) {
		err = t.afterDoubt(ctx, c, err)
	}
	if err != nil {
		err = t.s.publisher.forget(c, err)
	}
	return err
}

// chooseAgain gives a transaction that is written another TID, and renumberRows
// moves what it wrote there.
var chooseAgain = fmt.Sprintf(`WITH
	moment AS (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS t),
	latest AS (SELECT coalesce((SELECT tid FROM transaction WHERE tid <> $1 ORDER BY tid DESC LIMIT 1), 0) AS tid)
	INSERT INTO transaction (tid, packed, username, description, extension)
	SELECT %s, packed, username, description, extension FROM transaction own, moment, latest WHERE own.tid = $1
	RETURNING tid, (SELECT tid FROM latest), set_config('%s', tid::text, true)`, newTID, tidSetting)

const renumberRows = `WITH
	states AS (UPDATE object_state SET tid = ` + chosenTID + ` WHERE tid = $1),
	blobs AS (UPDATE blob_chunk SET tid = ` + chosenTID + ` WHERE tid = $1 AND zoid = ANY($2))
	UPDATE current_object SET tid = ` + chosenTID + ` WHERE tid = $1`

// renumber takes the commit lock and makes the transaction the next one.
func (t *txn) renumber(ctx context.Context) (*commit, error) {
	old := t.commit
	c := &commit{xid: old.xid, pid: old.pid, oids: old.oids, publish: old.publish}
	b := &pgx.Batch{}
	queueTurn(b)
	b.Queue(chooseAgain, int64(old.tid)).QueryRow(func(row pgx.Row) error { return row.Scan(&c.tid, &c.prev, nil) })
	var blobs []int64
	for _, p := range t.records {
		if p.blob() != 0 {
			blobs = append(blobs, int64(p.oid))
		}
	}
	b.Queue(renumberRows, int64(old.tid), blobs)
	b.Queue("DELETE FROM transaction WHERE tid = $1", int64(old.tid))
	if err := t.conn.Conn().SendBatch(ctx, b).Close(); err != nil {
		return nil, err
	}
	t.commit = c
	t.s.counters.renumbered.Add(1)
	return c, nil
}

// settle publishes a transaction that is committed, after all before it. If the
// database goes away meanwhile it waits for its return for a while, since
// nobody can know what is to be published first.
func (t *txn) settle(ctx context.Context, c *commit) error {
	s := t.s
	if t.conn != nil && !t.conn.Conn().IsClosed() && s.publishCommit(ctx, t.conn.Conn(), c) == nil {
		return nil
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.DoubtTimeout)
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
