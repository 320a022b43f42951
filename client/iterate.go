package client

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// walk is an iterator over transactions at the server. It ceases to exist
// with its connection; then another one goes on behind the last transaction.
type walk struct {
	l  *link
	id int64

	mu   sync.Mutex
	last zeolite.TID // the transaction whose records it can give
	over bool
}

func (l *link) walk(ctx context.Context, start, stop zeolite.TID) (*walk, error) {
	id, err := l.iterator(ctx, func(ctx context.Context) (int64, error) {
		return l.stub.IteratorStart(ctx, stubs.SomeTID(start), stubs.SomeTID(stop))
	})
	return &walk{l: l, id: id}, err
}

// iterator makes a call that opens an iterator at the server. If the context
// ends first the iterator is freed as soon as its id is known. After Close
// nothing is waited for: it may be up to the caller to end the connection.
func (l *link) iterator(ctx context.Context, start func(context.Context) (int64, error)) (int64, error) {
	var (
		id      int64
		err     error
		started = make(chan struct{})
	)
	l.s.spawn(func() {
		defer close(started)
		if id, err = start(l.s.ctx); errors.Is(err, context.Canceled) {
			err = zeolite.ErrClosed
		}
	})
	select {
	case <-started:
		return id, err
	case <-ctx.Done():
		l.s.spawn(func() {
			if <-started; err == nil {
				l.free(id)
			}
		})
		return 0, ctx.Err()
	}
}

// free ends an iterator at the server; so does the end of the connection.
func (l *link) free(id int64) { _ = l.stub.IteratorGC(context.Background(), []int64{id}) }

// next returns the next transaction, nil at the end.
func (w *walk) next(ctx context.Context) (*stubs.TransactionEntry, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e, err := w.l.stub.IteratorNext(ctx, w.id)
	w.last, w.over = 0, e == nil && err == nil
	if e != nil {
		w.last = e.TID
	}
	return e, err
}

// records opens an iterator over the records of a transaction if it is the one
// that the walk is at, and says whether it is.
func (w *walk) records(ctx context.Context, tid zeolite.TID) (id int64, ok bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over || w.last != tid || w.l.lost() {
		return 0, false, nil
	}
	id, err = w.l.iterator(ctx, func(ctx context.Context) (int64, error) {
		return w.l.stub.IteratorRecordStart(ctx, w.id, tid)
	})
	return id, true, err
}

// end frees the iterator at the server.
func (w *walk) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.over = true
		w.l.free(w.id)
	}
}

// Transactions implements zeolite.Storage: each transaction and each record is
// a round trip. If the connection is lost it goes on with the next one.
func (s *Storage) Transactions(ctx context.Context, start, stop zeolite.TID) iter.Seq2[*zeolite.TransactionRecord, error] {
	return func(yield func(*zeolite.TransactionRecord, error) bool) {
		var w *walk
		defer func() {
			if w != nil {
				w.end()
			}
		}()
		if s.ctx.Err() != nil {
			yield(nil, zeolite.ErrClosed)
			return
		}
		if err := s.started(ctx); err != nil {
			yield(nil, err)
			return
		}
		from, stop := start, min(stop, s.LastTID())
		for from <= stop {
			var entry *stubs.TransactionEntry
			err := ctx.Err()
			if err == nil {
				err = s.read(ctx, func(l *link) (err error) {
					if w == nil || w.l != l {
						if w, err = l.walk(ctx, from, stop); err != nil {
							w = nil
							return err
						}
					}
					entry, err = w.next(ctx)
					return err
				})
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if entry == nil {
				return
			}
			txn, err := s.record(ctx, w, entry)
			if !yield(txn, err) || err != nil {
				return
			}
			from = entry.TID + 1
		}
	}
}

// record makes what callers get of a transaction.
func (s *Storage) record(ctx context.Context, w *walk, e *stubs.TransactionEntry) (*zeolite.TransactionRecord, error) {
	ext, err := pickledExtension(e.Extension)
	if err != nil {
		return nil, err
	}
	return &zeolite.TransactionRecord{
		TransactionInfo: zeolite.TransactionInfo{
			TID:         e.TID,
			Status:      e.Status,
			User:        e.User,
			Description: e.Description,
			Extension:   ext,
		},
		Records: func(yield func(zeolite.DataRecord, error) bool) {
			// While the walk is at this transaction it gives the records;
			// later, and after a disconnection, another walk has to.
			seen := 0
			for again := w; ; again = nil {
				l, err := s.connection(ctx)
				if err != nil {
					yield(zeolite.DataRecord{}, err)
					return
				}
				if again != nil && again.l != l {
					again = nil
				}
				skip := seen
				for rec, err := range l.records(ctx, again, e.TID) {
					if err != nil {
						err = s.asError(err, true)
						if SafeToRepeat(err) && ctx.Err() == nil {
							break
						}
						yield(zeolite.DataRecord{}, err)
						return
					}
					if rec == nil {
						return
					}
					if skip > 0 {
						skip--
						continue
					}
					seen++
					if !yield(*rec, nil) {
						return
					}
				}
			}
		},
	}, nil
}

// records yields the records of a transaction, and nil after the last one.
func (l *link) records(ctx context.Context, w *walk, tid zeolite.TID) iter.Seq2[*zeolite.DataRecord, error] {
	return func(yield func(*zeolite.DataRecord, error) bool) {
		var (
			id  int64
			ok  bool
			err error
		)
		if w != nil {
			id, ok, err = w.records(ctx, tid)
		}
		if !ok && err == nil {
			if w, err = l.walk(ctx, tid, tid); err == nil {
				defer w.end()
				var entry *stubs.TransactionEntry
				if entry, err = w.next(ctx); err == nil {
					if entry == nil {
						yield(nil, &zeolite.StorageError{Message: "transaction " + tid.String() + " is gone: the storage was packed"})
						return
					}
					id, _, err = w.records(ctx, tid)
				}
			}
		}
		if err != nil {
			yield(nil, err)
			return
		}
		for {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				break
			}
			rec, err := l.stub.IteratorRecordNext(ctx, id)
			if !yield(rec, err) {
				break
			}
			if rec == nil {
				return // it is gone at the server
			}
		}
		l.free(id)
	}
}

// Changes implements zeolite.Storage, by iteration: each object costs a round
// trip.
func (s *Storage) Changes(ctx context.Context, after zeolite.TID) iter.Seq2[zeolite.Change, error] {
	return func(yield func(zeolite.Change, error) bool) {
		if after == ^zeolite.TID(0) {
			return
		}
		for txn, err := range s.Transactions(ctx, after+1, zeolite.MaxTID) {
			if err != nil {
				yield(zeolite.Change{}, err)
				return
			}
			change, err := changeOf(txn)
			if !yield(change, err) || err != nil {
				return
			}
		}
	}
}

func changeOf(txn *zeolite.TransactionRecord) (zeolite.Change, error) {
	change := zeolite.Change{TID: txn.TID}
	seen := map[zeolite.OID]bool{}
	for rec, err := range txn.Records {
		if err != nil {
			return change, err
		}
		// Python stores the record of a blob twice.
		if !seen[rec.OID] {
			seen[rec.OID] = true
			change.OIDs = append(change.OIDs, rec.OID)
		}
	}
	return change, nil
}

// changesOn is Changes over one connection, up to a transaction.
func (s *Storage) changesOn(ctx context.Context, l *link, after, last zeolite.TID) iter.Seq2[zeolite.Change, error] {
	return func(yield func(zeolite.Change, error) bool) {
		w, err := l.walk(ctx, after+1, last)
		if err != nil {
			yield(zeolite.Change{}, err)
			return
		}
		defer w.end()
		for {
			entry, err := w.next(ctx)
			if err != nil {
				yield(zeolite.Change{}, err)
				return
			}
			if entry == nil {
				return
			}
			change, err := changeOf(&zeolite.TransactionRecord{
				TransactionInfo: zeolite.TransactionInfo{TID: entry.TID},
				Records: func(yield func(zeolite.DataRecord, error) bool) {
					for rec, err := range l.records(ctx, w, entry.TID) {
						if rec == nil && err == nil {
							return
						}
						if err != nil {
							yield(zeolite.DataRecord{}, err)
							return
						}
						if !yield(*rec, nil) {
							return
						}
					}
				},
			})
			if !yield(change, err) || err != nil {
				return
			}
		}
	}
}

// pickledExtension makes the bytes of an extension that came as a dict.
func pickledExtension(v zrpc.Value) ([]byte, error) {
	dict, ok := v.(*zrpc.Dict)
	if !ok || dict.Len() == 0 {
		return nil, nil
	}
	return zrpc.AppendPickle(nil, dict)
}

// isException tells whether err is an exception of a Python class.
func isException(err error, class string) bool {
	var raised *zrpc.RemoteError
	return errors.As(err, &raised) && raised.Class == class
}
