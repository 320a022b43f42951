package demostorage

import (
	"context"
	"errors"
	"iter"
	"path/filepath"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

func open(t *testing.T, base, changes zeolite.Storage) *Storage {
	t.Helper()
	s, err := New(base, changes, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func openFile(t *testing.T, dir string) zeolite.Storage {
	t.Helper()
	s, err := filestorage.Open(filepath.Join(dir, "Data.fs"), filestorage.Options{BlobDir: filepath.Join(dir, "blobs")})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openMemory(t *testing.T) zeolite.Storage {
	return memory.New(memory.Options{BlobDir: t.TempDir()})
}

// Over an empty base it is a storage like any other.
func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		return storagetest.Harness{Storage: open(t, openMemory(t), openMemory(t)), ConcurrentTxns: true}
	})
}

func TestConformanceFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite on files takes some seconds")
	}
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		base, changes := t.TempDir(), t.TempDir()
		reopen := func(t *testing.T) zeolite.Storage { return open(t, openFile(t, base), openFile(t, changes)) }
		return storagetest.Harness{Storage: reopen(t), Reopen: reopen, ConcurrentTxns: true}
	})
}

// Over a base with objects that the suite does not know it must behave the
// same, apart from packing, which pack_test.go tests.
func TestConformanceOverHistory(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		base := openMemory(t)
		serial := zeolite.ZeroTID
		for i := range 5 {
			serial = commit(t, base, at(i), func(tx zeolite.Txn) error {
				var errs []error
				for oid := hidden; oid < 3*hidden; oid += hidden / 2 {
					errs = append(errs, tx.Store(t.Context(), oid, serial, storagetest.Record("base")))
				}
				return errors.Join(errs...)
			})
		}
		return storagetest.Harness{Storage: unpacked{since{open(t, base, openMemory(t))}}, Lacks: []string{"pack"}, ConcurrentTxns: true}
	})
}

// unpacked has not what packs.
type unpacked struct{ storage }

type storage interface {
	zeolite.Storage
	zeolite.Undoer
	zeolite.BlobStorage
}

// hidden is the smallest object of the base that since does not show, the
// largest is less than three times that.
const hidden zeolite.OID = 1 << 50

// since shows what was committed after the base. It may be used by any number
// of goroutines.
type since struct{ *Storage }

func (s since) Info() zeolite.Info {
	info := s.Storage.Info()
	info.Pack = false
	return info
}

func (s since) LastTID() zeolite.TID {
	if tid := s.Storage.LastTID(); tid > s.baseLast {
		return tid
	}
	return zeolite.ZeroTID
}

func (s since) Transactions(ctx context.Context, start, stop zeolite.TID) iter.Seq2[*zeolite.TransactionRecord, error] {
	return s.Storage.Transactions(ctx, max(start, s.baseLast+1), stop)
}

func (s since) Changes(ctx context.Context, after zeolite.TID) iter.Seq2[zeolite.Change, error] {
	return s.Storage.Changes(ctx, max(after, s.baseLast))
}

func (s since) NextRecord(ctx context.Context, from zeolite.OID) (rec zeolite.CurrentRecord, err error) {
	shown := func(oid zeolite.OID) bool { return oid < hidden || oid%(hidden/2) != 0 || oid >= 3*hidden }
	for {
		if rec, err = s.Storage.NextRecord(ctx, from); err != nil {
			return rec, err
		}
		if shown(rec.OID) {
			break
		}
		if !rec.More {
			return rec, &zeolite.NotFoundError{OID: from}
		}
		from = rec.Next
	}
	for rec.More && !shown(rec.Next) {
		next, err := s.Storage.NextRecord(ctx, rec.Next)
		if err != nil {
			return rec, err
		}
		rec.Next, rec.More = next.Next, next.More
	}
	return rec, nil
}

// at is the moment n seconds after one that is long ago, but before those that
// the suite uses.
func at(n int) zeolite.TID {
	return zeolite.TIDFromTime(time.Date(2010, 10, 10, 0, 0, n, 0, time.UTC))
}

// commit commits what fill does. A zero tid leaves it to the storage.
func commit(t *testing.T, s zeolite.Storage, tid zeolite.TID, fill func(tx zeolite.Txn) error) zeolite.TID {
	t.Helper()
	tid, err := tryCommit(t, s, tid, fill)
	if err != nil {
		t.Fatal(err)
	}
	return tid
}

func tryCommit(t *testing.T, s zeolite.Storage, tid zeolite.TID, fill func(tx zeolite.Txn) error) (zeolite.TID, error) {
	t.Helper()
	tx, err := s.Begin(t.Context(), zeolite.TxnMeta{TID: tid, Description: []byte(t.Name())})
	if err != nil {
		return 0, err
	}
	defer tx.Abort()
	if err := fill(tx); err != nil {
		return 0, err
	}
	if err := tx.Vote(t.Context()); err != nil {
		return 0, err
	}
	return tx.Finish(t.Context(), nil)
}

// put commits one revision.
func put(t *testing.T, s zeolite.Storage, tid zeolite.TID, oid zeolite.OID, serial zeolite.TID, text string) zeolite.TID {
	t.Helper()
	return commit(t, s, tid, func(tx zeolite.Txn) error {
		return tx.Store(t.Context(), oid, serial, storagetest.Record(text))
	})
}
