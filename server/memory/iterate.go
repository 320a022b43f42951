package memory

import (
	"context"
	"iter"
	"slices"

	"github.com/zeolite-go/zeolite"
)

// info returns a copy that a caller may keep and change.
func (t *transaction) info() zeolite.TransactionInfo {
	info := t.TransactionInfo
	info.User = slices.Clone(info.User)
	info.Description = slices.Clone(info.Description)
	info.Extension = slices.Clone(info.Extension)
	return info
}

// History implements zeolite.Storage. It shows deletions too.
func (s *Storage) History(ctx context.Context, oid zeolite.OID, n int) ([]zeolite.TransactionInfo, error) {
	if err := s.rlock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	revs := s.objects[oid]
	if len(revs) == 0 {
		return nil, &zeolite.NotFoundError{OID: oid}
	}
	var infos []zeolite.TransactionInfo
	for i := len(revs) - 1; i >= 0 && len(infos) < n; i-- {
		info := s.transaction(revs[i].tid).info()
		info.Size = s.ownSize(revs[i])
		infos = append(infos, info)
	}
	return infos, nil
}

// NextRecord implements zeolite.Storage.
func (s *Storage) NextRecord(ctx context.Context, from zeolite.OID) (zeolite.CurrentRecord, error) {
	if err := s.rlock(ctx); err != nil {
		return zeolite.CurrentRecord{}, err
	}
	defer s.mu.RUnlock()
	i := s.nextLive(from)
	if i == len(s.oids) {
		return zeolite.CurrentRecord{}, &zeolite.NotFoundError{OID: from}
	}
	r := s.current(s.oids[i])
	rec := zeolite.CurrentRecord{OID: r.oid, TID: r.tid, Data: slices.Clone(r.data)}
	if i+1 < len(s.oids) {
		if j := s.nextLive(s.oids[i+1]); j < len(s.oids) {
			rec.Next, rec.More = s.oids[j], true
		}
	}
	return rec, nil
}

// nextLive returns the index in s.oids of the first object from oid on that is
// not deleted. It is called with mu held.
func (s *Storage) nextLive(oid zeolite.OID) int {
	i, _ := slices.BinarySearch(s.oids, oid)
	for i < len(s.oids) && s.current(s.oids[i]).data == nil {
		i++
	}
	return i
}

// between returns the transactions with start <= TID <= stop. The result stays
// as it is, whatever happens to the storage.
func (s *Storage) between(ctx context.Context, start, stop zeolite.TID) ([]*transaction, error) {
	if err := s.rlock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	from, _ := searchTransaction(s.txns, start)
	to, found := searchTransaction(s.txns, stop)
	if found {
		to++
	}
	if from >= to {
		return nil, nil
	}
	return s.txns[from:to], nil
}

// Transactions implements zeolite.Storage.
func (s *Storage) Transactions(ctx context.Context, start, stop zeolite.TID) iter.Seq2[*zeolite.TransactionRecord, error] {
	return func(yield func(*zeolite.TransactionRecord, error) bool) {
		txns, err := s.between(ctx, start, stop)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, t := range txns {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			if !yield(&zeolite.TransactionRecord{TransactionInfo: t.info(), Records: s.records(ctx, t)}, nil) {
				return
			}
		}
	}
}

// records yields the records of a transaction.
func (s *Storage) records(ctx context.Context, t *transaction) iter.Seq2[zeolite.DataRecord, error] {
	return func(yield func(zeolite.DataRecord, error) bool) {
		for _, r := range t.records {
			if err := s.rlock(ctx); err != nil {
				yield(zeolite.DataRecord{}, err)
				return
			}
			rec := zeolite.DataRecord{OID: r.oid, TID: r.tid, Data: slices.Clone(r.data), DataTID: s.shares(r)}
			s.mu.RUnlock() // before yield: the consumer may take its time
			if !yield(rec, nil) {
				return
			}
		}
	}
}

// Changes implements zeolite.Storage.
func (s *Storage) Changes(ctx context.Context, after zeolite.TID) iter.Seq2[zeolite.Change, error] {
	return func(yield func(zeolite.Change, error) bool) {
		if after >= zeolite.MaxTID {
			return
		}
		txns, err := s.between(ctx, after+1, zeolite.MaxTID)
		if err != nil {
			yield(zeolite.Change{}, err)
			return
		}
		for _, t := range txns {
			if err := ctx.Err(); err != nil {
				yield(zeolite.Change{}, err)
				return
			}
			oids := make([]zeolite.OID, len(t.records))
			for i, r := range t.records {
				oids[i] = r.oid
			}
			if !yield(zeolite.Change{TID: t.TID, OIDs: oids}, nil) {
				return
			}
		}
	}
}
