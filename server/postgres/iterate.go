package postgres

import (
	"context"
	"iter"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite"
)

// How much is read at once, so that no connection waits for a consumer.
const (
	txnsPerPage    = 200
	recordsPerPage = 100
)

// A page of transactions is given to a consumer after the connection was given
// back: it may take its time, and ask the storage other things.

// transactionQuery selects what transactionInfo reads. A transaction that a
// pack has emptied is shown to nobody.
const transactionQuery = `SELECT tid, packed, username, description, extension FROM transaction
	WHERE tid > 0 AND NOT (packed AND is_empty) AND `

func transactionInfo(row pgx.CollectableRow) (*zeolite.TransactionInfo, error) {
	var info zeolite.TransactionInfo
	var packed bool
	err := row.Scan(&info.TID, &packed, &info.User, &info.Description, &info.Extension)
	info.Status = status(packed)
	return &info, err
}

// page runs a query for transactions.
func (s *Storage) page(ctx context.Context, where string, args ...any) (infos []*zeolite.TransactionInfo, err error) {
	err = s.read(ctx, "cannot read transactions", func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, transactionQuery+where, args...)
		if err == nil {
			infos, err = pgx.CollectRows(rows, transactionInfo)
		}
		return err
	})
	return infos, err
}

// Transactions implements zeolite.Storage.
func (s *Storage) Transactions(ctx context.Context, start, stop zeolite.TID) iter.Seq2[*zeolite.TransactionRecord, error] {
	return func(yield func(*zeolite.TransactionRecord, error) bool) {
		stop := int64(min(stop, s.publisher.horizon()))
		for next := min(start, zeolite.MaxTID); ; {
			infos, err := s.page(ctx, "tid >= $1 AND tid <= $2 ORDER BY tid LIMIT $3", int64(next), stop, txnsPerPage)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, info := range infos {
				if err := ctx.Err(); err != nil {
					yield(nil, err)
					return
				}
				if !yield(&zeolite.TransactionRecord{TransactionInfo: *info, Records: s.records(ctx, info.TID)}, nil) {
					return
				}
				next = info.TID + 1
			}
			if len(infos) < txnsPerPage {
				return
			}
		}
	}
}

// records yields the records of a transaction. The tables keep no order in it;
// where the rows lie tells the one of storing, as long as none was moved.
func (s *Storage) records(ctx context.Context, tid zeolite.TID) iter.Seq2[zeolite.DataRecord, error] {
	return func(yield func(zeolite.DataRecord, error) bool) {
		var oids []int64
		err := s.read(ctx, "cannot read a transaction", func(ctx context.Context, conn *pgx.Conn) error {
			rows, err := conn.Query(ctx, "SELECT zoid FROM object_state WHERE tid = $1 ORDER BY ctid", int64(tid))
			if err == nil {
				oids, err = pgx.CollectRows(rows, pgx.RowTo[int64])
			}
			return err
		})
		if err != nil {
			yield(zeolite.DataRecord{}, err)
			return
		}
		for len(oids) > 0 {
			n := min(len(oids), recordsPerPage)
			records, err := s.recordPage(ctx, tid, oids[:n])
			if err != nil {
				yield(zeolite.DataRecord{}, err)
				return
			}
			for _, r := range records {
				if !yield(r, nil) {
					return
				}
			}
			oids = oids[n:]
		}
	}
}

func (s *Storage) recordPage(ctx context.Context, tid zeolite.TID, oids []int64) (records []zeolite.DataRecord, err error) {
	err = s.read(ctx, "cannot read a transaction", func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT o.zoid, o.state FROM unnest($2::bigint[]) WITH ORDINALITY AS p (zoid, n)
			JOIN object_state o ON o.zoid = p.zoid AND o.tid = $1 ORDER BY p.n`, int64(tid), oids)
		if err != nil {
			return err
		}
		records, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (zeolite.DataRecord, error) {
			r := zeolite.DataRecord{TID: tid}
			err := row.Scan(&r.OID, &r.Data)
			return r, err
		})
		return err
	})
	return records, err
}

// Changes implements zeolite.Storage.
func (s *Storage) Changes(ctx context.Context, after zeolite.TID) iter.Seq2[zeolite.Change, error] {
	return func(yield func(zeolite.Change, error) bool) {
		horizon := s.publisher.horizon()
		for after < horizon {
			changes, err := s.changes(ctx, after, horizon)
			if err != nil {
				yield(zeolite.Change{}, err)
				return
			}
			if len(changes) == 0 {
				return
			}
			for _, c := range changes {
				if err := ctx.Err(); err != nil {
					yield(zeolite.Change{}, err)
					return
				}
				if !c.emptied && !yield(c.Change, nil) {
					return
				}
				after = c.TID
			}
		}
	}
}

// change is a Change, and what a pack has made of its transaction.
type change struct {
	zeolite.Change
	packed, emptied bool
}

// changesReader reads a page of what changed after one TID and not after
// another.
type changesReader func(ctx context.Context, after, upTo zeolite.TID) ([]change, error)

// changes is a changesReader with a connection of the pool for loads.
func (s *Storage) changes(ctx context.Context, after, upTo zeolite.TID) (changes []change, err error) {
	err = s.read(ctx, "cannot read what changed", func(ctx context.Context, conn *pgx.Conn) (err error) {
		changes, err = changesAfter(ctx, conn, after, upTo)
		return err
	})
	return changes, err
}

// changesOn returns a changesReader with a connection.
func changesOn(conn *pgx.Conn) changesReader {
	return func(ctx context.Context, after, upTo zeolite.TID) ([]change, error) {
		return changesAfter(ctx, conn, after, upTo)
	}
}

// changesAfter reads a page of what changed, with a connection.
func changesAfter(ctx context.Context, conn *pgx.Conn, after, upTo zeolite.TID) ([]change, error) {
	rows, err := conn.Query(ctx, `SELECT t.tid, t.packed, t.packed AND t.is_empty, ARRAY(SELECT zoid FROM object_state o WHERE o.tid = t.tid)
		FROM transaction t WHERE t.tid > $1 AND t.tid <= $2 ORDER BY t.tid LIMIT $3`,
		int64(after), int64(min(upTo, zeolite.MaxTID)), txnsPerPage)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (c change, err error) {
		err = row.Scan(&c.TID, &c.packed, &c.emptied, &c.OIDs)
		return c, err
	})
}

// UndoLog implements zeolite.Undoer.
func (s *Storage) UndoLog(ctx context.Context) iter.Seq2[*zeolite.TransactionInfo, error] {
	return func(yield func(*zeolite.TransactionInfo, error) bool) {
		for limit := s.publisher.horizon(); ; {
			infos, err := s.page(ctx, "NOT packed AND tid <= $1 ORDER BY tid DESC LIMIT $2", int64(limit), txnsPerPage)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, info := range infos {
				if err := ctx.Err(); err != nil {
					yield(nil, err)
					return
				}
				if !yield(info, nil) {
					return
				}
				limit = info.TID - 1
			}
			if len(infos) < txnsPerPage {
				return
			}
		}
	}
}
