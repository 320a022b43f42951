package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// manyBlobs commits a root and one object with n revisions, each with a blob of
// its own.
func manyBlobs(t *testing.T, s *Storage, n int) (last zeolite.TID) {
	t.Helper()
	put(t, s, func(tx zeolite.Txn) error { return tx.Store(t.Context(), 0, 0, storagetest.Record("root", 1)) })
	for i := range n {
		up := uploaded(t, s, []byte(fmt.Sprint(i)))
		last = put(t, s, func(tx zeolite.Txn) error {
			return tx.StoreBlob(t.Context(), 1, last, storagetest.BlobRecord(), up)
		})
	}
	return last
}

// Removing blobs takes a lock for each; a pack must not need more than there
// are, whatever it removes.
func TestPackOfManyBlobs(t *testing.T) {
	c := pgtest.Start(t, pgtest.Options{Settings: []string{"max_locks_per_transaction=10", "max_connections=30"}})
	dsn := c.Database(t)
	s, a := storage(t, Options{DSN: dsn}), newAdmin(t, dsn)
	// More large objects than the table of locks has places, without the
	// work of committing them one by one.
	const n = 5000
	last := manyBlobs(t, s, 1)
	a.exec("INSERT INTO transaction (tid, username, description) SELECT n, '', '' FROM generate_series(1, $1::bigint) n", n)
	a.exec("INSERT INTO object_state SELECT 1, n, 0, '', 1, 'x' FROM generate_series(1, $1::bigint) n", n)
	for i := range n / 500 {
		a.exec("INSERT INTO blob_chunk SELECT 1, n, 0, lo_create(0) FROM generate_series($1::bigint + 1, $1::bigint + 500) n", i*500)
	}
	var phases []string
	no := false
	err := s.Pack(t.Context(), last, zeolite.PackOptions{GC: &no, Progress: func(p zeolite.PackProgress) {
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(phases) != 3 {
		t.Errorf("progress was told of the phases %q", phases)
	}
	if n := a.number("SELECT count(*) FROM pg_largeobject_metadata"); n != 1 {
		t.Errorf("%d large objects are left, want 1", n)
	}
	if n := a.number("SELECT count(*) FROM transaction"); n != 3 {
		t.Errorf("%d transactions are left, want 3", n)
	}
	b := openBlob(t, s, 1, last)
	defer b.Close()
	if got, err := readAll(b, 10); err != nil || string(got) != "0" {
		t.Errorf("the blob that stays: %q, %v", got, err)
	}
}

// A pack whose connection ends at any moment has removed nothing that is
// needed; the next one finishes the work.
func TestPackEndsInBetween(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := storage(t, Options{DSN: dsn}), newAdmin(t, dsn)
	last := manyBlobs(t, s, 30)
	garbage := put(t, s, func(tx zeolite.Txn) error { return tx.Store(t.Context(), 50, 0, storagetest.Record("garbage")) })
	for phase := range 4 {
		calls := 0
		err := s.Pack(t.Context(), garbage, zeolite.PackOptions{Progress: func(p zeolite.PackProgress) {
			if calls++; calls == phase+1 {
				a.kill(appPack)
			}
		}})
		if !errors.As(err, new(*zeolite.StorageError)) {
			t.Errorf("phase %d: a pack without connection: %v", phase, err)
		}
		b := openBlob(t, s, 1, last)
		if got, err := readAll(b, 10); err != nil || string(got) != "29" {
			t.Errorf("phase %d: the current blob: %q, %v", phase, got, err)
		}
		b.Close()
		if _, err := s.LoadBefore(t.Context(), 0, zeolite.MaxTID); err != nil {
			t.Errorf("phase %d: the root: %v", phase, err)
		}
		eventually(t, "the lock of the pack is gone", func() bool {
			return a.number("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid::bigint = 4294967294") == 0
		})
	}
	if err := s.Pack(t.Context(), garbage, zeolite.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := a.number("SELECT count(*) FROM object_state"); n != 2 {
		t.Errorf("%d revisions are left, want 2", n)
	}
	if n := a.number("SELECT count(*) FROM pg_largeobject_metadata"); n != 1 {
		t.Errorf("%d large objects are left, want 1", n)
	}
}

// While a transaction undoes another, no pack may take what it needs, and the
// other way round.
func TestPackAndUndo(t *testing.T) {
	dsn := pgtest.Database(t)
	s, other := storage(t, Options{DSN: dsn}), storage(t, Options{DSN: dsn})
	last := manyBlobs(t, s, 3)
	undoing, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := undoing.Undo(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if err := undoing.Vote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := other.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := other.Pack(t.Context(), last, zeolite.PackOptions{}); err == nil {
		t.Error("packed under an undo")
	}
	undoing.Abort()

	late, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	if err != nil {
		t.Fatal(err)
	}
	defer late.Abort()
	if _, err := late.Undo(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	var during error
	err = other.Pack(t.Context(), last, zeolite.PackOptions{Progress: func(zeolite.PackProgress) {
		if during == nil {
			during = late.Vote(t.Context())
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !errors.As(during, new(*zeolite.UndoError)) {
		t.Errorf("voted on an undo during a pack: %v", during)
	}
	if err := late.Vote(t.Context()); !errors.As(err, new(*zeolite.UndoError)) {
		t.Errorf("voted on the undo of a packed transaction: %v", err)
	}
}

// One pack at a time, over all servers; and it ends with its context.
func TestPackAlone(t *testing.T) {
	dsn := pgtest.Database(t)
	s, other := storage(t, Options{DSN: dsn}), storage(t, Options{DSN: dsn})
	last := manyBlobs(t, s, 2)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Pack(ctx, last, zeolite.PackOptions{Progress: func(zeolite.PackProgress) {
		if ctx.Err() != nil {
			return
		}
		if err := other.CatchUp(t.Context()); err != nil {
			t.Error(err)
		}
		if err := other.Pack(t.Context(), last, zeolite.PackOptions{}); err == nil {
			t.Error("two packs at once")
		}
		cancel()
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Pack: %v, want context.Canceled", err)
	}
}

// What is linked again while a pack runs is kept.
func TestPackKeepsWhatIsRelinkedMeanwhile(t *testing.T) {
	s := storage(t, Options{DSN: pgtest.Database(t)})
	ctx := t.Context()
	first := put(t, s, func(tx zeolite.Txn) error {
		return errors.Join(tx.Store(ctx, 0, 0, storagetest.Record("root", 1)), tx.Store(ctx, 1, 0, storagetest.Record("1")),
			tx.Store(ctx, 2, 0, storagetest.Record("2", 3)), tx.Store(ctx, 3, 0, storagetest.Record("3")), tx.Store(ctx, 4, 0, storagetest.Record("4")))
	})
	linked, looked := false, int64(0)
	s.batches.report = 0
	err := s.Pack(ctx, first, zeolite.PackOptions{Progress: func(p zeolite.PackProgress) {
		if p.Phase == "sweep" {
			looked = p.Done
		}
		if p.Phase == "sweep" && !linked {
			linked = true
			put(t, s, func(tx zeolite.Txn) error { return tx.Store(ctx, 0, first, storagetest.Record("root", 1, 2)) })
		}
	}})
	if err != nil || !linked {
		t.Fatal(err, linked)
	}
	if looked != 5 {
		t.Errorf("progress was told of %d revisions, want 5", looked)
	}
	for oid, want := range map[zeolite.OID]bool{0: true, 1: true, 2: true, 3: true, 4: false} {
		if _, err := s.LoadBefore(ctx, oid, zeolite.MaxTID); (err == nil) != want {
			t.Errorf("object %v: %v", oid, err)
		}
	}
}

// A pack removes blobs in small parts: whoever commits may have to wait for one of
// them, but not for all.
func TestPackOfLargeBlobs(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := storage(t, Options{DSN: dsn}), newAdmin(t, dsn)
	s.batches.blobs = 3500
	put(t, s, func(tx zeolite.Txn) error { return tx.Store(t.Context(), 0, 0, storagetest.Record("root")) })
	for oid, size := range []int{1000, 1000, 1000, 9000, 1000, 0, 1000, 2000, 0, 3500} {
		putBlob(t, s, zeolite.OID(1+oid), noise(size))
	}
	a.exec("CREATE TABLE removed (txid bigint, zoid bigint)")
	a.exec(`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN INSERT INTO removed VALUES (txid_current(), OLD.zoid); RETURN NULL; END'`)
	a.exec("CREATE TRIGGER note AFTER DELETE ON blob_chunk FOR EACH ROW EXECUTE FUNCTION note()")
	if err := s.Pack(t.Context(), zeolite.MaxTID, zeolite.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	got := pgtest.Shared(t).Query(t, dsn, "SELECT string_agg(zoid::text, ' ' ORDER BY zoid) FROM removed GROUP BY txid ORDER BY min(zoid)")
	if want := []string{"1 2 3", "4", "5 6 7", "8 9", "10"}; !slices.Equal(got, want) {
		t.Errorf("blobs were removed together: %q, want %q", got, want)
	}
	if n := a.number("SELECT count(*) FROM pg_largeobject_metadata"); n != 0 {
		t.Errorf("%d large objects are left", n)
	}
}
