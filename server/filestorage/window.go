package filestorage

import (
	"encoding/binary"
	"errors"
	"io"
	"math"

	"github.com/zeolite-go/zeolite"
)

// window reads a file in large pieces for walks that look at small parts near
// each other, in either direction. It is used by one goroutine at a time.
type window struct {
	file io.ReaderAt
	buf  []byte
	off  int64 // of buf[0]
	// backward makes a piece end, not start, with what was asked for.
	backward bool

	// ahead, if not nil, reads ahead (readahead.go); piece is what buf is part
	// of then, and aside for what is not in order.
	ahead        *readAhead
	piece, aside []byte
}

const windowSize = 64 << 10

func newWindow(file io.ReaderAt) *window {
	return &window{file: file, buf: make([]byte, 0, windowSize)}
}

// bytes returns the n bytes at off, valid until the next call. If the file
// ends before, they are fewer.
func (w *window) bytes(off int64, n int) ([]byte, error) {
	if off < 0 || off > math.MaxInt64-int64(n) {
		return nil, nil // a position that damage has made up
	}
	if w.has(off, n) {
		return w.buf[off-w.off:][:n], nil
	}
	if w.ahead != nil {
		if w.advance(off, n) {
			return w.buf[off-w.off:][:n], nil
		}
		return w.apart(off, n)
	}
	start := off
	size := max(n, cap(w.buf))
	if w.backward {
		start = max(0, off+int64(n)-int64(size))
	}
	if size > cap(w.buf) {
		w.buf = make([]byte, size)
	}
	got, err := w.file.ReadAt(w.buf[:size], start)
	w.buf, w.off = w.buf[:got], start
	if err != nil && !errors.Is(err, io.EOF) {
		w.buf = w.buf[:0]
		return nil, readError(off, err)
	}
	b := w.buf[min(int64(got), off-start):]
	return b[:min(n, len(b))], nil
}

// has says whether bytes would not have to read.
func (w *window) has(off int64, n int) bool {
	return off >= w.off && off+int64(n) <= w.off+int64(len(w.buf))
}

// need is bytes that must all be there.
func (w *window) need(off int64, n int) ([]byte, error) {
	b, err := w.bytes(off, n)
	if err == nil && len(b) < n {
		err = damaged(off, "the file ends too early")
	}
	return b, err
}

// txn reads the header of the transaction at pos and checks it against end,
// the end of the committed part.
func (w *window) txn(pos, end int64) (txnHeader, error) {
	b, err := w.need(pos, txnHdrLen)
	if err != nil {
		return txnHeader{}, err
	}
	h := parseTxnHeader(b, pos)
	switch {
	case h.length < h.headerLen():
		err = damaged(pos, "transaction is shorter than its header")
	case h.length > end-pos-lengthLen:
		err = damaged(pos, "transaction of %d bytes goes past the end at %d", h.length, end)
	case h.status == statusUncommitted:
		err = damaged(pos, "transaction in the middle of the file was not committed")
	}
	return h, err
}

// before reads the header of the transaction that ends at pos.
func (w *window) before(pos int64) (txnHeader, error) {
	b, err := w.need(pos-lengthLen, lengthLen)
	if err != nil {
		return txnHeader{}, err
	}
	length := clampInt64(binary.BigEndian.Uint64(b))
	if length < txnHdrLen || length > pos-lengthLen-magicLen {
		return txnHeader{}, damaged(pos-lengthLen, "transaction of %d bytes goes past the start", length)
	}
	h, err := w.txn(pos-lengthLen-length, pos)
	if err == nil && h.length != length {
		err = damaged(h.pos, "transaction has two lengths, %d and %d", h.length, length)
	}
	return h, err
}

// texts returns user, description and extension of a transaction as slices of
// one new allocation.
func (w *window) texts(h txnHeader) (user, desc, ext []byte, err error) {
	n := h.userLen + h.descLen + h.extLen
	if n == 0 {
		return nil, nil, nil, nil
	}
	b, err := w.need(h.pos+txnHdrLen, n)
	if err != nil {
		return nil, nil, nil, err
	}
	b = append([]byte(nil), b...)
	u, d := h.userLen, h.userLen+h.descLen
	return b[:u:u], b[u:d:d], b[d:], nil
}

// info describes a transaction.
func (w *window) info(h txnHeader) (*zeolite.TransactionInfo, error) {
	user, desc, ext, err := w.texts(h)
	if err != nil {
		return nil, err
	}
	return &zeolite.TransactionInfo{TID: h.tid, Status: h.status, User: user, Description: desc, Extension: ext, Size: h.length}, nil
}

// record reads the header of the record at pos in a transaction, with its back
// pointer.
func (w *window) record(t *txnHeader, pos int64) (recHeader, error) {
	h, err := w.placedRecord(t, pos)
	if err == nil {
		err = h.checkPointers()
	}
	return h, err
}

// placedRecord is record, but what it points to may be wrong.
func (w *window) placedRecord(t *txnHeader, pos int64) (recHeader, error) {
	b, err := w.need(pos, recHdrLen)
	if err != nil {
		return recHeader{}, err
	}
	h := parseRecHeader(b, pos)
	if h.dataLen == 0 {
		if b, err = w.need(pos, recHdrLen+backLen); err != nil {
			return recHeader{}, err
		}
		h = parseRecHeader(b, pos)
	}
	if err := h.checkPlace(h.oid, t.end()); err != nil {
		return h, err
	}
	if h.txnPos != t.pos {
		return h, damaged(pos, "record belongs to a transaction at %d, not to that at %d", h.txnPos, t.pos)
	}
	return h, nil
}

// data reads the n bytes of data of a record.
func (w *window) data(pos, n int64) ([]byte, error) {
	if n > math.MaxInt {
		return nil, damaged(pos, "the data of a record has %d bytes", n)
	}
	b, err := w.need(pos, int(n))
	return b[:len(b):len(b)], err
}
