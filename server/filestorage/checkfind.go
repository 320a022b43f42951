package filestorage

import (
	"bytes"
	"encoding/binary"
)

// How Check finds its way again behind damage: by what a transaction and its
// records say about each other, which nothing else in a file says by chance.

// findTxn returns the position of the first transaction from pos on that can be
// recognized: its length stands twice, and its first record, if it has any,
// names its position and tid. It is -1 if there is none.
func (c *checker) findTxn(pos int64) (int64, error) {
	const piece = 1 << 20
	buf := make([]byte, min(piece, max(0, c.size-pos)))
	for pos+guardLen <= c.size {
		b := buf[:min(int64(len(buf)), c.size-pos)]
		n, err := c.file.ReadAt(b, pos)
		if n < len(b) {
			return -1, readError(pos, err)
		}
		if err := c.ctx.Err(); err != nil {
			return -1, err
		}
		last := len(b) - guardLen
		for i := 0; i <= last; i++ {
			// Lengths below 2^40 and one of three statuses: few places pass.
			if b[i+8] != 0 || b[i+9] != 0 || b[i+10] != 0 {
				continue
			}
			switch b[i+statusOffset] {
			case statusNormal, statusPacked, statusUndone:
			default:
				continue
			}
			h := parseTxnHeader(b[i:], pos+int64(i))
			if ok, err := c.plausible(&h); ok || err != nil {
				return h.pos, err
			}
		}
		pos += int64(last) + 1
	}
	return -1, nil
}

// plausible recognizes a transaction by its header.
func (c *checker) plausible(h *txnHeader) (bool, error) {
	if h.tid == 0 || h.length < h.headerLen() {
		return false, nil
	}
	if ok, err := c.endsWith(h); !ok || err != nil {
		return false, err
	}
	if h.records() == h.end() {
		// Without records there is little to go by: the tid must fit.
		return h.tid > c.last, nil
	}
	if h.length < h.headerLen()+recHdrLen {
		return false, nil
	}
	b, err := c.far.need(h.records(), recHdrLen)
	if err != nil {
		return false, err
	}
	r := parseRecHeader(b, h.records())
	return r.txnPos == h.pos && r.tid == h.tid && r.next() <= h.end(), nil
}

// findEnd returns where the length field of a transaction is, one of whose
// lengths is damaged; -1 if it cannot be found. Either the records lead there,
// or they do to the end that the header names.
func (c *checker) findEnd(h *txnHeader) (int64, error) {
	pos := h.records()
	for pos <= c.size-lengthLen {
		b, err := c.w.bytes(pos, recHdrLen)
		if err != nil {
			return -1, err
		}
		if len(b) == recHdrLen {
			if r := parseRecHeader(b, pos); r.txnPos == h.pos && r.tid == h.tid {
				pos = r.next()
				continue
			}
		}
		if len(b) >= lengthLen && int64(binary.BigEndian.Uint64(b)) == pos-h.pos || pos == h.end() && pos > h.records() {
			return pos, nil
		}
		break
	}
	// A transaction without records, whose end is followed by another one.
	if h.records() == h.end() {
		if b, err := c.far.bytes(h.next(), txnHdrLen); err != nil {
			return -1, err
		} else if len(b) == 0 {
			return h.end(), nil
		} else if len(b) == txnHdrLen {
			next := parseTxnHeader(b, h.next())
			if next.status == statusUncommitted {
				return h.end(), nil
			}
			if ok, err := c.plausible(&next); ok || err != nil {
				return h.end(), err
			}
		}
	}
	return -1, nil
}

// findRecord returns the position of the first record of the transaction from
// pos on, -1 if there is none.
func (t *txnWalk) findRecord(pos int64) (int64, error) {
	var txnPos [8]byte
	binary.BigEndian.PutUint64(txnPos[:], uint64(t.h.pos))
	const offset = 24 // of the transaction's position in a record
	for pos = max(pos, t.h.pos+txnHdrLen); pos <= t.end-recHdrLen; {
		b, err := t.w.bytes(pos+offset, int(min(windowSize, t.end-pos-offset)))
		if err != nil {
			return -1, err
		}
		i := bytes.Index(b, txnPos[:])
		if i < 0 {
			if len(b) < len(txnPos) {
				return -1, nil
			}
			pos += int64(len(b) - len(txnPos) + 1)
			continue
		}
		pos += int64(i)
		r, ok, err := t.recordAt(pos)
		if err != nil {
			return -1, err
		}
		if ok && r.tid == t.h.tid && r.version == 0 {
			return pos, nil
		}
		pos++
	}
	return -1, nil
}
