package postgres

import (
	"bytes"
	"context"
	"errors"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite"
)

// TIDs and oids are signed in the database. No transaction has a TID from
// MaxTID on, and no object an oid above maxOID.
const maxOID zeolite.OID = math.MaxInt64

// overtakenMax is how often something is looked for that seems to be overtaken.
const overtakenMax = 8

// readCurrent is read for what is current as of the horizon. If the horizon moves
// before the database is asked, a pack may have removed what was current before. So
// what is found missing is looked for again, if there are later revisions of it, and
// the horizon has moved. If there still are only later ones in the end, later says so.
func (s *Storage) readCurrent(ctx context.Context, doing string,
	query func(ctx context.Context, conn *pgx.Conn) (later bool, err error)) (later bool, err error) {
	for try := 1; ; try++ {
		horizon := s.publisher.horizon()
		later = false
		err = s.read(ctx, doing, func(ctx context.Context, conn *pgx.Conn) (err error) {
			later, err = query(ctx, conn)
			return err
		})
		if !errors.As(err, new(*zeolite.NotFoundError)) {
			return false, err
		}
		if !later || s.publisher.horizon() == horizon || try == overtakenMax {
			return later, err
		}
	}
}

// absent says what it means that an object has no revision up to a TID, which is at
// most the horizon: it comes not yet, or it is not found; and then whether there are
// revisions behind the horizon.
func absent(ctx context.Context, conn *pgx.Conn, oid zeolite.OID, horizon int64) (later bool, err error) {
	var oldest *int64
	err = conn.QueryRow(ctx, "SELECT min(tid) FROM object_state WHERE zoid = $1", int64(oid)).Scan(&oldest)
	switch {
	case err != nil:
		return false, err
	case oldest != nil && *oldest <= horizon:
		return false, zeolite.ErrNotYet
	}
	return oldest != nil, &zeolite.NotFoundError{OID: oid}
}

// LoadBefore implements zeolite.Storage.
func (s *Storage) LoadBefore(ctx context.Context, oid zeolite.OID, before zeolite.TID) (rev zeolite.Revision, err error) {
	if known, ok := s.serials.load(oid, before); ok {
		_, leave, err := s.enter(ctx)
		if err != nil {
			return zeolite.Revision{}, err
		}
		leave()
		s.serials.hits.Add(1)
		known.Data = bytes.Clone(known.Data)
		return known, nil
	}
	s.serials.misses.Add(1)
	var seen zeolite.TID // the horizon
	later, err := s.readCurrent(ctx, "cannot load an object", func(ctx context.Context, conn *pgx.Conn) (later bool, err error) {
		if oid > maxOID {
			return false, &zeolite.NotFoundError{OID: oid}
		}
		seen = s.publisher.horizon()
		horizon := int64(seen)
		limit := min(int64(min(max(before, 1)-1, zeolite.MaxTID)), horizon)
		if limit == horizon { // then nothing can have followed
			err = conn.QueryRow(ctx, "SELECT tid, state FROM object_state WHERE zoid = $1 AND tid <= $2 ORDER BY tid DESC LIMIT 1",
				int64(oid), limit).Scan(&rev.TID, &rev.Data)
		} else {
			err = conn.QueryRow(ctx, `SELECT r.tid, r.state, coalesce((
					SELECT n.tid FROM object_state n WHERE n.zoid = $1 AND n.tid > r.tid AND n.tid <= $3 ORDER BY n.tid LIMIT 1), 0)
				FROM object_state r WHERE r.zoid = $1 AND r.tid <= $2 ORDER BY r.tid DESC LIMIT 1`,
				int64(oid), limit, horizon).Scan(&rev.TID, &rev.Data, &rev.End)
		}
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return absent(ctx, conn, oid, horizon)
		case err == nil && rev.Data == nil:
			return false, &zeolite.NotFoundError{OID: oid}
		case err == nil && rev.End == zeolite.ZeroTID:
			s.serials.loaded(oid, rev, seen, &s.publisher)
		}
		return false, err
	})
	switch {
	case later && before > 1 && before <= seen+1:
		// Another server has created the object, or packed away what this one
		// still shows of it. Nobody who looks at a moment of this server's is
		// to take it for missing. (To ask for what was before all time is to
		// ask whether it is known here.)
		return zeolite.Revision{}, zeolite.ErrNotYet
	case err != nil:
		return zeolite.Revision{}, err
	}
	return rev, nil
}

// LoadNow is LoadBefore if the answer is known here, is a revision, and fits into
// buf, where its data is then. Otherwise LoadBefore comes next, and is counted.
func (s *Storage) LoadNow(oid zeolite.OID, before zeolite.TID, buf []byte) (zeolite.Revision, bool) {
	rev, ok := s.serials.load(oid, before)
	if !ok || len(rev.Data) > len(buf) || s.ctx.Err() != nil {
		return zeolite.Revision{}, false
	}
	s.serials.hits.Add(1)
	rev.Data = buf[:copy(buf, rev.Data)]
	return rev, true
}

// LoadSerial implements zeolite.Storage.
func (s *Storage) LoadSerial(ctx context.Context, oid zeolite.OID, serial zeolite.TID) (data []byte, err error) {
	err = s.read(ctx, "cannot load a revision", func(ctx context.Context, conn *pgx.Conn) error {
		if oid > maxOID || serial > s.publisher.horizon() {
			return &zeolite.NotFoundError{OID: oid, TID: serial}
		}
		err := conn.QueryRow(ctx, "SELECT state FROM object_state WHERE zoid = $1 AND tid = $2",
			int64(oid), int64(serial)).Scan(&data)
		if errors.Is(err, pgx.ErrNoRows) || (err == nil && data == nil) {
			return &zeolite.NotFoundError{OID: oid, TID: serial}
		}
		return err
	})
	return data, err
}

// CurrentTID implements zeolite.Storage.
func (s *Storage) CurrentTID(ctx context.Context, oid zeolite.OID) (tid zeolite.TID, err error) {
	_, err = s.readCurrent(ctx, "cannot read a serial", func(ctx context.Context, conn *pgx.Conn) (later bool, err error) {
		if oid > maxOID {
			return false, &zeolite.NotFoundError{OID: oid}
		}
		var gone bool
		horizon := s.publisher.horizonInt()
		err = conn.QueryRow(ctx, `SELECT tid, state IS NULL FROM object_state
			WHERE zoid = $1 AND tid <= $2 ORDER BY tid DESC LIMIT 1`,
			int64(oid), horizon).Scan(&tid, &gone)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return absent(ctx, conn, oid, horizon)
		case err == nil && gone:
			return false, &zeolite.NotFoundError{OID: oid}
		}
		return false, err
	})
	if err != nil {
		return 0, err
	}
	return tid, nil
}

// History implements zeolite.Storage. It shows deletions too.
func (s *Storage) History(ctx context.Context, oid zeolite.OID, n int) (infos []zeolite.TransactionInfo, err error) {
	_, err = s.readCurrent(ctx, "cannot read the history of an object", func(ctx context.Context, conn *pgx.Conn) (later bool, err error) {
		infos = nil
		if oid > maxOID {
			return false, &zeolite.NotFoundError{OID: oid}
		}
		horizon := s.publisher.horizonInt()
		// At least one row is read, to know whether there is any.
		rows, err := conn.Query(ctx, `SELECT t.tid, t.packed, t.username, t.description, t.extension, o.state_size
			FROM object_state o JOIN transaction t USING (tid)
			WHERE o.zoid = $1 AND o.tid <= $2 ORDER BY o.tid DESC LIMIT $3`,
			int64(oid), horizon, max(n, 1))
		if err != nil {
			return false, err
		}
		infos, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (info zeolite.TransactionInfo, err error) {
			var packed bool
			err = row.Scan(&info.TID, &packed, &info.User, &info.Description, &info.Extension, &info.Size)
			info.Status = status(packed)
			return info, err
		})
		if err == nil && len(infos) == 0 {
			return absent(ctx, conn, oid, horizon)
		}
		return false, err
	})
	if err != nil {
		return nil, err
	}
	return infos[:min(len(infos), max(n, 0))], nil
}

func status(packed bool) byte {
	if packed {
		return 'p'
	}
	return ' '
}

// errBehind says that a walk over the objects met one that has only revisions
// behind the horizon.
var errBehind = &zeolite.StorageError{Message: "postgres: others commit and pack faster than can be read"}

// NextRecord implements zeolite.Storage. An object that is behind the horizon is
// published first: it may be an old one, of which another server has packed away
// all that is shown here.
func (s *Storage) NextRecord(ctx context.Context, from zeolite.OID) (rec zeolite.CurrentRecord, err error) {
	for try := 1; ; try++ {
		err = s.read(ctx, "cannot walk over the objects", func(ctx context.Context, conn *pgx.Conn) error {
			rec, err = s.nextRecord(ctx, conn, from)
			return err
		})
		if err == nil {
			return rec, nil
		}
		if !errors.Is(err, errBehind) || try == overtakenMax {
			return zeolite.CurrentRecord{}, err
		}
		if err := s.CatchUp(ctx); err != nil {
			return zeolite.CurrentRecord{}, err
		}
	}
}

func (s *Storage) nextRecord(ctx context.Context, conn *pgx.Conn, from zeolite.OID) (rec zeolite.CurrentRecord, err error) {
	if from > maxOID {
		return rec, &zeolite.NotFoundError{OID: from}
	}
	horizon := s.publisher.horizonInt()
	// current_object may be ahead of the horizon, so it only says which
	// objects there are.
	var tid *zeolite.TID
	err = conn.QueryRow(ctx, `SELECT c.zoid, r.tid, r.state FROM current_object c LEFT JOIN LATERAL (
			SELECT o.tid, o.state FROM object_state o WHERE o.zoid = c.zoid AND o.tid <= $2 ORDER BY o.tid DESC LIMIT 1) r ON true
		WHERE c.zoid >= $1 AND (r.tid IS NULL OR r.state IS NOT NULL) ORDER BY c.zoid LIMIT 1`,
		int64(from), horizon).Scan(&rec.OID, &tid, &rec.Data)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return rec, &zeolite.NotFoundError{OID: from}
	case err != nil:
		return rec, err
	case tid == nil:
		return rec, errBehind
	}
	rec.TID = *tid
	err = conn.QueryRow(ctx, `SELECT c.zoid FROM current_object c LEFT JOIN LATERAL (
			SELECT o.state IS NULL AS gone FROM object_state o WHERE o.zoid = c.zoid AND o.tid <= $2 ORDER BY o.tid DESC LIMIT 1) r ON true
		WHERE c.zoid > $1 AND r.gone IS NOT TRUE ORDER BY c.zoid LIMIT 1`,
		int64(rec.OID), horizon).Scan(&rec.Next)
	rec.More = err == nil
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return rec, err
}
