package filestorage

import (
	"encoding/binary"
	"fmt"
	"log/slog"

	"github.com/zeolite-go/zeolite"
)

// scanner brings an index up to date from a position in the file on, and finds
// where the last good transaction ends, by the rules of FileStorage's
// read_index. It is used by one goroutine.
type scanner struct {
	w     *window
	size  int64
	index *index
	log   *slog.Logger
	// progress is called after each scanProgressStep bytes; its error ends the
	// scan.
	progress func(done, total int64) error
	told     int64

	// pos is the end of the last good transaction, last its TID.
	pos  int64
	last zeolite.TID
	// torn says why there is something after pos that does not count; it is
	// empty if there is nothing.
	torn string
}

const scanProgressStep = 16 << 20

// run scans to the end of the file. An error means damage that is not the torn
// end which a crash leaves.
func (sc *scanner) run() error {
	sc.w.forward(sc.pos, sc.size)
	defer sc.w.close()
	for {
		b, err := sc.w.bytes(sc.pos, txnHdrLen)
		if err != nil {
			return err
		}
		if len(b) == 0 {
			return nil
		}
		if len(b) < txnHdrLen {
			sc.torn = "it ends in a transaction header"
			return nil
		}
		h := parseTxnHeader(b, sc.pos)
		if h.status == statusUncommitted {
			sc.torn = "the transaction was not committed"
			return nil
		}
		if h.length > sc.size-sc.pos-lengthLen {
			sc.torn = fmt.Sprintf("the transaction of %d bytes goes past the end of the file", h.length)
			return nil
		}
		if h.length < h.headerLen() {
			return sc.shortTxn(h)
		}
		if h.tid <= sc.last {
			sc.log.Warn("transaction is not later than the one before", "file position", h.pos, "tid", h.tid, "before", sc.last)
		}
		if err := sc.txn(&h); err != nil {
			return err
		}
		sc.last, sc.pos = h.tid, h.next()
		if sc.pos-sc.told >= scanProgressStep {
			sc.told = sc.pos
			if err := sc.progress(sc.pos, sc.size); err != nil {
				return err
			}
		}
	}
}

// shortTxn tells the rest of a crash, at the end of the file, from damage in
// the middle: the latter has a plausible length as its last bytes.
func (sc *scanner) shortTxn(h txnHeader) error {
	b, err := sc.w.need(sc.size-lengthLen, lengthLen)
	if err != nil {
		return err
	}
	length := binary.BigEndian.Uint64(b)
	if length < txnHdrLen || length > uint64(sc.size-h.pos) {
		sc.torn = "there is no valid transaction header"
		return nil
	}
	return damaged(h.pos, "transaction is shorter than its header")
}

// txn enters the records of one transaction into the index.
func (sc *scanner) txn(h *txnHeader) error {
	if h.status != statusNormal && h.status != statusPacked && h.status != statusUndone {
		sc.log.Warn("transaction has an unknown status", "file position", h.pos, "status", string(rune(h.status)))
	}
	if h.status != statusUndone {
		for pos := h.records(); pos < h.end(); {
			r, err := sc.w.placedRecord(h, pos)
			if err != nil {
				return err
			}
			// Older revisions of one object are lost, not the database.
			if err := r.checkPointers(); err != nil {
				sc.log.Error("a record points to a wrong place; zeolite check says more", "error", err)
			}
			sc.index.set(r.oid, pos)
			pos = r.next()
		}
	}
	b, err := sc.w.need(h.end(), lengthLen)
	if err != nil {
		return err
	}
	if length := clampInt64(binary.BigEndian.Uint64(b)); length != h.length {
		return damaged(h.end(), "transaction has two lengths, %d and %d", h.length, length)
	}
	return nil
}

// sane checks an index that was read from a file against the transactions that
// end at pos, as FileStorage does: their last few records must be the ones the
// index knows. It returns the TID of the last transaction.
func sane(w *window, size int64, x *index, pos int64) (zeolite.TID, error) {
	const minPos, records = 100, 5
	if pos < minPos || pos > size {
		return 0, fmt.Errorf("it is for a file of %d bytes", pos)
	}
	var last zeolite.TID
	for pos > magicLen {
		h, err := w.before(pos)
		if err != nil {
			return 0, err
		}
		if last == 0 {
			last = h.tid
		}
		pos = h.pos
		if h.status == statusUndone {
			continue
		}
		if h.status != statusNormal && h.status != statusPacked {
			return 0, damaged(h.pos, "transaction has an unknown status")
		}
		// The records of the last transaction that has any must be the
		// newest of their objects. Of earlier ones they need not be.
		newest := make(map[zeolite.OID]int64)
		for p := h.records(); p < h.end() && len(newest) < records; {
			r, err := w.record(&h, p)
			if err != nil {
				return 0, err
			}
			newest[r.oid] = p
			p = r.next()
		}
		for oid, p := range newest {
			// Not equal, but later: a second record in the transaction.
			if have, ok := x.get(oid); !ok || have < p || have >= h.end() {
				return 0, fmt.Errorf("it does not have oid %v at %d", oid, p)
			}
		}
		if len(newest) > 0 {
			break
		}
	}
	return last, nil
}
