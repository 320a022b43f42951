package filestorage

import (
	"context"
	"iter"
	"slices"

	"github.com/zeolite-go/zeolite"
)

// History implements zeolite.Storage.
func (s *Storage) History(ctx context.Context, oid zeolite.OID, n int) ([]zeolite.TransactionInfo, error) {
	r, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	defer r.done()
	buf := r.buf[:recHdrLen+backLen]
	h, _, err := r.current(oid, buf)
	if err != nil {
		return nil, err
	}
	var infos []zeolite.TransactionInfo
	end := r.end.Load()
	w := &window{file: r.file, buf: make([]byte, 0, 256)}
	for len(infos) < n {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t, err := w.txn(h.txnPos, end)
		if err != nil {
			return nil, err
		}
		info, err := w.info(t)
		if err != nil {
			return nil, err
		}
		info.TID, info.Size = h.tid, h.dataLen
		infos = append(infos, *info)
		if h.prev == 0 {
			break
		}
		if h, _, err = r.readHeader(oid, h.prev, buf); err != nil {
			return nil, err
		}
	}
	return infos, nil
}

// UndoLog implements zeolite.Undoer.
func (s *Storage) UndoLog(ctx context.Context) iter.Seq2[*zeolite.TransactionInfo, error] {
	return func(yield func(*zeolite.TransactionInfo, error) bool) {
		r, err := s.read(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		defer r.done()
		w := newWindow(r.file)
		w.backward = true
		for pos := r.end.Load(); pos > magicLen; {
			if err := s.usable(ctx); err != nil {
				yield(nil, err)
				return
			}
			h, err := w.before(pos)
			if err != nil {
				yield(nil, err)
				return
			}
			pos = h.pos
			if h.status == statusPacked {
				return
			}
			if h.status != statusNormal {
				continue
			}
			if info, err := w.info(h); !yield(info, err) || err != nil {
				return
			}
		}
	}
}

// findTxn returns the position of the first transaction that is not earlier
// than tid, or the end if there is none. It walks from the end of the file
// that is nearer in time.
func (g *generation) findTxn(ctx context.Context, tid zeolite.TID, end int64) (int64, error) {
	if end <= magicLen {
		return end, nil
	}
	w := newWindow(g.file)
	first, err := w.txn(magicLen, end)
	if err != nil {
		return 0, err
	}
	if tid <= first.tid {
		return magicLen, nil
	}
	steps := 0
	check := func() error {
		if steps++; steps%1024 == 0 {
			return ctx.Err()
		}
		return nil
	}
	w.backward = true
	last, err := w.before(end)
	if err != nil {
		return 0, err
	}
	if tid > last.tid {
		return end, nil
	}
	if last.tid.Time().Sub(tid.Time()) <= tid.Time().Sub(first.tid.Time()) {
		pos := last.pos
		for pos > magicLen {
			h, err := w.before(pos)
			if err == nil {
				err = check()
			}
			if err != nil {
				return 0, err
			}
			if h.tid < tid {
				break
			}
			pos = h.pos
		}
		return pos, nil
	}
	w.backward = false
	for pos := int64(magicLen); ; {
		h, err := w.txn(pos, end)
		if err == nil {
			err = check()
		}
		if err != nil {
			return 0, err
		}
		if h.tid >= tid {
			return pos, nil
		}
		pos = h.next()
	}
}

// walk yields the headers of the transactions from the first with start on,
// up to what is visible now.
func (s *Storage) walk(ctx context.Context, start zeolite.TID, yield func(g *generation, w *window, h txnHeader) (bool, error)) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	g, err := s.acquire()
	if err != nil {
		return err
	}
	defer g.release()
	end := g.end.Load()
	pos, err := g.findTxn(ctx, start, end)
	if err != nil {
		return err
	}
	w := newWindow(g.file)
	for pos < end {
		if err := s.usable(ctx); err != nil {
			return err
		}
		h, err := w.txn(pos, end)
		if err != nil {
			return err
		}
		pos = h.next()
		if h.status == statusUndone {
			continue
		}
		if more, err := yield(g, w, h); !more || err != nil {
			return err
		}
	}
	return nil
}

// Transactions implements zeolite.Storage.
func (s *Storage) Transactions(ctx context.Context, start, stop zeolite.TID) iter.Seq2[*zeolite.TransactionRecord, error] {
	return func(yield func(*zeolite.TransactionRecord, error) bool) {
		err := s.walk(ctx, start, func(g *generation, w *window, h txnHeader) (bool, error) {
			if h.tid > stop {
				return false, nil
			}
			info, err := w.info(h)
			if err != nil {
				return false, err
			}
			return yield(&zeolite.TransactionRecord{TransactionInfo: *info, Records: s.records(ctx, g, h)}, nil), nil
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

// records yields the records of a transaction in g. It may be called long
// after the walk that found it.
func (s *Storage) records(ctx context.Context, g *generation, t txnHeader) iter.Seq2[zeolite.DataRecord, error] {
	return func(yield func(zeolite.DataRecord, error) bool) {
		fail := func(err error) { yield(zeolite.DataRecord{}, err) }
		if !g.tryAcquire() {
			if err := s.usable(ctx); err != nil {
				fail(err)
				return
			}
			fail(&zeolite.StorageError{Message: packedMeanwhile(t.tid)})
			return
		}
		r := reader{g, guessPool.Get().(*[readGuess]byte)}
		defer r.done()
		var short [recHdrLen + backLen]byte
		for pos := t.records(); pos < t.end(); {
			if err := s.usable(ctx); err != nil {
				fail(err)
				return
			}
			h, n, err := r.readAnyHeader(pos, &t)
			if err != nil {
				fail(err)
				return
			}
			rec := zeolite.DataRecord{OID: h.oid, TID: h.tid}
			if h.back != 0 {
				b, _, err := r.readHeader(h.oid, h.back, short[:])
				if err != nil {
					fail(err)
					return
				}
				rec.DataTID = b.tid
			}
			if rec.Data, err = r.readData(h, r.buf[:], n); err != nil {
				fail(err)
				return
			}
			if !yield(rec, nil) {
				return
			}
			pos = h.next()
		}
	}
}

func packedMeanwhile(tid zeolite.TID) string {
	return "the storage was packed, the records of transaction " + tid.String() + " must be asked for again"
}

// readAnyHeader reads the record at pos in a transaction, of whatever object.
func (r reader) readAnyHeader(pos int64, t *txnHeader) (recHeader, int, error) {
	n, err := r.file.ReadAt(r.buf[:], pos)
	if n < recHdrLen+backLen {
		return recHeader{}, n, readError(pos, err)
	}
	h := parseRecHeader(r.buf[:n], pos)
	if err := h.check(h.oid, t.end()); err != nil {
		return h, n, err
	}
	if h.txnPos != t.pos {
		return h, n, damaged(pos, "record belongs to a transaction at %d, not to that at %d", h.txnPos, t.pos)
	}
	return h, n, nil
}

// Changes implements zeolite.Storage.
func (s *Storage) Changes(ctx context.Context, after zeolite.TID) iter.Seq2[zeolite.Change, error] {
	return func(yield func(zeolite.Change, error) bool) {
		if after >= zeolite.MaxTID {
			return
		}
		var oids []zeolite.OID
		err := s.walk(ctx, after+1, func(g *generation, w *window, h txnHeader) (bool, error) {
			oids = oids[:0]
			for pos := h.records(); pos < h.end(); {
				rec, err := w.record(&h, pos)
				if err != nil {
					return false, err
				}
				oids = append(oids, rec.oid)
				pos = rec.next()
			}
			// Python may write an object twice in a transaction.
			slices.Sort(oids)
			oids = slices.Compact(oids)
			return yield(zeolite.Change{TID: h.tid, OIDs: oids}, nil), nil
		})
		if err != nil {
			yield(zeolite.Change{}, err)
		}
	}
}
