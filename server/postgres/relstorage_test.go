package postgres

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"slices"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/references"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/peers"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// relstorage is Python's RelStorage on a database, in a process of its own. It
// is used by one goroutine.
type relstorage struct {
	*peers.Dialogue
	t *testing.T
}

func startRelStorage(t *testing.T, dsn string) relstorage {
	t.Helper()
	python := peers.Python(t)
	if out, err := exec.Command(python, "-c", "import relstorage, psycopg2").CombinedOutput(); err != nil {
		peers.Missing(t, "%s has no RelStorage: %v\n%s", python, err, out)
	}
	return relstorage{peers.StartDialogue(t, "testdata/peer.py", dsn, t.TempDir()), t}
}

// tid has RelStorage do something that commits.
func (r relstorage) tid(args ...any) zeolite.TID {
	r.t.Helper()
	var text string
	r.Call(&text, args...)
	tid, err := zeolite.ParseTID(text)
	if err != nil {
		r.t.Fatalf("%v: %v", args, err)
	}
	return tid
}

func digest(data []byte) any {
	if data == nil {
		return nil
	}
	sum := md5.Sum(data)
	return hex.EncodeToString(sum[:])
}

// dump is all there is in a storage, as dump in testdata/peer.py has it.
func dump(t *testing.T, s *Storage) map[string]any {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.CatchUp(t.Context()))
	transactions, blobs := []any{}, map[string]any{}
	current, history := map[string]any{}, map[string]any{}
	for txn, err := range s.Transactions(t.Context(), 0, zeolite.MaxTID) {
		must(err)
		records := []any{}
		for r, err := range txn.Records {
			must(err)
			records = append(records, []any{float64(r.OID), digest(r.Data)})
			name := fmt.Sprint(uint64(r.OID))
			if r.Data != nil && references.IsBlob(r.Data) {
				b := openBlob(t, s, r.OID, txn.TID)
				data, err := readAll(b, 1<<20)
				must(err)
				must(b.Close())
				blobs[fmt.Sprintf("%s@%v", name, txn.TID)] = digest(append([]byte{}, data...))
			}
			rev, err := s.LoadBefore(t.Context(), r.OID, zeolite.MaxTID)
			if errors.As(err, new(*zeolite.NotFoundError)) {
				current[name] = nil
			} else {
				must(err)
				current[name] = []any{rev.TID.String(), digest(rev.Data)}
			}
			infos, err := s.History(t.Context(), r.OID, 1000)
			must(err)
			list := []any{}
			for _, info := range infos {
				if info.Status == ' ' { // RelStorage leaves out what is packed
					list = append(list, []any{info.TID.String(), float64(info.Size)})
				}
			}
			history[name] = list
		}
		slices.SortFunc(records, func(a, b any) int {
			return int(a.([]any)[0].(float64) - b.([]any)[0].(float64))
		})
		transactions = append(transactions, []any{txn.TID.String(), string(txn.Status), string(txn.User), string(txn.Description), records})
	}
	return map[string]any{"transactions": transactions, "current": current, "history": history, "blobs": blobs}
}

// wantSame checks that both programs find the same in the database.
func wantSame(t *testing.T, s *Storage, r relstorage) {
	t.Helper()
	var theirs map[string]any
	r.Call(&theirs, "dump")
	ours := dump(t, s)
	for key := range ours {
		if !reflect.DeepEqual(ours[key], theirs[key]) {
			t.Errorf("%s:\nzeolite:    %v\nRelStorage: %v", key, ours[key], theirs[key])
		}
	}
}

// ZODB wants its root to be a PersistentMapping with a dictionary of this form.
func rootRecord(refs ...zeolite.OID) []byte { return storagetest.Record("root", refs...) }

// RelStorage opens what we wrote, of every kind, and goes on with it.
func TestRelStorageOpensOurs(t *testing.T) {
	dsn := pgtest.Database(t)
	s := storage(t, Options{DSN: dsn})
	w := watch(t, s)
	oids, err := s.NewOIDs(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	first := put(t, s, func(tx zeolite.Txn) error {
		return errors.Join(tx.Store(ctx, 0, 0, rootRecord(oids...)), tx.Store(ctx, oids[0], 0, storagetest.Record("a")),
			tx.Store(ctx, oids[1], 0, storagetest.Record("b")))
	})
	blobs := []zeolite.BlobUpload{uploaded(t, s, noise(3<<20)), uploaded(t, s, nil)}
	second := put(t, s, func(tx zeolite.Txn) error { return tx.StoreBlob(ctx, oids[2], 0, storagetest.BlobRecord(), blobs[0]) })
	third := put(t, s, func(tx zeolite.Txn) error {
		return errors.Join(tx.StoreBlob(ctx, oids[2], second, storagetest.BlobRecord(), blobs[1]),
			tx.Store(ctx, oids[0], first, storagetest.Record("a2")), tx.Delete(ctx, oids[1], first))
	})
	put(t, s, func(tx zeolite.Txn) error {
		_, err := tx.Undo(ctx, third)
		return err
	})
	meta := zeolite.TxnMeta{User: []byte("jürgen"), Description: []byte("größe")}
	tx, err := s.Begin(ctx, meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Store(ctx, 77777, 0, storagetest.Record("chose its own oid")); err != nil {
		t.Fatal(err)
	}
	if err := tx.Vote(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Finish(ctx, nil); err != nil {
		t.Fatal(err)
	}
	r := startRelStorage(t, dsn)
	wantSame(t, s, r)
	// It makes a second root of its own form, and more, over ours.
	last := r.tid("set", "key", "value")
	eventually(t, "the commit of RelStorage is published", func() bool { return w.LastTID() >= last })
	if w.count() == 0 {
		t.Error("nothing was published to Watch")
	}
	r.tid("blob", "blob", 100_000)
	wantSame(t, s, r)
	// Its large objects and ours go when their revisions do.
	a := newAdmin(t, dsn)
	large := a.number("SELECT count(*) FROM pg_largeobject_metadata")
	yes := true
	if err := s.Pack(ctx, zeolite.MaxTID, zeolite.PackOptions{GC: &yes}); err != nil {
		t.Fatal(err)
	}
	if now := a.number("SELECT count(*) FROM pg_largeobject_metadata"); now >= large {
		t.Errorf("%d large objects after the pack, %d before", now, large)
	}
	wantSame(t, s, r)
}

// We open what RelStorage wrote, and both go on together.
func TestWeOpenRelStorages(t *testing.T) {
	dsn := pgtest.Database(t)
	r := startRelStorage(t, dsn)
	last := r.tid("fill")
	s := storage(t, Options{DSN: dsn})
	if now := s.LastTID(); now != last {
		t.Errorf("LastTID is %v, want %v", now, last)
	}
	wantSame(t, s, r)
	a := newAdmin(t, dsn)
	if n := a.number("SELECT count(*) FROM blob_chunk"); n != 2 {
		t.Errorf("%d blobs", n)
	}

	// Undo of theirs by us, and of ours by them, is the same.
	put(t, s, func(tx zeolite.Txn) error {
		_, err := tx.Undo(t.Context(), last)
		return err
	})
	wantSame(t, s, r)

	// A conflict between the two: each finds out about the other.
	serial, err := s.CurrentTID(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	rev, err := s.LoadBefore(t.Context(), 0, zeolite.MaxTID)
	if err != nil {
		t.Fatal(err)
	}
	again := func(tx zeolite.Txn) error { return tx.Store(t.Context(), 0, serial, rev.Data) }
	r.Call(nil, "begin", "key", "theirs")
	serial = put(t, s, again)
	var outcome string
	if r.Call(&outcome, "finish"); outcome != "conflict" {
		t.Errorf("RelStorage committed over us: %s", outcome)
	}
	theirs := r.tid("set", "key", "theirs")
	var conflict *zeolite.ConflictError
	if _, err := tryPut(t.Context(), s, nil, again); !errors.As(err, &conflict) || conflict.Committed != theirs {
		t.Errorf("we committed over RelStorage: %v", err)
	}
	if now := s.LastTID(); now != theirs {
		t.Errorf("who has a conflict with %v cannot see it: LastTID is %v", theirs, now)
	}

	// New oids of both are different.
	oids, err := s.NewOIDs(t.Context(), 40)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		r.tid("blob", fmt.Sprint("blob", i), 10+i)
	}
	for _, oid := range oids {
		if n := a.number("SELECT count(*) FROM object_state WHERE zoid = $1", int64(oid)); n != 0 {
			t.Errorf("RelStorage took %v, which is ours", oid)
		}
	}

	// Both pack, and find the same after it.
	r.Call(nil, "pack")
	wantSame(t, s, r)
	r.tid("set", "key", "after the pack")
	if err := s.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Pack(t.Context(), zeolite.MaxTID, zeolite.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	wantSame(t, s, r)
	r.tid("set", "key", "after our pack")
	r.Call(nil, "pack")
	wantSame(t, s, r)
	var n int
	if r.Call(&n, "read_blob", "blob2"); n != 12 {
		t.Errorf("a blob has %d bytes", n)
	}
}
