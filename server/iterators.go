package server

import (
	"context"
	"iter"
	"sync"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
)

// iterators are the iterators that a client has open, by their ids, which are
// numbers from one sequence. It is safe for concurrent use.
type iterators struct {
	mu     sync.Mutex
	next   int64
	txns   map[int64]*pulled[*zeolite.TransactionRecord]
	recs   map[int64]*pulled[zeolite.DataRecord]
	closed bool
}

// maxIterators is how many iterators a client may have open.
const maxIterators = 1000

// pulled is an iterator from which one item is asked for at a time. Its mutex
// is for clients that ask for several at once.
type pulled[T any] struct {
	mu   sync.Mutex
	next func() (T, error, bool)
	stop func()
	last T
}

func pull[T any](seq iter.Seq2[T, error]) *pulled[T] {
	next, stop := iter.Pull2(seq)
	return &pulled[T]{next: next, stop: stop}
}

// step returns the next item; false at the end.
func (p *pulled[T]) step() (T, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, err, ok := p.next()
	if ok && err == nil {
		p.last = v
	}
	return v, ok, err
}

func (p *pulled[T]) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop()
}

// add gives an iterator an id.
func add[T any](it *iterators, m *map[int64]*pulled[T], p *pulled[T]) (int64, error) {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.closed || len(it.txns)+len(it.recs) >= maxIterators {
		p.stop()
		return 0, &zeolite.StorageError{Message: "too many iterators are open"}
	}
	if *m == nil {
		*m = map[int64]*pulled[T]{}
	}
	id := it.next
	it.next++
	(*m)[id] = p
	return id, nil
}

func find[T any](it *iterators, m *map[int64]*pulled[T], id int64) (*pulled[T], error) {
	it.mu.Lock()
	defer it.mu.Unlock()
	if p, ok := (*m)[id]; ok {
		return p, nil
	}
	return nil, stubs.Exception(stubs.ClassKeyError, id)
}

// drop closes an iterator of either kind: nobody finds it any more. It does not
// wait for a step that is under way.
func (it *iterators) drop(id int64) {
	it.mu.Lock()
	txns, recs := it.txns[id], it.recs[id]
	delete(it.txns, id)
	delete(it.recs, id)
	it.mu.Unlock()
	if txns != nil {
		go txns.close()
	}
	if recs != nil {
		go recs.close()
	}
}

func (it *iterators) closeAll() {
	it.mu.Lock()
	it.closed = true
	txns, recs := it.txns, it.recs
	it.txns, it.recs = nil, nil
	it.mu.Unlock()
	for _, p := range txns {
		p.close()
	}
	for _, p := range recs {
		p.close()
	}
}

// IteratorStart follows stubs.StorageServer.
func (s *session) IteratorStart(_ context.Context, start, stop stubs.OptionalTID) (int64, error) {
	if !stop.Set {
		stop.TID = ^zeolite.TID(0)
	}
	it := &s.iterators
	return add(it, &it.txns, pull(s.storage.Transactions(s.ctx, start.TID, stop.TID)))
}

// IteratorNext follows stubs.StorageServer.
func (s *session) IteratorNext(_ context.Context, iid int64) (*stubs.TransactionEntry, error) {
	it := &s.iterators
	p, err := find(it, &it.txns, iid)
	if err != nil {
		return nil, err
	}
	txn, ok, err := p.step()
	if !ok || err != nil {
		s.logError("iterator_next", err)
		it.drop(iid)
		return nil, err
	}
	return &stubs.TransactionEntry{
		TID:         txn.TID,
		Status:      txn.Status,
		User:        txn.User,
		Description: txn.Description,
		Extension:   extensionDict(txn.Extension),
	}, nil
}

// IteratorRecordStart follows stubs.StorageServer.
func (s *session) IteratorRecordStart(_ context.Context, iid int64, tid zeolite.TID) (int64, error) {
	it := &s.iterators
	p, err := find(it, &it.txns, iid)
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	txn := p.last
	p.mu.Unlock()
	if txn == nil || txn.TID != tid {
		return 0, stubs.Exception("builtins.Exception", "Out-of-order record iteration: "+tid.String()+" is not the transaction returned last")
	}
	return add(it, &it.recs, pull(txn.Records))
}

// IteratorRecordNext follows stubs.StorageServer.
func (s *session) IteratorRecordNext(_ context.Context, iid int64) (*zeolite.DataRecord, error) {
	it := &s.iterators
	p, err := find(it, &it.recs, iid)
	if err != nil {
		return nil, err
	}
	rec, ok, err := p.step()
	if !ok || err != nil {
		s.logError("iterator_record_next", err)
		it.drop(iid)
		return nil, err
	}
	return &rec, nil
}

// IteratorGC follows stubs.StorageServer.
func (s *session) IteratorGC(_ context.Context, iids []int64) error {
	for _, iid := range iids {
		s.iterators.drop(iid)
	}
	return nil
}
