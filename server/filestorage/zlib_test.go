package filestorage

import (
	"bytes"
	"compress/zlib"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// A database whose clients compress records is packed and checked like others.
func TestCompressedRecords(t *testing.T) {
	db := newDB(t, Options{BlobDir: filepath.Join(t.TempDir(), "blobs")})
	deflate := func(record []byte) []byte {
		var b bytes.Buffer
		b.WriteString(".z")
		z := zlib.NewWriter(&b)
		z.Write(record)
		db.must(z.Close())
		return b.Bytes()
	}
	long := strings.Repeat("long ", 50)
	const root, kept, blob, garbage = 0, 1, 2, 3
	serial := db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		db.must(tx.Store(ctx, root, 0, deflate(storagetest.Record(long, kept, garbage))))
		db.must(tx.Store(ctx, kept, 0, deflate(storagetest.Record(long, blob))))
		u, err := db.s.CreateBlob(ctx)
		db.must(err)
		_, err = u.Write([]byte("blob"))
		db.must(err)
		db.must(u.Complete())
		db.must(tx.StoreBlob(ctx, blob, 0, deflate(storagetest.BlobRecord()), u))
		return tx.Store(ctx, garbage, 0, deflate(storagetest.Record(long, garbage)))
	})
	last := db.store(root, serial, string(deflate(storagetest.Record(long, kept))))
	db.pack(last, true)
	for oid, want := range []bool{root: true, kept: true, blob: true, garbage: false} {
		if _, err := db.s.CurrentTID(ctx, zeolite.OID(oid)); (err == nil) != want {
			t.Errorf("object %d: %v", oid, err)
		}
	}
	if b, err := db.s.OpenBlob(ctx, blob, serial); err != nil {
		t.Error(err)
	} else {
		b.Close()
	}
	db.close()
	report, err := Check(ctx, db.path, CheckOptions{BlobDir: db.s.opts.BlobDir})
	db.must(err)
	if len(report.Findings) != 0 || report.Blobs != 1 {
		t.Errorf("check: %+v", report)
	}
}
