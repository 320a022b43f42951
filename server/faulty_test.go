package server

import (
	"context"
	"errors"
	"iter"
	"sync"
	"syscall"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// faultyStorage is a storage with every ability, whose calls a test can make
// fail or wait. Hooks are called before the storage is; an error replaces its
// answer. It is safe for concurrent use.
type faultyStorage struct {
	fullStorage
	mu    sync.Mutex
	hooks map[string]func(context.Context) error
}

// fullStorage is what the back ends of these tests can do.
type fullStorage interface {
	zeolite.Storage
	zeolite.Undoer
	zeolite.Packer
	zeolite.BlobStorage
}

// errDiskFull is what a full disk says.
var errDiskFull = &zeolite.StorageError{Message: "cannot write", Err: syscall.ENOSPC}

func newFaulty(s zeolite.Storage) *faultyStorage {
	return &faultyStorage{fullStorage: s.(fullStorage), hooks: map[string]func(context.Context) error{}}
}

// on sets the hook of an operation: "load", "serial", "newoids", "changes",
// "undolog", "begin", "store", "storeblob", "vote", "finish", "createblob",
// "writeblob", "completeblob", "openblob", "pack". A nil hook removes it.
func (f *faultyStorage) on(op string, hook func(context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hooks[op] = hook
}

// fails makes an operation fail with an error.
func (f *faultyStorage) fails(op string, err error) {
	f.on(op, func(context.Context) error { return err })
}

// blocks makes an operation wait until release is called, which the end of the
// test does at the latest, or its context ends. waiting gets a value from each
// that waits.
func (f *faultyStorage) blocks(t testing.TB, op string) (release func(), waiting <-chan struct{}) {
	gate, arrived := make(chan struct{}), make(chan struct{}, 1000)
	release = sync.OnceFunc(func() {
		f.on(op, nil)
		close(gate)
	})
	t.Cleanup(release)
	f.on(op, func(ctx context.Context) error {
		arrived <- struct{}{}
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	return release, arrived
}

// VoteNow implements zeolite.QuickCommitter: a vote may wait.
func (f *faultyStorage) VoteNow([]zeolite.OID, int) bool { return false }

// FinishNow implements zeolite.QuickCommitter: what waits nevertheless is a disk
// that has been quick so far.
func (f *faultyStorage) FinishNow(map[zeolite.OID]zeolite.BlobUpload) bool { return true }

func (f *faultyStorage) hook(ctx context.Context, op string) error {
	f.mu.Lock()
	hook := f.hooks[op]
	f.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(ctx)
}

func (f *faultyStorage) LoadBefore(ctx context.Context, oid zeolite.OID, before zeolite.TID) (zeolite.Revision, error) {
	if err := f.hook(ctx, "load"); err != nil {
		return zeolite.Revision{}, err
	}
	return f.fullStorage.LoadBefore(ctx, oid, before)
}

func (f *faultyStorage) LoadSerial(ctx context.Context, oid zeolite.OID, tid zeolite.TID) ([]byte, error) {
	if err := f.hook(ctx, "serial"); err != nil {
		return nil, err
	}
	return f.fullStorage.LoadSerial(ctx, oid, tid)
}

func (f *faultyStorage) NewOIDs(ctx context.Context, n int) ([]zeolite.OID, error) {
	if err := f.hook(ctx, "newoids"); err != nil {
		return nil, err
	}
	return f.fullStorage.NewOIDs(ctx, n)
}

func (f *faultyStorage) Changes(ctx context.Context, since zeolite.TID) iter.Seq2[zeolite.Change, error] {
	if err := f.hook(ctx, "changes"); err != nil {
		return func(yield func(zeolite.Change, error) bool) { yield(zeolite.Change{}, err) }
	}
	return f.fullStorage.Changes(ctx, since)
}

func (f *faultyStorage) UndoLog(ctx context.Context) iter.Seq2[*zeolite.TransactionInfo, error] {
	if err := f.hook(ctx, "undolog"); err != nil {
		return func(yield func(*zeolite.TransactionInfo, error) bool) { yield(nil, err) }
	}
	return f.fullStorage.UndoLog(ctx)
}

func (f *faultyStorage) Begin(ctx context.Context, meta zeolite.TxnMeta) (zeolite.Txn, error) {
	if err := f.hook(ctx, "begin"); err != nil {
		return nil, err
	}
	txn, err := f.fullStorage.Begin(ctx, meta)
	if err != nil {
		return nil, err
	}
	return &faultyTxn{txn, f}, nil
}

func (f *faultyStorage) Pack(ctx context.Context, tid zeolite.TID, opts zeolite.PackOptions) error {
	if err := f.hook(ctx, "pack"); err != nil {
		return err
	}
	return f.fullStorage.Pack(ctx, tid, opts)
}

func (f *faultyStorage) CreateBlob(ctx context.Context) (zeolite.BlobUpload, error) {
	if err := f.hook(ctx, "createblob"); err != nil {
		return nil, err
	}
	upload, err := f.fullStorage.CreateBlob(ctx)
	if err != nil {
		return nil, err
	}
	return &faultyUpload{upload, f}, nil
}

func (f *faultyStorage) OpenBlob(ctx context.Context, oid zeolite.OID, tid zeolite.TID) (zeolite.Blob, error) {
	if err := f.hook(ctx, "openblob"); err != nil {
		return nil, err
	}
	return f.fullStorage.OpenBlob(ctx, oid, tid)
}

type faultyTxn struct {
	zeolite.Txn
	f *faultyStorage
}

func (t *faultyTxn) Store(ctx context.Context, oid zeolite.OID, serial zeolite.TID, data []byte) error {
	if err := t.f.hook(ctx, "store"); err != nil {
		return err
	}
	return t.Txn.Store(ctx, oid, serial, data)
}

func (t *faultyTxn) StoreBlob(ctx context.Context, oid zeolite.OID, serial zeolite.TID, data []byte, blob zeolite.BlobUpload) error {
	if err := t.f.hook(ctx, "storeblob"); err != nil {
		return err
	}
	if u, ok := blob.(*faultyUpload); ok {
		blob = u.BlobUpload
	}
	return t.Txn.StoreBlob(ctx, oid, serial, data, blob)
}

func (t *faultyTxn) Vote(ctx context.Context) error {
	if err := t.f.hook(ctx, "vote"); err != nil {
		return err
	}
	return t.Txn.Vote(ctx)
}

func (t *faultyTxn) Finish(ctx context.Context, publish zeolite.Publish) (zeolite.TID, error) {
	if err := t.f.hook(ctx, "finish"); err != nil {
		t.Abort()
		return 0, err
	}
	tid, err := t.Txn.Finish(ctx, publish)
	if err == nil {
		err = t.f.hook(ctx, "finished")
	}
	return tid, err
}

type faultyUpload struct {
	zeolite.BlobUpload
	f *faultyStorage
}

func (u *faultyUpload) Write(p []byte) (int, error) {
	if err := u.f.hook(context.Background(), "writeblob"); err != nil {
		return 0, err
	}
	return u.BlobUpload.Write(p)
}

func (u *faultyUpload) Complete() error {
	return errors.Join(u.f.hook(context.Background(), "completeblob"), u.BlobUpload.Complete())
}
