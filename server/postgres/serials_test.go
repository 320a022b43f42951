package postgres

import (
	"bytes"
	"errors"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// What was loaded before is answered from memory, as long as it is current, and
// nothing else is.
func TestLoadsFromMemory(t *testing.T) {
	dsn := pgtest.Database(t)
	s, other := storage(t, Options{DSN: dsn}), storage(t, Options{DSN: dsn})
	ctx := t.Context()
	load := func(want string, before zeolite.TID, hits int64) zeolite.Revision {
		t.Helper()
		from := s.Stats().CacheHits
		rev, err := s.LoadBefore(ctx, 1, before)
		if err != nil || !bytes.Equal(rev.Data, storagetest.Record(want)) {
			t.Fatalf("loaded %q, %v; want %q", rev.Data, err, want)
		}
		if n := s.Stats().CacheHits - from; n != hits {
			t.Errorf("%q: %d loads from memory, want %d", want, n, hits)
		}
		return rev
	}
	first := put(t, s, store(ctx, 1, 0, "first"))
	load("first", zeolite.MaxTID, 0)
	for range 2 {
		rev := load("first", zeolite.MaxTID, 1)
		clear(rev.Data) // it is the caller's
	}
	buf := make([]byte, 1000)
	if rev, ok := s.LoadNow(1, first+1, buf); !ok || rev.TID != first || rev.End != 0 || &rev.Data[0] != &buf[0] {
		t.Errorf("LoadNow: %v, %v", rev, ok)
	}
	for _, no := range []struct {
		oid    zeolite.OID
		before zeolite.TID
		room   int
	}{{1, first, 1000}, {1, zeolite.MaxTID, 3}, {2, zeolite.MaxTID, 1000}} {
		if rev, ok := s.LoadNow(no.oid, no.before, buf[:no.room]); ok {
			t.Errorf("LoadNow(%v): %v", no, rev)
		}
	}
	if _, err := s.LoadBefore(ctx, 1, first); !errors.Is(err, zeolite.ErrNotYet) {
		t.Errorf("before it was there: %v", err)
	}
	// Three loads were hits, one of them of LoadNow. The others were not found in
	// memory by LoadBefore, which counts.
	if st := s.Stats(); st.CacheHits != 3 || st.CacheMisses != 2 {
		t.Errorf("%d hits and %d misses were counted", st.CacheHits, st.CacheMisses)
	}

	// Another server's commit, before it is heard of and after.
	second := put(t, other, store(ctx, 1, first, "second"))
	if err := s.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	if rev := load("second", zeolite.MaxTID, 0); rev.TID != second {
		t.Errorf("loaded %v", rev)
	}
	load("second", second+1, 1)
	if rev := load("first", second, 0); rev.End != second {
		t.Errorf("the first ends at %v", rev.End)
	}
	// What a transaction has not finished is not there; then it is.
	tx := votedOn(t, s, store(ctx, 1, second, "third"))
	load("second", zeolite.MaxTID, 1)
	finish(t, tx)
	load("third", zeolite.MaxTID, 0)
	load("third", zeolite.MaxTID, 1)

	// A deletion, and a pack.
	put(t, s, func(tx zeolite.Txn) error {
		return errors.Join(tx.Delete(ctx, 1, s.LastTID()), tx.Store(ctx, 0, 0, storagetest.Record("root")), tx.Store(ctx, 3, 0, storagetest.Record("garbage")))
	})
	for range 2 {
		if _, err := s.LoadBefore(ctx, 1, zeolite.MaxTID); !errors.As(err, new(*zeolite.NotFoundError)) {
			t.Errorf("a deleted object: %v", err)
		}
		if _, err := s.LoadBefore(ctx, 3, zeolite.MaxTID); err != nil {
			t.Error(err)
		}
	}
	if err := s.Pack(ctx, zeolite.MaxTID, zeolite.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	if rev, err := s.LoadBefore(ctx, 3, zeolite.MaxTID); !errors.As(err, new(*zeolite.NotFoundError)) {
		t.Errorf("garbage after a pack: %v, %v", rev, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.LoadBefore(ctx, 0, zeolite.MaxTID); !errors.Is(err, zeolite.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// The memory keeps to its limit, and to what is used.
func TestMemoryOfLoads(t *testing.T) {
	const limit = 100_000
	k := &serials{limit: limit}
	p := &publisher{}
	size := func() (n int) {
		for _, m := range []map[zeolite.OID]known{k.young, k.old} {
			for _, what := range m {
				n += len(what.data)
			}
		}
		return n
	}
	for oid := range zeolite.OID(1000) {
		k.loaded(oid, zeolite.Revision{TID: 1, Data: make([]byte, 100+int(oid)%900)}, 0, p)
		if _, ok := k.load(0, 2); !ok {
			t.Fatalf("what is used all the time was dropped at %v", oid)
		}
		if n := size(); n > limit+2000 {
			t.Fatalf("%d bytes are kept", n)
		}
	}
	if size() < limit/4 {
		t.Errorf("only %d bytes are kept", size())
	}
	// A record that is too large is not kept, but its serial is; without room
	// that is so for all.
	for _, k := range []*serials{k, {}} {
		for oid := range zeolite.OID(10) {
			k.loaded(5000+oid, zeolite.Revision{TID: 1, Data: make([]byte, limit/4)}, 0, p)
		}
		for oid := range zeolite.OID(10) {
			if what, ok := k.get(5000 + oid); !ok || what.tid != 1 || what.data != nil {
				t.Errorf("%v: %v, %v", oid, what.tid, ok)
			}
		}
	}
	// What was loaded at another horizon is not believed.
	k.loaded(9000, zeolite.Revision{TID: 1, Data: []byte("old")}, 7, p)
	if _, ok := k.get(9000); ok {
		t.Error("a revision of another horizon is kept")
	}
}
