package postgres

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite"
)

// uploadPiece is how many bytes an upload gathers before they go to the
// database.
const uploadPiece = 1 << 20

// uploadTime is how long the database may take for a piece, and to remove an
// upload.
const uploadTime = time.Minute

// upload is a blob being written: a large object that a row of zeolite_upload
// names, until a commit lets a row of blob_chunk do so. Each piece is a
// transaction of its own, so a slow client keeps no connection and no
// transaction. It is used by one goroutine at a time, and by the transaction
// that stores it.
type upload struct {
	s        *Storage
	buf      []byte
	loid     uint32 // zero until the first piece was written
	sent     int64  // bytes in the large object
	err      error  // of an earlier piece: the rest cannot be written either
	complete bool
	gone     bool // discarded, or consumed by a commit
}

// CreateBlob implements zeolite.BlobStorage. The database is told of it with
// the first piece.
func (s *Storage) CreateBlob(ctx context.Context) (zeolite.BlobUpload, error) {
	if s.opts.ReadOnly {
		return nil, zeolite.ErrReadOnly
	}
	_, leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	leave()
	return &upload{s: s}, nil
}

// errUploadTorn says that the database has forgotten pieces of an upload.
var errUploadTorn = &zeolite.StorageError{Message: "postgres: the database has crashed and lost part of the upload of a blob: it must be sent again"}

var errUploadEnded = &zeolite.StorageError{Message: "the upload of the blob has ended"}

func (u *upload) Write(p []byte) (int, error) {
	if u.gone || u.complete {
		return 0, errUploadEnded
	}
	for n := 0; ; {
		k := min(len(p)-n, uploadPiece-len(u.buf))
		u.buf = append(u.buf, p[n:n+k]...)
		if n += k; n == len(p) && len(u.buf) < uploadPiece {
			return n, nil
		}
		if err := u.flush(); err != nil {
			return n, err
		}
	}
}

func (u *upload) Size() int64 { return u.sent + int64(len(u.buf)) }

// flush writes a piece. The first one makes the large object.
func (u *upload) flush() error {
	if u.err != nil {
		return u.err
	}
	u.err = u.s.onStreams("cannot write a blob", func(ctx context.Context, conn *pgx.Conn) error {
		if u.loid == 0 {
			return conn.QueryRow(ctx, `INSERT INTO zeolite_upload (loid, owner) VALUES (lo_from_bytea(0, $1), $2) RETURNING loid`,
				notNil(u.buf), u.s.owner).Scan(&u.loid)
		}
		// A crash of the database may have taken pieces that it had
		// acknowledged: to write behind them would leave a hole of zeros.
		tag, err := conn.Exec(ctx, "SELECT lo_put($1, $2, $3) WHERE lo_lseek64(lo_open($1, $4), 0, 2) >= $2", u.loid, u.sent, u.buf, modeRead)
		if err == nil && tag.RowsAffected() == 0 {
			err = errUploadTorn
		}
		return err
	})
	if u.err == nil {
		u.sent += int64(len(u.buf))
		u.buf = u.buf[:0]
	}
	return u.err
}

// Complete implements zeolite.BlobUpload: the large object has all bytes. If it
// still has them when a transaction votes, that lasts is up to the commit, which
// brings to disk what was written before.
func (u *upload) Complete() error {
	if u.gone {
		return errUploadEnded
	}
	if u.complete {
		return nil
	}
	if len(u.buf) > 0 || u.loid == 0 {
		if err := u.flush(); err != nil {
			return err
		}
	}
	u.buf = nil
	u.complete = true
	return nil
}

// Discard implements zeolite.BlobUpload. If the database cannot be reached, the
// large object is removed as an orphan later.
func (u *upload) Discard() error {
	if u.gone {
		return nil
	}
	u.gone = true
	u.buf = nil
	if u.loid == 0 {
		return nil
	}
	return u.s.onStreams("cannot remove a blob", func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `WITH gone AS (DELETE FROM zeolite_upload WHERE loid = $1 RETURNING loid)
			SELECT lo_unlink(loid) FROM gone`, u.loid)
		return err
	})
}

// usable tells whether the upload can be committed.
func (u *upload) usable() error {
	if u.gone || !u.complete {
		return &zeolite.StorageError{Message: "the upload of the blob is not complete, or was used or discarded before"}
	}
	return nil
}

// ownUpload checks an upload that is to be stored.
func (s *Storage) ownUpload(blob zeolite.BlobUpload) (*upload, error) {
	u, ok := blob.(*upload)
	if !ok || u.s != s {
		return nil, &zeolite.StorageError{Message: "the upload of the blob belongs to another storage"}
	}
	return u, u.usable()
}

// newOwner makes up a number for a server among those that upload. It is the
// key of the advisory lock that shows that the server lives, and negative, so
// that it cannot be an oid, and far from the keys that have a meaning.
func newOwner() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return math.MinInt64 + int64(binary.BigEndian.Uint64(b[:])>>2)
}

// orphansAtOnce is how many large objects one transaction removes: each takes a
// place in PostgreSQL's table of locks. Meanwhile a server that was only away cannot
// show again that it lives, so their bytes are limited, too, by batches.blobs.
const orphansAtOnce = 500

// removeOrphans removes the uploads of servers that have gone. It returns their
// number.
func (s *Storage) removeOrphans(ctx context.Context, conn *pgx.Conn) (removed int64, err error) {
	for {
		var n int64
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			// An owner whose lock can be had exclusively has gone. Ours cannot.
			rows, err := tx.Query(ctx, `WITH dead AS MATERIALIZED (
					SELECT owner FROM (SELECT DISTINCT owner FROM zeolite_upload WHERE owner <> $1
						AND started < now() - $2::bigint * interval '1 millisecond') o WHERE pg_try_advisory_xact_lock(owner))
				SELECT loid FROM zeolite_upload JOIN dead USING (owner)
				WHERE started < now() - $2::bigint * interval '1 millisecond' LIMIT $3 FOR UPDATE OF zeolite_upload SKIP LOCKED`,
				s.owner, s.opts.OrphanAge.Milliseconds(), orphansAtOnce)
			if err != nil {
				return err
			}
			loids, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
			if err != nil || len(loids) == 0 {
				return err
			}
			if loids, err = s.firstFew(ctx, tx, loids); err != nil {
				return err
			}
			tag, err := tx.Exec(ctx, "DELETE FROM zeolite_upload WHERE loid = ANY($1)", loids)
			if err != nil {
				return err
			}
			n = tag.RowsAffected()
			_, err = tx.Exec(ctx, `SELECT lo_unlink(m.oid) FROM pg_largeobject_metadata m WHERE m.oid = ANY($1)`, loids)
			return err
		})
		removed += n
		if err != nil || n == 0 {
			return removed, err
		}
	}
}

// firstFew returns the first of some large objects, which are not too many bytes,
// and one at least.
func (s *Storage) firstFew(ctx context.Context, tx pgx.Tx, loids []uint32) ([]uint32, error) {
	rows, err := tx.Query(ctx, `SELECT coalesce(lo_lseek64(lo_open(m.oid, $2), 0, 2), 0)
		FROM unnest($1::oid[]) WITH ORDINALITY AS l (loid, n) LEFT JOIN pg_largeobject_metadata m ON m.oid = l.loid ORDER BY l.n`, loids, modeRead)
	if err != nil {
		return nil, err
	}
	sizes, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, err
	}
	n, sum := 0, int64(0)
	for _, size := range sizes {
		if sum += size; n > 0 && sum > s.batches.blobs {
			break
		}
		n++
	}
	return loids[:n], nil
}
