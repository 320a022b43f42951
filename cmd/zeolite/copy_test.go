package main

import (
	"context"
	"errors"
	"iter"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// TestCopyComparesTransactions: a copy whose transactions are described
// otherwise is not equal.
func TestCopyComparesTransactions(t *testing.T) {
	file := func(meta zeolite.TxnMeta) string {
		path := filepath.Join(t.TempDir(), "Data.fs")
		s, err := filestorage.Open(path, filestorage.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		meta.TID = zeolite.TIDFromTime(time.Unix(1e9, 0))
		txn, err := s.Begin(t.Context(), meta)
		if err != nil {
			t.Fatal(err)
		}
		defer txn.Abort()
		err = errors.Join(txn.Restore(t.Context(), 0, storagetest.Record("root"), 0), txn.Vote(t.Context()))
		if err == nil {
			_, err = txn.Finish(t.Context(), nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	meta := zeolite.TxnMeta{Extension: []byte("}.")}
	original := file(meta)
	for _, test := range []struct {
		meta zeolite.TxnMeta
		want string
	}{
		{meta, ""},
		{zeolite.TxnMeta{}, "extension"},
		{zeolite.TxnMeta{Extension: meta.Extension, Status: 'p'}, "status"},
		{zeolite.TxnMeta{Extension: meta.Extension, User: []byte("me")}, "user"},
	} {
		err := copyCommand([]string{original, file(test.meta)})
		if (err == nil) != (test.want == "") || (err != nil && !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%+v: %v, want %q", test.meta, err, test.want)
		}
	}
}

// breaking is a storage that cannot tell whether there are more transactions.
type breaking struct{ *filestorage.Storage }

var errBreaks = errors.New("the disk broke")

func (s breaking) Transactions(ctx context.Context, start, stop zeolite.TID) iter.Seq2[*zeolite.TransactionRecord, error] {
	return func(yield func(*zeolite.TransactionRecord, error) bool) {
		for txn, err := range s.Storage.Transactions(ctx, start, stop) {
			if !yield(txn, err) {
				return
			}
		}
		yield(nil, errBreaks)
	}
}

// TestCopyCannotCompare: what cannot be compared to its end is not equal.
func TestCopyCannotCompare(t *testing.T) {
	dir, _ := sample(t, 2)
	s := openFile(t, dir)
	defer s.Close()
	c := &copier{from: s, to: breaking{s}, bar: newProgress()}
	if _, err := c.verify(t.Context(), s.LastTID()); !errors.Is(err, errBreaks) {
		t.Errorf("verify: %v", err)
	}
}
