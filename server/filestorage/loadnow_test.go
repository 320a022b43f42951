package filestorage

import (
	"bytes"
	"errors"
	"runtime"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// TestLoadNow compares what LoadNow finds with what LoadBefore does, for every
// revision of objects of many sizes.
func TestLoadNow(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reading only what is in memory is known for Linux alone")
	}
	db := newDB(t, Options{})
	sizes := []int{1, 100, readGuess - recHdrLen - 1, readGuess - recHdrLen, readGuess, 10_000, 20_000 - recHdrLen, 20_000, 100_000}
	var serial zeolite.TID
	var tids []zeolite.TID
	for round := range 3 {
		tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
		if err != nil {
			t.Fatal(err)
		}
		for i, size := range sizes {
			if err := tx.Store(ctx, zeolite.OID(i), serial, bytes.Repeat([]byte{byte('a' + round)}, size)); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Vote(ctx); err != nil {
			t.Fatal(err)
		}
		if serial, err = tx.Finish(ctx, nil); err != nil {
			t.Fatal(err)
		}
		tids = append(tids, serial)
	}
	buf := make([]byte, 20_000)
	found := 0
	for i, size := range append(sizes, 1) {
		oid := zeolite.OID(i)
		for _, before := range append([]zeolite.TID{1, zeolite.MaxTID}, tids...) {
			want, err := db.s.LoadBefore(ctx, oid, before)
			rev, ok := db.s.LoadNow(oid, before, buf)
			if !ok {
				if err == nil && size+recHdrLen <= len(buf) {
					t.Errorf("%v before %v is in memory, but was not found", oid, before)
				}
				continue
			}
			found++
			if err != nil || rev.TID != want.TID || rev.End != want.End || !bytes.Equal(rev.Data, want.Data) {
				t.Errorf("%v before %v: got %v to %v, %d bytes; LoadBefore says %v to %v, %d bytes, %v", oid, before,
					rev.TID, rev.End, len(rev.Data), want.TID, want.End, len(want.Data), err)
			}
		}
	}
	if found == 0 {
		t.Error("nothing was found")
	}
	if n := testing.AllocsPerRun(100, func() { db.s.LoadNow(1, zeolite.MaxTID, buf) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	db.close()
	if _, ok := db.s.LoadNow(1, zeolite.MaxTID, buf); ok {
		t.Error("found something in a storage that is closed")
	}
	if _, err := db.s.LoadBefore(ctx, 1, zeolite.MaxTID); !errors.Is(err, zeolite.ErrClosed) {
		t.Errorf("LoadBefore of a storage that is closed: %v", err)
	}
	db.open()
}
