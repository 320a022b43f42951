package client

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/filestorage"
)

// An undo that meets later revisions is merged by Options.Resolve. Without it
// the conflict has all that it takes to merge and to vote again.
func TestUndoResolves(t *testing.T) {
	for _, enc := range encodings {
		t.Run(enc.String(), func(t *testing.T) {
			noLeaks(t)
			back, err := filestorage.Open(filepath.Join(t.TempDir(), "Data.fs"), filestorage.Options{})
			must(t, err)
			t.Cleanup(func() { back.Close() })
			srv := serve(t, back, server.Options{Encoding: enc}, "tcp")
			var s *Storage
			calls := 0
			o := testOptions(t, srv.addr)
			o.Resolve = adding(&s, &calls)
			s = open(t, o)
			ctx := t.Context()

			first := put(t, s, 1, 0, "base+one")
			put(t, s, 2, 0, "other")
			second := put(t, s, 1, first, "base")
			third := put(t, s, 1, second, "base+three")
			begin := func() zeolite.Txn {
				tx, err := s.Begin(ctx, zeolite.TxnMeta{})
				must(t, err)
				_, err = tx.Undo(ctx, second)
				must(t, err)
				return tx
			}
			tx := begin()
			must(t, tx.Vote(ctx))
			fourth, err := tx.Finish(ctx, nil)
			must(t, err)
			wantCurrent(t, s, 1, fourth, "base+three+one")
			if calls != 1 {
				t.Errorf("Resolve was called %d times", calls)
			}

			s.opt.Resolve = nil
			tx = begin()
			var conflict *zeolite.ConflictError
			if err = tx.Vote(ctx); !errors.As(err, &conflict) {
				t.Fatalf("Vote: got error %v", err)
			}
			if conflict.OID != 1 || conflict.Committed != fourth || conflict.Seen != second || string(conflict.Data) != "base+one" {
				t.Errorf("conflict: got %+v", conflict)
			}
			must(t, tx.Store(ctx, 1, fourth, []byte("merged")))
			must(t, tx.Vote(ctx))
			fifth, err := tx.Finish(ctx, nil)
			must(t, err)
			other := open(t, testOptions(t, srv.addr))
			wantCurrent(t, other, 1, fifth, "merged")
			if data, err := other.LoadSerial(ctx, 1, third); err != nil || string(data) != "base+three" {
				t.Errorf("the revision before: %q, %v", data, err)
			}
		})
	}
}
