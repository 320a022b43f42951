package filestorage

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// What only a merge can undo is left to the caller, unless it is a blob's, or
// there is no state to merge.
func TestUndoLeavesMerges(t *testing.T) {
	db := newDB(t, Options{BlobDir: filepath.Join(t.TempDir(), "blobs")})
	put := func(oid zeolite.OID, serial zeolite.TID, data []byte) zeolite.TID {
		return db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
			switch {
			case data == nil:
				return tx.Delete(ctx, oid, serial)
			case bytes.Equal(data, storagetest.BlobRecord()):
				u, err := db.s.CreateBlob(ctx)
				db.must(err)
				db.must(u.Complete())
				return tx.StoreBlob(ctx, oid, serial, data, u)
			}
			return tx.Store(ctx, oid, serial, data)
		})
	}
	plain, blob := storagetest.Record, storagetest.BlobRecord()
	for i, c := range []struct {
		before, undone, now []byte
		merge               bool
	}{
		{plain("1"), plain("2"), plain("3"), true},
		{plain("1"), nil, plain("3"), false},
		{plain("1"), plain("2"), nil, false},
		{nil, plain("2"), plain("3"), false},
		{blob, plain("2"), plain("3"), false},
		{plain("1"), blob, plain("3"), false},
		{plain("1"), plain("2"), blob, false},
	} {
		oid := zeolite.OID(i + 1)
		serial := put(oid, 0, plain("0"))
		serial = put(oid, serial, c.before)
		undone := put(oid, serial, c.undone)
		put(oid, undone, c.now)
		tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
		db.must(err)
		_, err = tx.Undo(ctx, undone)
		if refused := errors.As(err, new(*zeolite.MultipleUndoErrors)); refused == c.merge {
			t.Errorf("%d: Undo: got error %v", i, err)
		}
		if err == nil && len(zeolite.Conflicts(tx.Vote(ctx))) != 1 {
			t.Errorf("%d: Vote reports no conflict", i)
		}
		tx.Abort()
	}
}

// More conflicts than are to be in memory at once are reported one part after
// the other.
func TestUndoLeavesManyMerges(t *testing.T) {
	db := newDB(t, Options{})
	const n = 5
	var serials []zeolite.TID
	for i := range 3 {
		serials = append(serials, db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
			for oid := range zeolite.OID(n) {
				serial := append([]zeolite.TID{0}, serials...)[i]
				if err := tx.Store(ctx, oid, serial, bytes.Repeat([]byte{byte(i)}, conflictBytes*2/5)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
	db.must(err)
	defer tx.Abort()
	_, err = tx.Undo(ctx, serials[1])
	db.must(err)
	for _, want := range []int{2, 2, 1, 0} {
		err := tx.Vote(ctx)
		conflicts := zeolite.Conflicts(err)
		if len(conflicts) != want || (err == nil) != (want == 0) {
			t.Fatalf("%d conflicts, want %d: %v", len(conflicts), want, err)
		}
		for _, c := range conflicts {
			db.must(tx.Store(ctx, c.OID, c.Committed, []byte("merged")))
		}
	}
}
