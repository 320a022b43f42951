package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite"
)

// maxWrite is about how many bytes of records go to the database at once.
const maxWrite = 16 << 20

// A transaction is written when it votes, under a TID that it will keep if no
// later one was committed when it finishes. Finding room on disk, filling
// indexes and checking foreign keys is all done then.

// tidSetting is where the statements that follow the choice of a TID find it,
// so that they can be sent together with it. It ends with the transaction.
const (
	tidSetting = "zeolite.tid"
	chosenTID  = "current_setting('" + tidSetting + "')::bigint"
)

// newTID is what the clock of the database says, as a TID, or a later one if
// that is not later than the last. A random part, of less than a microsecond by
// the clock, and less than a millisecond after the last, keeps those that vote at
// the same time apart: two equal rows would wait for each other.
const newTID = `greatest(latest.tid + 1 + floor(random() * 65536)::bigint,
	((((((extract(year FROM t)::bigint - 1900) * 12 + extract(month FROM t)::bigint - 1) * 31
		+ extract(day FROM t)::bigint - 1) * 24 + extract(hour FROM t)::bigint) * 60
		+ extract(minute FROM t)::bigint) << 32)
	+ floor(extract(second FROM t)::numeric * 4294967296 / 60)::bigint + floor(random() * 71)::bigint)`

// chooseTID makes the row of a transaction, with a TID of the caller's, or a new
// one.
var chooseTID = fmt.Sprintf(`WITH
	moment AS (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS t),
	latest AS (%s AS tid)
	INSERT INTO transaction (tid, packed, username, description, extension)
	SELECT CASE WHEN $1::bigint > 0 THEN $1::bigint ELSE %s END, $2, $3, $4, $5
	FROM moment, latest WHERE $1::bigint = 0 OR $1::bigint > latest.tid
	RETURNING tid, set_config('%s', tid::text, true), txid_current()`, lastTIDQuery, newTID, tidSetting)

const (
	insertStates = `INSERT INTO object_state (zoid, tid, prev_tid, md5, state_size, state)
		SELECT w.zoid, ` + chosenTID + `, coalesce(c.tid, 0), w.md5, coalesce(length(w.state), 0), w.state
		FROM unnest($1::bigint[], $2::text[], $3::bytea[]) WITH ORDINALITY AS w (zoid, md5, state, n)
		LEFT JOIN current_object c ON c.zoid = w.zoid ORDER BY w.n`
	// An object that another transaction has created meanwhile, where no lock
	// keeps it out, is left as it is. The answer is how many were written.
	updateCurrent = `WITH w AS MATERIALIZED (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::boolean[]) AS w (zoid, serial, unchecked)),
		known AS (UPDATE current_object c SET tid = ` + chosenTID + ` FROM w
			WHERE c.zoid = w.zoid AND (c.tid = w.serial OR w.unchecked) RETURNING c.zoid),
		made AS (INSERT INTO current_object (zoid, tid) SELECT zoid, ` + chosenTID + ` FROM w
			WHERE NOT EXISTS (SELECT FROM known WHERE known.zoid = w.zoid) ORDER BY zoid ON CONFLICT (zoid) DO NOTHING RETURNING zoid)
		SELECT (SELECT count(*) FROM known) + (SELECT count(*) FROM made)`
	insertBlobs = `INSERT INTO blob_chunk (zoid, tid, chunk_num, chunk)
		SELECT zoid, ` + chosenTID + `, 0, chunk FROM unnest($1::bigint[], $2::oid[]) AS w (zoid, chunk)`
)

// write sends what is queued, and writes the whole transaction.
func (t *txn) write(ctx context.Context, conn *pgx.Conn, b *pgx.Batch) (*commit, error) {
	// Until it is known what was committed before it, that may be anything.
	c := &commit{pid: conn.PgConn().PID(), prev: zeolite.MaxTID}
	b.Queue(chooseTID, int64(t.meta.TID), t.meta.Status == 'p', notNil(t.meta.User), notNil(t.meta.Description), notNil(t.meta.Extension)).
		Query(func(rows pgx.Rows) error {
			_, err := pgx.ForEachRow(rows, []any{&c.tid, nil, &c.xid}, func() error { return nil })
			if err == nil && c.tid == zeolite.ZeroTID {
				err = t.notLater()
			}
			return err
		})
	var w revisions
	var blobOIDs []int64
	var blobs []uint32
	for _, p := range t.records {
		w.add(p)
		c.oids = append(c.oids, p.oid)
		if blob := p.blob(); blob != 0 {
			blobOIDs, blobs = append(blobOIDs, int64(p.oid)), append(blobs, blob)
		}
		if w.size < maxWrite {
			continue
		}
		w.queue(b)
		if err := conn.SendBatch(ctx, b).Close(); err != nil {
			return nil, err
		}
		b = &pgx.Batch{}
	}
	w.queue(b)
	if blobs != nil {
		b.Queue(insertBlobs, blobOIDs, blobs)
	}
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return nil, err
	}
	if w.written < len(t.records) {
		b = &pgx.Batch{}
		t.queueConflicts(b, true)
		if err := conn.SendBatch(ctx, b).Close(); err != nil {
			return nil, err
		}
		return nil, &zeolite.StorageError{Message: "postgres: another transaction has created the same object"}
	}
	t.s.oids.used(c.oids)
	return c, nil
}

func (t *txn) notLater() error {
	return &zeolite.StorageError{Message: fmt.Sprintf("transaction %v is not later than the last one", t.meta.TID)}
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// revisions are on their way to the database.
type revisions struct {
	oids, serials []int64
	unchecked     []bool
	sums          []*string
	states        [][]byte
	size          int // about how many bytes they are
	written       int // how many have become current
}

func (w *revisions) add(p *pending) {
	w.oids, w.serials, w.unchecked = append(w.oids, int64(p.oid)), append(w.serials, int64(p.serial)), append(w.unchecked, p.unchecked)
	w.sums, w.states = append(w.sums, p.sum), append(w.states, p.data)
	w.size += len(p.data) + 100
}

// queue adds the statements that write them to a batch, and makes room for more.
func (w *revisions) queue(b *pgx.Batch) {
	if w.oids != nil {
		b.Queue(insertStates, w.oids, w.sums, w.states)
		b.Queue(updateCurrent, w.oids, w.serials, w.unchecked).QueryRow(func(row pgx.Row) error {
			var n int
			err := row.Scan(&n)
			w.written += n
			return err
		})
	}
	*w = revisions{written: w.written}
}
