package filestorage

import (
	"context"

	"github.com/zeolite-go/zeolite"
)

// reader is a generation that is being read, with a buffer for it. It is used
// by one goroutine.
type reader struct {
	*generation
	buf *[readGuess]byte
}

// read begins reading; the caller calls done.
func (s *Storage) read(ctx context.Context) (reader, error) {
	if err := s.usable(ctx); err != nil {
		return reader{}, err
	}
	g, err := s.acquire()
	if err != nil {
		return reader{}, err
	}
	return reader{g, guessPool.Get().(*[readGuess]byte)}, nil
}

func (r reader) done() {
	guessPool.Put(r.buf)
	r.release()
}

// LoadBefore implements zeolite.Storage.
func (s *Storage) LoadBefore(ctx context.Context, oid zeolite.OID, before zeolite.TID) (zeolite.Revision, error) {
	r, err := s.read(ctx)
	if err != nil {
		return zeolite.Revision{}, err
	}
	defer r.done()
	last := r.lastTID()
	pos, ok := r.index.get(oid)
	if !ok {
		return zeolite.Revision{}, &zeolite.NotFoundError{OID: oid}
	}
	var end zeolite.TID
	for {
		h, n, err := r.readHeader(oid, pos, r.buf[:])
		if err != nil {
			return zeolite.Revision{}, err
		}
		if h.tid <= last {
			if h.tid < before {
				data, err := r.readData(h, r.buf[:], n)
				if err == nil && data == nil {
					err = &zeolite.NotFoundError{OID: oid}
				}
				return zeolite.Revision{Data: data, TID: h.tid, End: end}, err
			}
			end = h.tid
		}
		if h.prev == 0 {
			if end == 0 { // only in a transaction that is not visible yet
				return zeolite.Revision{}, &zeolite.NotFoundError{OID: oid}
			}
			return zeolite.Revision{}, zeolite.ErrNotYet
		}
		pos = h.prev
	}
}

// revision finds the record of oid that transaction tid wrote, by following
// the records of the object back. h.pos is 0 if there is none.
func (g *generation) revision(oid zeolite.OID, tid zeolite.TID, buf []byte) (h recHeader, n int, err error) {
	if tid > g.lastTID() {
		return recHeader{}, 0, nil
	}
	for pos, ok := g.index.get(oid); ok; pos, ok = h.prev, h.prev != 0 {
		if h, n, err = g.readHeader(oid, pos, buf); err != nil {
			return h, n, err
		}
		if h.tid == tid {
			return h, n, nil
		}
		if h.tid < tid {
			break
		}
	}
	return recHeader{}, 0, nil
}

// LoadSerial implements zeolite.Storage.
func (s *Storage) LoadSerial(ctx context.Context, oid zeolite.OID, serial zeolite.TID) ([]byte, error) {
	r, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	defer r.done()
	h, n, err := r.revision(oid, serial, r.buf[:])
	if err != nil {
		return nil, err
	}
	if h.pos == 0 {
		return nil, &zeolite.NotFoundError{OID: oid, TID: serial}
	}
	data, err := r.readData(h, r.buf[:], n)
	if err == nil && data == nil {
		err = &zeolite.NotFoundError{OID: oid, TID: serial}
	}
	return data, err
}

// CurrentTID implements zeolite.Storage.
func (s *Storage) CurrentTID(ctx context.Context, oid zeolite.OID) (zeolite.TID, error) {
	g, err := s.acquire()
	if err != nil {
		return 0, err
	}
	defer g.release()
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	var buf [recHdrLen + backLen]byte
	h, _, err := g.current(oid, buf[:])
	if err != nil {
		return 0, err
	}
	gone, err := g.isGone(h)
	if err != nil {
		return 0, err
	}
	if gone {
		return 0, &zeolite.NotFoundError{OID: oid}
	}
	return h.tid, nil
}

// currentHeader is the header of the newest record of an object, at position 0 if
// it has none, and the generation that was asked.
func (s *Storage) currentHeader(oid zeolite.OID) (h recHeader, in *generation, err error) {
	g, err := s.acquire()
	if err != nil {
		return h, nil, err
	}
	defer g.release()
	pos, ok := g.index.get(oid)
	if !ok {
		return h, g, nil
	}
	var buf [recHdrLen + backLen]byte
	h, _, err = g.readHeader(oid, pos, buf[:])
	return h, g, err
}

// NextRecord implements zeolite.Storage.
func (s *Storage) NextRecord(ctx context.Context, from zeolite.OID) (zeolite.CurrentRecord, error) {
	r, err := s.read(ctx)
	if err != nil {
		return zeolite.CurrentRecord{}, err
	}
	defer r.done()
	rec := zeolite.CurrentRecord{}
	if rec.OID, err = r.nextAlive(ctx, from, func(h recHeader, n int) (err error) {
		rec.TID = h.tid
		rec.Data, err = r.readData(h, r.buf[:], n)
		return err
	}); err != nil {
		return zeolite.CurrentRecord{}, err
	}
	rec.Next, err = r.nextAlive(ctx, rec.OID+1, nil)
	if err == nil {
		rec.More = true
	} else if isNotFound(err) {
		rec.Next = 0
	} else {
		return zeolite.CurrentRecord{}, err
	}
	return rec, nil
}

// nextAlive finds the first object from an oid on that is not gone.
func (r reader) nextAlive(ctx context.Context, from zeolite.OID, found func(h recHeader, n int) error) (zeolite.OID, error) {
	for skipped := 0; ; skipped++ {
		oid, _, ok := r.index.next(from)
		if !ok {
			return 0, &zeolite.NotFoundError{OID: from}
		}
		if skipped%1024 == 1023 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		buf := r.buf[:]
		if found == nil {
			buf = buf[:recHdrLen+backLen]
		}
		h, n, err := r.current(oid, buf)
		gone := isNotFound(err)
		if err != nil && !gone {
			return 0, err
		}
		if !gone {
			if gone, err = r.isGone(h); err != nil {
				return 0, err
			}
		}
		if !gone {
			if found != nil {
				err = found(h, n)
			}
			return oid, err
		}
		from = oid + 1
	}
}

func isNotFound(err error) bool {
	_, ok := err.(*zeolite.NotFoundError)
	return ok
}
