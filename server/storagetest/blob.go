package storagetest

import (
	"bytes"
	"errors"
	"io"
	"os"

	"github.com/zeolite-go/zeolite"
)

var blobTests = []test{
	{"Unsupported", testBlobUnsupported},
	{"Sizes", testBlobSizes},
	{"Revisions", testBlobRevisions},
	{"ReadAt", testBlobReadAt},
	{"NotFound", testBlobNotFound},
	{"Discard", testBlobDiscard},
	{"AbortKeepsUpload", testBlobAbortKeepsUpload},
	{"Conflict", testBlobConflict},
	{"LastStoreWins", testBlobLastStoreWins},
	{"Several", testBlobSeveral},
	{"Restore", testBlobRestore},
	{"Undo", testBlobUndo},
	{"UndoConflict", testBlobUndoConflict},
	{"NotVisibleBeforeFinish", testBlobNotVisibleBeforeFinish},
}

func testBlobUnsupported(e *env) {
	if e.s.Info().Blobs {
		e.doesNotApply("the storage keeps blobs")
	}
	b, ok := e.s.(zeolite.BlobStorage)
	if !ok {
		return
	}
	if _, err := b.CreateBlob(e.ctx); !errors.Is(err, zeolite.ErrUnsupported) {
		e.Errorf("CreateBlob: got error %v, want ErrUnsupported", err)
	}
	if _, err := b.OpenBlob(e.ctx, 1, 1); !errors.Is(err, zeolite.ErrUnsupported) {
		e.Errorf("OpenBlob: got error %v, want ErrUnsupported", err)
	}
}

func (e *env) blobs() zeolite.BlobStorage {
	e.Helper()
	e.need("blobs", e.s.Info().Blobs)
	b, ok := e.s.(zeolite.BlobStorage)
	if !ok {
		e.Fatal("Info says that blobs work, but the storage is no zeolite.BlobStorage")
	}
	return b
}

// upload returns a complete upload. What is left of it goes with the test.
func (e *env) upload(data []byte) zeolite.BlobUpload {
	e.Helper()
	up, err := e.blobs().CreateBlob(e.ctx)
	e.must(err)
	e.Cleanup(func() { up.Discard() })
	for rest := data; len(rest) > 0; { // in pieces of no particular size
		n := min(len(rest), 59_001)
		if written, err := up.Write(rest[:n]); err != nil || written != n {
			e.Fatalf("Write: %d, %v, want %d", written, err, n)
		}
		rest = rest[n:]
	}
	e.must(up.Complete())
	if up.Size() != int64(len(data)) {
		e.Errorf("upload has size %d, want %d", up.Size(), len(data))
	}
	return up
}

// storeBlob commits one revision with a blob.
func (e *env) storeBlob(oid zeolite.OID, serial zeolite.TID, blob []byte) zeolite.TID {
	e.Helper()
	return e.storeBlobAs(zeolite.TxnMeta{}, oid, serial, blob)
}

func (e *env) storeBlobAs(meta zeolite.TxnMeta, oid zeolite.OID, serial zeolite.TID, blob []byte) zeolite.TID {
	e.Helper()
	up := e.upload(blob)
	tid := e.commit(meta, func(tx zeolite.Txn) error {
		return tx.StoreBlob(e.ctx, oid, serial, BlobRecord(), up)
	})
	e.must(up.Discard()) // does nothing now
	return tid
}

// wantBlob checks the blob of a revision.
func (e *env) wantBlob(oid zeolite.OID, tid zeolite.TID, want []byte) {
	e.Helper()
	b, err := e.blobs().OpenBlob(e.ctx, oid, tid)
	if err != nil {
		e.Errorf("OpenBlob(%v, %v): %v", oid, tid, err)
		return
	}
	defer b.Close()
	if b.Size() != int64(len(want)) {
		e.Errorf("the blob of %v at %v has size %d, want %d", oid, tid, b.Size(), len(want))
	}
	got, err := io.ReadAll(io.NewSectionReader(b, 0, 1<<40))
	if err != nil || !bytes.Equal(got, want) {
		e.Errorf("the blob of %v at %v: got %s, %v, want %s", oid, tid, brief(got), err, brief(want))
	}
	if f, ok := b.(interface{ File() *os.File }); ok {
		got := make([]byte, len(want))
		if _, err := f.File().ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			e.Errorf("File of the blob of %v at %v: got %s, %v, want %s", oid, tid, brief(got), err, brief(want))
		}
	}
}

func (e *env) wantNoBlob(oid zeolite.OID, tid zeolite.TID) {
	e.Helper()
	b, err := e.blobs().OpenBlob(e.ctx, oid, tid)
	if err == nil {
		b.Close()
	}
	var nf *zeolite.NotFoundError
	if !errors.As(err, &nf) || !nf.Blob {
		e.Errorf("OpenBlob(%v, %v): got error %v, want *NotFoundError of a blob", oid, tid, err)
	}
}

func testBlobSizes(e *env) {
	e.blobs()
	type stored struct {
		oid  zeolite.OID
		tid  zeolite.TID
		blob []byte
	}
	var all []stored
	for i, size := range []int{0, 1, 58_999, 59_000, 59_001, 3 << 20} {
		s := stored{oid: e.oid(), blob: noise(uint64(i), size)}
		s.tid = e.storeBlob(s.oid, 0, s.blob)
		e.wantCurrent(s.oid, BlobRecord(), s.tid)
		all = append(all, s)
	}
	check := func() {
		for _, s := range all {
			e.wantBlob(s.oid, s.tid, s.blob)
			e.wantBlob(s.oid, s.tid, s.blob)
		}
	}
	check()
	e.reopen()
	check()
}

func testBlobRevisions(e *env) {
	e.blobs()
	oid := e.oid()
	one, two := noise(1, 1000), noise(2, 2000)
	first := e.storeBlob(oid, 0, one)
	second := e.storeBlob(oid, first, two)
	third := e.store(oid, second, Record("no blob any more"))
	check := func() {
		e.wantBlob(oid, first, one)
		e.wantBlob(oid, second, two)
		e.wantNoBlob(oid, third)
		e.wantCurrent(oid, Record("no blob any more"), third)
	}
	check()
	e.reopen()
	check()
	fourth := e.remove(oid, third)
	e.wantNoBlob(oid, fourth)
	e.wantBlob(oid, second, two)
}

func testBlobReadAt(e *env) {
	e.blobs()
	oid := e.oid()
	blob := noise(3, 200_003)
	tid := e.storeBlob(oid, 0, blob)
	b, err := e.blobs().OpenBlob(e.ctx, oid, tid)
	e.must(err)
	for _, r := range []struct{ off, n int }{
		{199_999, 4}, {0, 1}, {1, 65_537}, {7, 200_003 - 7}, {100_001, 13}, {200_002, 1}, {0, 200_003}, {0, 0}, {65_535, 2},
	} {
		got := make([]byte, r.n)
		n, err := b.ReadAt(got, int64(r.off))
		if n != r.n || (err != nil && err != io.EOF) || !bytes.Equal(got, blob[r.off:r.off+r.n]) {
			e.Errorf("ReadAt(%d bytes, %d): %d, %v, or wrong bytes", r.n, r.off, n, err)
		}
	}
	for _, r := range []struct{ off, n, want int }{
		{200_000, 10, 3}, {200_003, 1, 0}, {200_004, 10, 0}, {1 << 30, 1, 0}, {3, 200_003, 200_000},
	} {
		got := make([]byte, r.n)
		n, err := b.ReadAt(got, int64(r.off))
		if n != r.want || err != io.EOF {
			e.Errorf("ReadAt(%d bytes, %d), past the end: %d, %v, want %d, io.EOF", r.n, r.off, n, err, r.want)
		} else if n > 0 && !bytes.Equal(got[:n], blob[r.off:]) {
			e.Errorf("ReadAt(%d bytes, %d): wrong bytes", r.n, r.off)
		}
	}
	e.must(b.Close())

	unread, err := e.blobs().OpenBlob(e.ctx, oid, tid)
	e.must(err)
	e.must(unread.Close())
}

func testBlobNotFound(e *env) {
	e.blobs()
	oid, plain := e.oid(), e.oid()
	tid := e.storeBlob(oid, 0, []byte("blob"))
	other := e.store(plain, 0, Record("plain"))
	e.wantNoBlob(e.oid(), tid)
	e.wantNoBlob(plain, other)
	e.wantNoBlob(plain, tid)
	e.wantNoBlob(oid, other)
	e.wantNoBlob(oid, tid-1)
	e.wantNoBlob(oid, 0)
	e.wantNoBlob(oid, zeolite.MaxTID)
	e.wantNoBlob(1<<64-1, 1<<64-1)
	e.wantBlob(oid, tid, []byte("blob"))
}

func testBlobDiscard(e *env) {
	b := e.blobs()
	for _, complete := range []bool{false, true} {
		up, err := b.CreateBlob(e.ctx)
		e.must(err)
		if up.Size() != 0 {
			e.Errorf("a new upload has size %d", up.Size())
		}
		_, err = up.Write([]byte("some bytes"))
		e.must(err)
		if up.Size() != 10 {
			e.Errorf("after 10 bytes an upload has size %d", up.Size())
		}
		if complete {
			e.must(up.Complete())
		}
		e.must(up.Discard())
		e.must(up.Discard())
	}
	oid := e.oid()
	tid := e.storeBlob(oid, 0, []byte("goes on"))
	e.wantBlob(oid, tid, []byte("goes on"))
}

// The upload is the caller's until Finish succeeds.
func testBlobAbortKeepsUpload(e *env) {
	e.blobs()
	oid := e.oid()
	blob := noise(4, 70_000)
	up := e.upload(blob)
	for _, vote := range []bool{false, true, true} {
		tx := e.begin(zeolite.TxnMeta{})
		e.must(tx.StoreBlob(e.ctx, oid, 0, BlobRecord(), up))
		if vote {
			e.must(tx.Vote(e.ctx))
		}
		tx.Abort()
		e.wantGone(oid)
	}
	tid := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return tx.StoreBlob(e.ctx, oid, 0, BlobRecord(), up)
	})
	e.must(up.Discard())
	e.wantBlob(oid, tid, blob)
}

func testBlobConflict(e *env) {
	e.blobs()
	oid := e.oid()
	first := e.storeBlob(oid, 0, []byte("first"))
	second := e.storeBlob(oid, first, []byte("second"))
	up := e.upload([]byte("third"))
	err := e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return tx.StoreBlob(e.ctx, oid, first, BlobRecord(), up)
	})
	e.wantConflict(err, zeolite.ConflictError{OID: oid, Committed: second, Seen: first})
	third := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return tx.StoreBlob(e.ctx, oid, second, BlobRecord(), up)
	})
	e.wantBlob(oid, first, []byte("first"))
	e.wantBlob(oid, second, []byte("second"))
	e.wantBlob(oid, third, []byte("third"))
}

func testBlobLastStoreWins(e *env) {
	e.blobs()
	if e.h.Remote {
		e.doesNotApply("the order of blobs in a transaction is between the peers")
	}
	oids := e.oids(3)
	unused, used, dropped := e.upload([]byte("unused")), e.upload([]byte("used")), e.upload([]byte("dropped"))
	after := e.upload([]byte("after a record"))
	tid := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		return errors.Join(
			tx.StoreBlob(e.ctx, oids[0], 0, BlobRecord(), unused),
			tx.StoreBlob(e.ctx, oids[0], 0, BlobRecord(), used),
			tx.StoreBlob(e.ctx, oids[1], 0, BlobRecord(), dropped),
			tx.Store(e.ctx, oids[1], 0, Record("plain")),
			tx.Store(e.ctx, oids[2], 0, BlobRecord()),
			tx.StoreBlob(e.ctx, oids[2], 0, BlobRecord(), after),
		)
	})
	e.wantBlob(oids[0], tid, []byte("used"))
	e.wantNoBlob(oids[1], tid)
	e.wantCurrent(oids[1], Record("plain"), tid)
	e.wantBlob(oids[2], tid, []byte("after a record"))
	next := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { // replaced, so not consumed
		return tx.StoreBlob(e.ctx, oids[0], tid, BlobRecord(), unused)
	})
	e.wantBlob(oids[0], next, []byte("unused"))
	e.must(dropped.Discard())
	e.wantBlob(oids[0], tid, []byte("used"))
}

func testBlobSeveral(e *env) {
	e.blobs()
	oids := e.oids(10)
	ups := make([]zeolite.BlobUpload, len(oids))
	for i := range ups {
		ups[i] = e.upload(noise(uint64(i), 10*i))
	}
	tid := e.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		for i, oid := range oids {
			err := errors.Join(
				tx.StoreBlob(e.ctx, oid, 0, BlobRecord(), ups[i]),
				tx.Store(e.ctx, oid+1_000_000, 0, Record("between")),
			)
			if err != nil {
				return err
			}
		}
		return nil
	})
	for i, oid := range oids {
		e.wantBlob(oid, tid, noise(uint64(i), 10*i))
		e.wantNoBlob(oid+1_000_000, tid)
	}
}

func testBlobRestore(e *env) {
	e.blobs()
	oid := e.oid()
	one, two := e.upload([]byte("one")), e.upload([]byte("two"))
	first := e.commit(zeolite.TxnMeta{TID: at(1)}, func(tx zeolite.Txn) error {
		return tx.RestoreBlob(e.ctx, oid, BlobRecord(), 0, one)
	})
	second := e.commit(zeolite.TxnMeta{TID: at(2)}, func(tx zeolite.Txn) error {
		return tx.RestoreBlob(e.ctx, oid, BlobRecord(), first, two)
	})
	check := func() {
		e.wantCurrent(oid, BlobRecord(), second)
		e.wantBlob(oid, first, []byte("one"))
		e.wantBlob(oid, second, []byte("two"))
	}
	check()
	e.reopen()
	check()
}

func testBlobUndo(e *env) {
	e.blobs()
	e.needUndo()
	oid := e.oid()
	one, two := noise(5, 5000), noise(6, 600)
	first := e.storeBlob(oid, 0, one)
	second := e.storeBlob(oid, first, two)
	third := e.undo(second)
	fourth := e.undo(third)
	fifth := e.remove(oid, fourth)
	sixth := e.undo(fifth)
	check := func() {
		e.wantBlob(oid, first, one)
		e.wantBlob(oid, second, two)
		e.wantBlob(oid, third, one)
		e.wantBlob(oid, fourth, two)
		e.wantNoBlob(oid, fifth)
		e.wantBlob(oid, sixth, two)
		e.wantCurrent(oid, BlobRecord(), sixth)
	}
	check()
	e.reopen()
	check()

	created := e.oid()
	born := e.storeBlob(created, 0, one)
	unborn := e.undo(born)
	e.wantGone(created)
	e.wantNoBlob(created, unborn)
	e.wantBlob(created, born, one)
}

// All blobs have the same record, but they are not the same state.
func testBlobUndoConflict(e *env) {
	e.blobs()
	e.needUndo()
	oid := e.oid()
	first := e.storeBlob(oid, 0, []byte("one"))
	second := e.storeBlob(oid, first, []byte("two"))
	third := e.storeBlob(oid, second, []byte("three"))
	err := e.refused(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		_, err := tx.Undo(e.ctx, second)
		return err
	})
	e.wantUndoError(err, oid)
	e.wantBlob(oid, third, []byte("three"))
}

func testBlobNotVisibleBeforeFinish(e *env) {
	e.blobs()
	oid := e.oid()
	up := e.upload([]byte("blob"))
	tx := e.begin(zeolite.TxnMeta{TID: at(5)})
	e.must(tx.StoreBlob(e.ctx, oid, 0, BlobRecord(), up))
	e.must(tx.Vote(e.ctx))
	e.wantNoBlob(oid, at(5))
	tid, err := tx.Finish(e.ctx, nil)
	e.must(err)
	e.wantBlob(oid, tid, []byte("blob"))
}
