package storagetest_test

import (
	"context"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// The suite must also hold for storages that learn with Vote only what is
// wrong with a transaction. Here is one without a network.
func TestRemote(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		return storagetest.Harness{
			Storage: late{memory.New(memory.Options{BlobDir: t.TempDir()})},
			Remote:  true,
		}
	})
}

// late is a storage whose transactions replay all calls in Vote.
type late struct{ *memory.Storage }

func (s late) Begin(ctx context.Context, meta zeolite.TxnMeta) (zeolite.Txn, error) {
	tx, err := s.Storage.Begin(ctx, meta)
	if err != nil {
		return nil, err
	}
	return &lateTxn{Txn: tx}, nil
}

// lateTxn is used by one goroutine at a time.
type lateTxn struct {
	zeolite.Txn
	calls []func(ctx context.Context) error
	ended bool // by Vote or Abort
}

func (t *lateTxn) queue(call func(ctx context.Context) error) error {
	if t.ended {
		return &zeolite.TransactionError{Message: "the transaction is not open"}
	}
	t.calls = append(t.calls, call)
	return nil
}

func (t *lateTxn) Store(_ context.Context, oid zeolite.OID, serial zeolite.TID, data []byte) error {
	return t.queue(func(ctx context.Context) error { return t.Txn.Store(ctx, oid, serial, data) })
}

func (t *lateTxn) StoreBlob(_ context.Context, oid zeolite.OID, serial zeolite.TID, data []byte, blob zeolite.BlobUpload) error {
	return t.queue(func(ctx context.Context) error { return t.Txn.StoreBlob(ctx, oid, serial, data, blob) })
}

func (t *lateTxn) Delete(_ context.Context, oid zeolite.OID, serial zeolite.TID) error {
	return t.queue(func(ctx context.Context) error { return t.Txn.Delete(ctx, oid, serial) })
}

func (t *lateTxn) CheckCurrent(_ context.Context, oid zeolite.OID, serial zeolite.TID) error {
	return t.queue(func(ctx context.Context) error { return t.Txn.CheckCurrent(ctx, oid, serial) })
}

func (t *lateTxn) Restore(_ context.Context, oid zeolite.OID, data []byte, prev zeolite.TID) error {
	return t.queue(func(ctx context.Context) error { return t.Txn.Restore(ctx, oid, data, prev) })
}

func (t *lateTxn) RestoreBlob(_ context.Context, oid zeolite.OID, data []byte, prev zeolite.TID, blob zeolite.BlobUpload) error {
	return t.queue(func(ctx context.Context) error { return t.Txn.RestoreBlob(ctx, oid, data, prev, blob) })
}

func (t *lateTxn) Undo(_ context.Context, tid zeolite.TID) ([]zeolite.OID, error) {
	return nil, t.queue(func(ctx context.Context) error {
		_, err := t.Txn.Undo(ctx, tid)
		return err
	})
}

func (t *lateTxn) Vote(ctx context.Context) error {
	t.ended = true
	for _, call := range t.calls {
		if err := call(ctx); err != nil {
			return err
		}
	}
	return t.Txn.Vote(ctx)
}

func (t *lateTxn) Abort() {
	t.ended = true
	t.Txn.Abort()
}
