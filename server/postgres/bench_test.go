package postgres

import (
	"io"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

func BenchmarkLoad(b *testing.B) {
	s := storage(b, Options{DSN: pgtest.Database(b)})
	put(b, s, func(tx zeolite.Txn) error { return tx.Store(b.Context(), 1, 0, noise(1000)) })
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.LoadBefore(b.Context(), 1, zeolite.MaxTID); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.LoadBefore(b.Context(), 1, zeolite.MaxTID); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// Commits of ten objects of 1000 bytes.
func BenchmarkCommit(b *testing.B) {
	s := storage(b, Options{DSN: pgtest.Database(b)})
	serial, data := zeolite.ZeroTID, noise(1000)
	for b.Loop() {
		serial = put(b, s, func(tx zeolite.Txn) error {
			for oid := range zeolite.OID(10) {
				if err := tx.Store(b.Context(), oid, serial, data); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func BenchmarkBlob(b *testing.B) {
	const size = 100 << 20
	s := storage(b, Options{DSN: pgtest.Database(b)})
	data := noise(size)
	b.Run("upload", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if err := uploaded(b, s, data).Discard(); err != nil {
				b.Fatal(err)
			}
		}
	})
	up := uploaded(b, s, data)
	tid := put(b, s, func(tx zeolite.Txn) error { return tx.StoreBlob(b.Context(), 1, 0, storagetest.BlobRecord(), up) })
	b.Run("download", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			blob := openBlob(b, s, 1, tid)
			buf := make([]byte, 64<<10)
			if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{io.NewSectionReader(blob, 0, size)}, buf); err != nil {
				b.Fatal(err)
			}
			blob.Close()
		}
	})
	// The other way to read a large object: no transaction, no reading ahead.
	b.Run("lo_get", func(b *testing.B) {
		b.SetBytes(size)
		a := newAdmin(b, s.opts.DSN)
		loid := a.number("SELECT chunk::bigint FROM blob_chunk")
		for b.Loop() {
			for off := 0; off < size; off += streamPiece {
				var piece []byte
				if err := a.conn.QueryRow(b.Context(), "SELECT lo_get($1::bigint::oid, $2, $3)", loid, off, streamPiece).Scan(&piece); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
