package filestorage

import (
	"errors"
	"io"
	"math"
	"sync"
	"sync/atomic"

	"github.com/zeolite-go/zeolite"
)

// generation is one Data.fs with its index: packing replaces it as a whole. It
// may be used by any number of goroutines at once, each between acquire and
// release, so that the file stays open until the last reader is done.
type generation struct {
	file  File
	index *index
	refs  atomic.Int64

	// last is the newest transaction that is visible. The index may already
	// know records of the one after it, which readers pass over: so a
	// transaction becomes visible at once although its objects do not.
	last atomic.Uint64
	// end is the position after the last visible transaction.
	end atomic.Int64
	// bound is the position that no record of the index reaches past.
	bound atomic.Int64
}

func newGeneration(file File, x *index) *generation {
	g := &generation{file: file, index: x}
	g.refs.Store(1)
	return g
}

// tryAcquire adds a reader, unless the last one has left for good.
func (g *generation) tryAcquire() bool {
	for {
		n := g.refs.Load()
		if n == 0 {
			return false
		}
		if g.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (g *generation) release() {
	if g.refs.Add(-1) == 0 {
		g.file.Close()
	}
}

func (g *generation) lastTID() zeolite.TID { return zeolite.TID(g.last.Load()) }

// acquire returns the current generation; the caller releases it.
func (s *Storage) acquire() (*generation, error) {
	for {
		g := s.gen.Load()
		if g.tryAcquire() {
			return g, nil
		}
		if s.closed.Load() {
			return nil, zeolite.ErrClosed
		}
	}
}

// readGuess is how much is read at first for a record: most fit, and reading
// a few bytes too many costs less than a second call.
const readGuess = 4096

var guessPool = sync.Pool{New: func() any { return new([readGuess]byte) }}

// readHeader reads and checks the header of a record of oid. Whatever came
// with it stays in buf, n bytes.
func (g *generation) readHeader(oid zeolite.OID, pos int64, buf []byte) (h recHeader, n int, err error) {
	if pos == unreadable {
		return recHeader{}, 0, errUnreadable
	}
	n, err = g.file.ReadAt(buf, pos)
	if n < recHdrLen || n < recHdrLen+backLen && len(buf) >= recHdrLen+backLen {
		if err == nil || errors.Is(err, io.EOF) {
			err = damaged(pos, "the file ends in a record of oid %v", oid)
		}
		return recHeader{}, n, err
	}
	h = parseRecHeader(buf[:n], pos)
	return h, n, h.check(oid, g.bound.Load())
}

// withData returns the header of the record that has the data of h: this one, or one
// that it points to. That has none, either, if the object is gone.
func (g *generation) withData(h recHeader, buf []byte, n int) (recHeader, int, error) {
	for h.dataLen == 0 && h.back != 0 {
		var err error
		if h, n, err = g.readHeader(h.oid, h.back, buf); err != nil {
			return h, n, err
		}
	}
	return h, n, nil
}

// readData returns the data of a record whose header came from readHeader with
// buf, or of the record it points to. It is nil if the object is gone.
func (g *generation) readData(h recHeader, buf []byte, n int) ([]byte, error) {
	h, n, err := g.withData(h, buf, n)
	if err != nil || h.dataLen == 0 {
		return nil, err
	}
	if h.dataLen > math.MaxInt {
		return nil, damaged(h.pos, "record of oid %v has %d bytes of data", h.oid, h.dataLen)
	}
	data := make([]byte, h.dataLen)
	have := copy(data, buf[recHdrLen:n])
	if have < len(data) {
		if _, err := g.file.ReadAt(data[have:], h.pos+recHdrLen+int64(have)); err != nil {
			return nil, readError(h.pos, err)
		}
	}
	return data, nil
}

// isGone says whether a record, or the one it points to, says that the object
// is gone.
func (g *generation) isGone(h recHeader) (bool, error) {
	var buf [recHdrLen + backLen]byte
	h, _, err := g.withData(h, buf[:], 0)
	return err == nil && h.dataLen == 0, err
}

// current reads the header of the newest visible record of oid into buf. It
// fails with *NotFoundError if there is none.
func (g *generation) current(oid zeolite.OID, buf []byte) (h recHeader, n int, err error) {
	last := g.lastTID()
	pos, ok := g.index.get(oid)
	for ok {
		if h, n, err = g.readHeader(oid, pos, buf); err != nil {
			return h, n, err
		}
		if h.tid <= last {
			return h, n, nil
		}
		pos, ok = h.prev, h.prev != 0
	}
	return h, 0, &zeolite.NotFoundError{OID: oid}
}

// readError makes a clear error of one that came from reading at pos.
func readError(pos int64, err error) error {
	if errors.Is(err, io.EOF) {
		return damaged(pos, "the file ends too early")
	}
	return &zeolite.StorageError{Message: "cannot read Data.fs", Err: err}
}
