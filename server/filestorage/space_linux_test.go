package filestorage

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// What was reserved for large transactions is given back when they were aborted and
// nobody needs it, and the guard stays.
func TestSpaceIsGivenBack(t *testing.T) {
	for _, without := range []bool{true, false} {
		t.Run(fmt.Sprintf("without log %v", without), func(t *testing.T) {
			db := newDB(t, Options{WithoutLog: without})
			first := db.store(1, 0, "first")
			sp := &db.s.space
			allocated := func() int64 {
				sp.mu.Lock()
				defer sp.mu.Unlock()
				return sp.allocated - sp.end
			}
			large := func() {
				db.must(sp.reserve(2*spareMax, 0))
				if allocated() < 2*spareMax {
					t.Fatalf("only %d bytes are allocated", allocated())
				}
			}
			large()
			tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
			db.must(err)
			db.must(tx.Store(ctx, 1, first, []byte("second")))
			db.must(tx.Vote(ctx))
			sp.release(2 * spareMax)
			if allocated() < 2*spareMax {
				t.Error("space was given back that a transaction needs")
			}
			_, err = tx.Finish(ctx, nil)
			db.must(err)
			for allocated() > spareMax {
				runtime.Gosched()
			}
			large()
			sp.release(2 * spareMax)
			for allocated() > spareMax {
				runtime.Gosched()
			}
			db.s.committer.lock <- struct{}{}
			st, err := os.Stat(db.path)
			db.must(err)
			want := sp.endNow()
			if without {
				want += guardLen
				if db.s.guardAt != sp.endNow() {
					t.Errorf("the guard is at %d, want it at %d", db.s.guardAt, sp.endNow())
				}
			}
			if st.Size() != want {
				t.Errorf("Data.fs has %d bytes, want %d", st.Size(), want)
			}
			if blocks := st.Sys().(*syscall.Stat_t).Blocks * 512; blocks > 1<<20 {
				t.Errorf("Data.fs takes %d bytes of disk space", blocks)
			}
			<-db.s.committer.lock
			db.store(2, 0, "third")
			db.reopen()
			db.wantLoad(1, zeolite.MaxTID, "second")
			db.wantLoad(2, zeolite.MaxTID, "third")
		})
	}
}
