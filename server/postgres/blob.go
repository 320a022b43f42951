package postgres

import (
	"context"
	"errors"
	"io"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite"
)

// OpenBlob implements zeolite.BlobStorage. It asks on a connection for loads
// whether the blob is there, and how large; a connection for its bytes is taken
// when they are read.
func (s *Storage) OpenBlob(ctx context.Context, oid zeolite.OID, tid zeolite.TID) (zeolite.Blob, error) {
	b := &blob{s: s}
	err := s.read(ctx, "cannot open a blob", func(ctx context.Context, conn *pgx.Conn) error {
		missing := &zeolite.NotFoundError{OID: oid, TID: tid, Blob: true}
		if oid > maxOID || tid > s.publisher.horizon() {
			return missing
		}
		err := conn.QueryRow(ctx, `SELECT chunk, lo_lseek64(lo_open(chunk, $3), 0, 2) FROM blob_chunk
			WHERE zoid = $1 AND tid = $2 AND chunk_num = 0`, int64(oid), int64(tid), modeRead).Scan(&b.loid, &b.size)
		if errors.Is(err, pgx.ErrNoRows) {
			return missing
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// blob is a committed blob that somebody reads. It is used by one goroutine at
// a time.
type blob struct {
	s      *Storage
	loid   uint32
	size   int64
	closed bool

	at     int64 // where the last read ended: one that goes on there is served by the stream
	stream *stream
	piece  []byte // what the stream gave, as a whole
	rest   []byte // of piece, not read yet
}

func (b *blob) Size() int64 { return b.size }

// ReadAt implements io.ReaderAt. To read from the start, or where the last read
// ended, starts or goes on with reading ahead; anything else is asked for by
// itself.
func (b *blob) ReadAt(p []byte, off int64) (n int, err error) {
	switch {
	case b.closed:
		return 0, zeolite.ErrClosed
	case off < 0:
		return 0, &zeolite.StorageError{Message: "a blob was read at a negative offset"}
	case off >= b.size:
		return 0, io.EOF
	}
	if off != b.at {
		b.stop()
		n, err = b.pick(p, off)
	} else {
		n, err = b.goOn(p)
	}
	b.at = off + int64(n)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// goOn reads from the stream.
func (b *blob) goOn(p []byte) (n int, err error) {
	if b.stream == nil {
		b.stream = b.s.newStream(b.loid, b.at, b.size)
	}
	for n < len(p) {
		if len(b.rest) == 0 {
			if b.piece != nil {
				b.stream.recycle(b.piece)
				b.piece = nil
			}
			piece, err := b.stream.next()
			if err == io.EOF {
				break
			} else if err != nil {
				return n, err
			}
			b.piece, b.rest = piece, piece
		}
		k := copy(p[n:], b.rest)
		b.rest = b.rest[k:]
		n += k
	}
	return n, nil
}

// pick reads without reading ahead.
func (b *blob) pick(p []byte, off int64) (n int, err error) {
	for n < len(p) && off+int64(n) < b.size {
		var piece []byte
		err := b.s.onStreams("cannot read a blob", func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "SELECT lo_get($1, $2, $3)", b.loid, off+int64(n),
				int32(min(len(p)-n, streamPiece))).Scan(&piece)
		})
		if err != nil {
			return n, err
		}
		if len(piece) == 0 {
			return n, io.ErrUnexpectedEOF
		}
		n += copy(p[n:], piece)
	}
	return n, nil
}

func (b *blob) stop() {
	if b.stream != nil {
		b.stream.close()
	}
	b.stream, b.piece, b.rest = nil, nil, nil
}

// Close implements zeolite.Blob.
func (b *blob) Close() error {
	b.stop()
	b.closed = true
	return nil
}
