package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite"
)

// undoQuery finds for each object that a transaction changed: what it made of
// it, what it is now, and what it was before.
const undoQuery = `SELECT r.zoid, r.md5::text, r.state IS NULL, coalesce(rb.chunk, 0),
		c.tid, c.md5::text, c.state IS NULL, coalesce(cb.chunk, 0),
		p.md5::text, p.state, coalesce(pb.chunk, 0)
	FROM object_state r
	LEFT JOIN blob_chunk rb ON rb.zoid = r.zoid AND rb.tid = r.tid AND rb.chunk_num = 0
	JOIN current_object k ON k.zoid = r.zoid
	JOIN object_state c ON c.zoid = k.zoid AND c.tid = k.tid
	LEFT JOIN blob_chunk cb ON cb.zoid = c.zoid AND cb.tid = c.tid AND cb.chunk_num = 0
	LEFT JOIN LATERAL (SELECT tid, md5, state FROM object_state o
		WHERE o.zoid = r.zoid AND o.tid < r.tid ORDER BY o.tid DESC LIMIT 1) p ON true
	LEFT JOIN blob_chunk pb ON pb.zoid = r.zoid AND pb.tid = p.tid AND pb.chunk_num = 0
	WHERE r.tid = $1 ORDER BY r.ctid`

// look is a state of an object as far as undo compares it.
type look struct {
	sum  *string
	gone bool
	blob uint32
}

func (a look) equal(b look) bool {
	if a.gone || b.gone {
		return a.gone && b.gone
	}
	return a.blob == b.blob && a.sum != nil && b.sum != nil && *a.sum == *b.sum
}

// Undo implements zeolite.Txn. It sees what this transaction undid before, so
// several transactions can be undone in one, newest first. An object can be
// undone if it is as the transaction left it, by its bytes and its blob.
func (t *txn) Undo(ctx context.Context, tid zeolite.TID) (oids []zeolite.OID, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.expect("Undo", open); err != nil {
		return nil, err
	}
	var records []*pending
	err = t.s.read(ctx, "cannot undo", func(ctx context.Context, conn *pgx.Conn) error {
		records, err = t.undo(ctx, conn, tid)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, p := range records {
		t.put(p)
		oids = append(oids, p.oid)
	}
	if t.undone == nil {
		t.undone = map[zeolite.TID]struct{}{}
	}
	t.undone[tid] = struct{}{}
	return oids, nil
}

func (t *txn) undo(ctx context.Context, conn *pgx.Conn, tid zeolite.TID) ([]*pending, error) {
	unknown := &zeolite.UndoError{Reason: "there is no transaction " + tid.String()}
	if tid == zeolite.ZeroTID || tid > t.s.publisher.horizon() {
		return nil, unknown
	}
	var packed bool
	err := conn.QueryRow(ctx, "SELECT packed FROM transaction WHERE tid = $1", int64(tid)).Scan(&packed)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, unknown
	case err != nil:
		return nil, err
	case packed:
		return nil, &zeolite.UndoError{Reason: "transaction " + tid.String() + " was packed"}
	}
	rows, err := conn.Query(ctx, undoQuery, int64(tid))
	if err != nil {
		return nil, err
	}
	var (
		records           []*pending
		failed            []*zeolite.UndoError
		oid               zeolite.OID
		serial            zeolite.TID
		then, now, before look
		data              []byte
	)
	columns := []any{&oid, &then.sum, &then.gone, &then.blob, &serial, &now.sum, &now.gone, &now.blob,
		&before.sum, &data, &before.blob}
	_, err = pgx.ForEachRow(rows, columns, func() error {
		// An object that this transaction changed already is as it will be.
		p := &pending{oid: oid, serial: serial}
		if i, again := t.index[oid]; again {
			own := t.records[i]
			now = look{sum: own.sum, gone: own.data == nil, blob: own.blob()}
			p.serial, p.unchecked = own.serial, own.unchecked
		}
		if !now.equal(then) {
			failed = append(failed, &zeolite.UndoError{
				Reason: "a later transaction changed the object", OID: oid, HasOID: true})
			return nil
		}
		if data != nil {
			p.data, p.sum, p.shared = data, before.sum, before.blob
		}
		records = append(records, p)
		data = nil // the next row gets bytes of its own
		return nil
	})
	if err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, &zeolite.MultipleUndoErrors{Errs: failed}
	}
	return records, nil
}
