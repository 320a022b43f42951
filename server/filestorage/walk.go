package filestorage

import (
	"context"
	"iter"
	"math"
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
// up to what is visible now. Its window has the given size.
func (s *Storage) walk(ctx context.Context, start zeolite.TID, size int, yield func(g *generation, w *window, h txnHeader) (bool, error)) error {
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
	w := &window{file: g.file, buf: make([]byte, 0, size)}
	defer w.close()
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
		const headers = 8 << 10 // records are read apart
		err := s.walk(ctx, start, headers, func(g *generation, w *window, h txnHeader) (bool, error) {
			if h.tid > stop {
				return false, nil
			}
			info, err := w.info(h)
			if err != nil {
				return false, err
			}
			return yield(&zeolite.TransactionRecord{
				TransactionInfo: *info,
				Records: func(yield func(zeolite.DataRecord, error) bool) {
					s.records(ctx, g, h, &chunks{file: g.file, end: h.end()}, yield)
				},
				Borrowed: func(yield func(zeolite.DataRecord, error) bool) {
					// Whoever asks for one is likely to ask for all.
					w.forward(h.pos, g.end.Load())
					s.records(ctx, g, h, w, yield)
				},
			}, nil), nil
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

// recordReader reads the records of a transaction: chunks, or a window.
type recordReader interface {
	// placedRecord reads the header of a record, with its back pointer. Where
	// it points to may be wrong: the older revisions are not needed.
	placedRecord(t *txnHeader, pos int64) (recHeader, error)
	// data reads the data of a record.
	data(pos, n int64) ([]byte, error)
}

// records yields the records of a transaction in g. It may be called long after
// the walk that found it.
func (s *Storage) records(ctx context.Context, g *generation, t txnHeader, c recordReader, yield func(zeolite.DataRecord, error) bool) {
	fail := func(err error) { yield(zeolite.DataRecord{}, err) }
	if !g.tryAcquire() {
		if err := s.usable(ctx); err != nil {
			fail(err)
			return
		}
		fail(&zeolite.StorageError{Message: packedMeanwhile(t.tid)})
		return
	}
	defer g.release()
	var short [recHdrLen + backLen]byte
	for pos := t.records(); pos < t.end(); {
		if err := s.usable(ctx); err != nil {
			fail(err)
			return
		}
		h, err := c.placedRecord(&t, pos)
		if err != nil {
			fail(err)
			return
		}
		rec := zeolite.DataRecord{OID: h.oid, TID: h.tid}
		switch {
		case h.dataLen > 0:
			rec.Data, err = c.data(pos+recHdrLen, h.dataLen)
		case h.back >= h.pos:
			err = h.checkPointers()
		case h.back != 0:
			var b recHeader
			var n int
			if b, n, err = g.readHeader(h.oid, h.back, short[:]); err == nil {
				rec.DataTID = b.tid
				rec.Data, err = g.readData(b, short[:], n)
			}
		}
		if err != nil {
			fail(err)
			return
		}
		if !yield(rec, nil) {
			return
		}
		pos = h.next()
	}
}

// chunks reads the records of a transaction in large pieces, and gives them
// away: what it returns stays as it is. It is used by one goroutine.
type chunks struct {
	file File
	end  int64 // of the records
	buf  []byte
	off  int64 // of buf[0]
}

const chunkSize = 64 << 10

// data returns the n bytes at off; off+n is not past the end.
func (c *chunks) data(off, n int64) ([]byte, error) {
	if off < c.off || off+n > c.off+int64(len(c.buf)) {
		if n > math.MaxInt {
			return nil, damaged(off, "the data of a record has %d bytes", n)
		}
		// Large data gets memory of its own size.
		size := n
		if n <= chunkSize/4 {
			size = min(chunkSize, c.end-off)
		}
		buf := make([]byte, size)
		if _, err := c.file.ReadAt(buf, off); err != nil {
			return nil, readError(off, err)
		}
		if n > chunkSize/4 {
			return buf, nil
		}
		c.buf, c.off = buf, off
	}
	i := off - c.off
	return c.buf[i : i+n : i+n], nil
}

// placedRecord implements recordReader.
func (c *chunks) placedRecord(t *txnHeader, pos int64) (recHeader, error) {
	n := min(recHdrLen+backLen, c.end-pos)
	if n < recHdrLen {
		return recHeader{}, damaged(pos, "the transaction ends in a record")
	}
	b, err := c.data(pos, n)
	if err != nil {
		return recHeader{}, err
	}
	h := parseRecHeader(b, pos)
	if err := h.checkPlace(h.oid, t.end()); err != nil {
		return h, err
	}
	if h.txnPos != t.pos {
		return h, damaged(pos, "record belongs to a transaction at %d, not to that at %d", h.txnPos, t.pos)
	}
	return h, nil
}

func packedMeanwhile(tid zeolite.TID) string {
	return "the storage was packed, the records of transaction " + tid.String() + " must be asked for again"
}

// Changes implements zeolite.Storage.
func (s *Storage) Changes(ctx context.Context, after zeolite.TID) iter.Seq2[zeolite.Change, error] {
	return func(yield func(zeolite.Change, error) bool) {
		if after >= zeolite.MaxTID {
			return
		}
		var oids []zeolite.OID
		err := s.walk(ctx, after+1, windowSize, func(g *generation, w *window, h txnHeader) (bool, error) {
			oids = oids[:0]
			for pos := h.records(); pos < h.end(); {
				rec, err := w.placedRecord(&h, pos)
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
