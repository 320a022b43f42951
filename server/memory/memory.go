// Package memory is the smallest correct back end: a zeolite.Storage that
// keeps every revision in maps and slices, and blobs in temporary files. All
// is gone after Close.
//
// It has every optional ability (undo, pack with garbage collection, blobs), so
// it is a full peer in tests and the example to read before writing a back end
// on disk. Read the files in this order: memory.go (what is kept, and loads),
// txn.go (how it changes), undo.go, iterate.go, blob.go, pack.go.
package memory

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/zeolite-go/zeolite"
)

// Options configure New. The zero value is usable.
type Options struct {
	// Name is what Info says; "memory" if empty.
	Name string
	// BlobDir is where the storage makes a directory of its own for blobs,
	// when the first one is created; Close removes that directory. Empty
	// means the system's directory for temporary files.
	BlobDir string
	// Now is the clock that TIDs are taken from; time.Now if nil.
	Now func() time.Time
}

// Storage is a zeolite.Storage in memory. It may be used by any number of
// goroutines.
type Storage struct {
	name    string
	blobsIn string
	now     func() time.Time

	packing sync.Mutex   // held by the one Pack that runs
	commit  sync.Mutex   // held from choosing a TID until it is visible; taken before mu
	mu      sync.RWMutex // guards what follows

	closed    bool
	last      zeolite.TID
	packed    zeolite.TID // the last transaction that a pack has seen
	maxOID    zeolite.OID // the largest oid handed out or stored
	objects   map[zeolite.OID][]*revision
	oids      []zeolite.OID // the keys of objects, in order
	txns      []*transaction
	dataBytes int64  // in all records
	blobDir   string // empty until the first upload

	undoMu  sync.Mutex // taken after the others; guards undoing
	undoing map[*txn]struct{}
}

// A revision is one state of an object. It never changes once it is in
// Storage.objects, whose lists have the oldest revision first.
type revision struct {
	oid  zeolite.OID
	tid  zeolite.TID
	data []byte // nil: the object is gone
	// origin is the transaction that first wrote these bytes: tid itself,
	// or an earlier one if undo or Restore shares them. It is zero if the
	// object is gone, and for new bytes until Finish.
	origin zeolite.TID
	blob   string // path of the blob, empty if there is none
}

// A transaction never changes once it is in Storage.txns, which has the oldest
// first.
type transaction struct {
	zeolite.TransactionInfo
	records []*revision
}

// New returns an empty storage.
func New(opts Options) *Storage {
	s := &Storage{
		name:    cmp.Or(opts.Name, "memory"),
		blobsIn: opts.BlobDir,
		now:     opts.Now,
		objects: map[zeolite.OID][]*revision{},
		undoing: map[*txn]struct{}{},
	}
	if s.now == nil {
		s.now = time.Now
	}
	return s
}

var (
	_ zeolite.Storage     = (*Storage)(nil)
	_ zeolite.Undoer      = (*Storage)(nil)
	_ zeolite.Packer      = (*Storage)(nil)
	_ zeolite.BlobStorage = (*Storage)(nil)
)

// Info implements zeolite.Storage. Size counts the bytes of records only.
func (s *Storage) Info() zeolite.Info {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return zeolite.Info{
		Name:            s.name,
		Objects:         int64(len(s.oids)),
		Size:            s.dataBytes,
		Undo:            true,
		Pack:            true,
		Blobs:           true,
		RecordIteration: true,
	}
}

// LastTID implements zeolite.Storage.
func (s *Storage) LastTID() zeolite.TID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.last
}

// rlock starts a read, which the caller ends with s.mu.RUnlock unless rlock
// failed.
func (s *Storage) rlock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return zeolite.ErrClosed
	}
	return nil
}

// LoadBefore implements zeolite.Storage.
func (s *Storage) LoadBefore(ctx context.Context, oid zeolite.OID, before zeolite.TID) (zeolite.Revision, error) {
	if err := s.rlock(ctx); err != nil {
		return zeolite.Revision{}, err
	}
	defer s.mu.RUnlock()
	revs := s.objects[oid]
	if len(revs) == 0 {
		return zeolite.Revision{}, &zeolite.NotFoundError{OID: oid}
	}
	next, _ := searchRevision(revs, before)
	if next == 0 {
		return zeolite.Revision{}, zeolite.ErrNotYet
	}
	r := revs[next-1]
	if r.data == nil {
		return zeolite.Revision{}, &zeolite.NotFoundError{OID: oid}
	}
	found := zeolite.Revision{Data: slices.Clone(r.data), TID: r.tid}
	if next < len(revs) {
		found.End = revs[next].tid
	}
	return found, nil
}

// LoadSerial implements zeolite.Storage.
func (s *Storage) LoadSerial(ctx context.Context, oid zeolite.OID, serial zeolite.TID) ([]byte, error) {
	if err := s.rlock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	r := s.revision(oid, serial)
	if r == nil || r.data == nil {
		return nil, &zeolite.NotFoundError{OID: oid, TID: serial}
	}
	return slices.Clone(r.data), nil
}

// CurrentTID implements zeolite.Storage.
func (s *Storage) CurrentTID(ctx context.Context, oid zeolite.OID) (zeolite.TID, error) {
	if err := s.rlock(ctx); err != nil {
		return 0, err
	}
	defer s.mu.RUnlock()
	r := s.current(oid)
	if r == nil || r.data == nil {
		return 0, &zeolite.NotFoundError{OID: oid}
	}
	return r.tid, nil
}

// NewOIDs implements zeolite.Storage: oids count up from 1.
func (s *Storage) NewOIDs(ctx context.Context, n int) ([]zeolite.OID, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if n <= 0 {
		return nil, &zeolite.StorageError{Message: fmt.Sprintf("cannot make %d new oids", n)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, zeolite.ErrClosed
	}
	if last := s.maxOID + zeolite.OID(n); zeolite.CheckOID(last, last) != nil {
		return nil, &zeolite.StorageError{Message: "no oids are left"}
	}
	oids := make([]zeolite.OID, n)
	for i := range oids {
		s.maxOID++
		oids[i] = s.maxOID
	}
	return oids, nil
}

// Close implements zeolite.Storage. It waits for a Finish under way and
// removes all blobs.
func (s *Storage) Close() error {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.objects, s.oids, s.txns = nil, nil, nil
	if s.blobDir == "" {
		return nil
	}
	if err := os.RemoveAll(s.blobDir); err != nil {
		return &zeolite.StorageError{Message: "cannot remove the blobs", Err: err}
	}
	return nil
}

// The functions below are called with mu held.

// current returns the newest revision of oid, nil if there is none.
func (s *Storage) current(oid zeolite.OID) *revision {
	revs := s.objects[oid]
	if len(revs) == 0 {
		return nil
	}
	return revs[len(revs)-1]
}

// revision returns the revision of oid that tid wrote, nil if there is none.
func (s *Storage) revision(oid zeolite.OID, tid zeolite.TID) *revision {
	revs := s.objects[oid]
	if i, ok := searchRevision(revs, tid); ok {
		return revs[i]
	}
	return nil
}

// transaction returns the transaction tid, nil if there is none.
func (s *Storage) transaction(tid zeolite.TID) *transaction {
	if i, ok := searchTransaction(s.txns, tid); ok {
		return s.txns[i]
	}
	return nil
}

// install makes a transaction visible.
func (s *Storage) install(t *transaction) {
	s.last = t.TID
	s.txns = append(s.txns, t)
	for _, r := range t.records {
		if i, known := slices.BinarySearch(s.oids, r.oid); !known {
			s.oids = slices.Insert(s.oids, i, r.oid)
		}
		s.objects[r.oid] = append(s.objects[r.oid], r)
		s.maxOID = max(s.maxOID, r.oid)
		s.dataBytes += int64(len(r.data))
	}
}

// shares returns the earlier revision whose bytes r shares, as far as a pack
// has left it, else zero.
func (s *Storage) shares(r *revision) zeolite.TID {
	if r.origin == r.tid || s.revision(r.oid, r.origin) == nil {
		return zeolite.ZeroTID
	}
	return r.origin
}

// ownSize is the number of bytes that r does not share.
func (s *Storage) ownSize(r *revision) int64 {
	if s.shares(r) != zeolite.ZeroTID {
		return 0
	}
	return int64(len(r.data))
}

// searchRevision finds the first revision that tid does not follow, and
// whether tid wrote it.
func searchRevision(revs []*revision, tid zeolite.TID) (int, bool) {
	return slices.BinarySearchFunc(revs, tid, func(r *revision, tid zeolite.TID) int {
		return cmp.Compare(r.tid, tid)
	})
}

// searchTransaction is searchRevision for transactions.
func searchTransaction(txns []*transaction, tid zeolite.TID) (int, bool) {
	return slices.BinarySearchFunc(txns, tid, func(t *transaction, tid zeolite.TID) int {
		return cmp.Compare(t.TID, tid)
	})
}

// errEmptyRecord refuses what other back ends cannot keep: in Data.fs a record
// of length 0 is a reference to an earlier one.
var errEmptyRecord = &zeolite.StorageError{Message: "a record cannot be empty"}
