package filestorage

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/zeolite-go/zeolite"
)

// What the findings about structure advise.
const (
	lostHistoryAdvice = "The current state of the object is there; earlier ones may not be found any more. " +
		"Restore from a backup, or pack to forget them."
	lostRecordsAdvice = "What is committed in the damaged part may be lost. Restore from a backup, and compare; " +
		"Python's fsrecover copies what can be read."
	fieldAdvice = "No data is lost by itself, but servers refuse to read it. Restore from a backup; " +
		"Python's fsrecover copies what can be read."
)

// structure walks the transactions and checks all but the data of records.
func (c *checker) structure() error {
	if c.size < magicLen {
		return nil
	}
	pos := int64(magicLen)
	for pos < c.size {
		c.compareSavedIndex(pos, false)
		next, err := c.txn(pos)
		if err != nil {
			return err
		}
		if next < 0 { // the end of what is committed
			break
		}
		pos = next
		if err := c.step("structure", pos, c.size); err != nil {
			return err
		}
	}
	c.end = pos
	if _, ok := c.index.get(zeolite.RootOID); !ok && c.index.len() > 0 {
		c.found(Finding{Severity: Warning, Pos: -1, OID: zeolite.RootOID, HasOID: true,
			What: "there is no root object", Advice: "ZODB makes a new, empty one; packing is refused until there is one."})
	}
	return nil
}

// txn checks the transaction at pos and returns where the next one is; -1 if
// there is no other.
func (c *checker) txn(pos int64) (next int64, err error) {
	b, err := c.w.bytes(pos, txnHdrLen)
	if err != nil {
		return 0, err
	}
	if len(b) < txnHdrLen {
		return c.tail(txnHeader{pos: pos}, "it ends in a transaction header")
	}
	h := parseTxnHeader(b, pos)
	if h.status == statusUncommitted {
		return c.tail(h, "the last transaction was not committed")
	}
	// The length is believed if it stands at the end, too.
	twice, err := c.endsWith(&h)
	if err != nil {
		return 0, err
	}
	t := &txnWalk{checker: c, h: h, end: h.end(), tid: h.tid}
	if !twice {
		if t.end, err = c.findEnd(&h); err != nil {
			return 0, err
		}
		if t.end < 0 {
			return c.broken(h)
		}
		c.odd[pos] = oddTxn{t.end, t.end + lengthLen}
		at := h.pos + 8
		if h.length == t.end-h.pos {
			at = t.end
		}
		t.found(Finding{Severity: Damage, Pos: at, What: fmt.Sprintf("the transaction of %d bytes has a wrong length in its header or its end",
			t.end-h.pos), Advice: fieldAdvice})
	}
	c.texts(&h)
	if err := t.records(); err != nil {
		return 0, err
	}
	t.header()
	c.report.Transactions++
	c.last = t.tid
	return t.end + lengthLen, nil
}

// endsWith says whether the length in a header is plausible and stands at the
// end of the transaction, too.
func (c *checker) endsWith(h *txnHeader) (bool, error) {
	if h.length < h.headerLen() || h.length > c.size-h.pos-lengthLen {
		return false, nil
	}
	w := c.far
	if c.w.has(h.end(), lengthLen) {
		w = c.w
	}
	b, err := w.bytes(h.end(), lengthLen)
	return err == nil && len(b) == lengthLen && clampInt64(binary.BigEndian.Uint64(b)) == h.length, err
}

// tail sees to what follows the last transaction. Anything that a running
// server is just writing is none of our business.
func (c *checker) tail(h txnHeader, what string) (int64, error) {
	c.end = h.pos
	next, err := c.findTxn(h.pos + 1)
	if err != nil {
		return 0, err
	}
	b := make([]byte, txnHdrLen)
	if st, err := c.file.Stat(); err == nil && st.Size() != c.size {
		return -1, nil // it grew, or the tail was cut off
	}
	n, _ := c.file.ReadAt(b, h.pos)
	if n == txnHdrLen && b[statusOffset] != h.status {
		return -1, nil // it was committed meanwhile
	}
	if next >= 0 {
		c.odd[h.pos] = oddTxn{h.pos, next}
		c.found(Finding{Severity: Damage, Pos: h.pos, TID: h.tid,
			What:   fmt.Sprintf("a transaction that was not committed is in the middle of the file, before that at %d", next),
			Advice: "Opening the file for writing would cut off all that follows. Copy the file before anything else."})
		return next, nil
	}
	if c.size-h.pos == guardLen && n == txnHdrLen {
		return -1, nil // our guard
	}
	c.found(Finding{Severity: Note, Pos: h.pos, TID: h.tid, What: fmt.Sprintf("%s (%d bytes)", what, c.size-h.pos),
		Advice: "A crash leaves this. Nothing that was committed is lost. Opening the file cuts it off, and keeps it as Data.fs.trN."})
	return -1, nil
}

// broken sees to a transaction whose end cannot be found.
func (c *checker) broken(h txnHeader) (int64, error) {
	next, err := c.findTxn(h.pos + 1)
	if err != nil {
		return 0, err
	}
	if st, err := c.file.Stat(); next < 0 && err == nil && st.Size() > c.size {
		c.end = h.pos
		return -1, nil // a server was just writing it
	}
	f := Finding{Severity: Damage, Pos: h.pos, TID: h.tid, Advice: lostRecordsAdvice,
		What: fmt.Sprintf("the transaction of %d bytes goes past the end of the file", h.length)}
	switch {
	case h.length < h.headerLen():
		f.What = "the transaction is shorter than its header"
	case next >= 0:
		f.What = "the transaction has no end"
	}
	if next >= 0 {
		f.What += fmt.Sprintf("; the next one that can be recognized is at %d, %d bytes later", next, next-h.pos)
		f.Advice = "The file cannot be opened, or would lose all that follows. " + lostRecordsAdvice
	} else {
		f.Advice = "If it was committed, this last transaction is lost: the file has been cut. Opening the file removes what is left of it, " +
			"and keeps that as Data.fs.trN."
	}
	c.found(f)
	if next >= 0 {
		// Records that are whole count, so that not all that points to
		// them seems wrong.
		t := &txnWalk{checker: c, h: h, end: next - lengthLen, tid: h.tid, quiet: true}
		c.odd[h.pos] = oddTxn{t.end, next}
		if err := t.records(); err != nil {
			return 0, err
		}
	}
	return next, nil
}

// txnWalk is the walk over the records of one transaction, whose length field
// is at end.
type txnWalk struct {
	*checker
	h     txnHeader
	end   int64
	tid   zeolite.TID // that of the records, if they agree on another one
	quiet bool        // the transaction has been reported as a whole
	count int64
	odd   int64 // records with another tid
	oddAt int64
}

func (t *txnWalk) found(f Finding) {
	if t.quiet {
		return
	}
	f.TID = t.h.tid
	t.checker.found(f)
}

// header checks what does not depend on where things are.
func (t *txnWalk) header() {
	c, h := t.checker, &t.h
	switch h.status {
	case statusNormal, statusPacked, statusUndone:
	default:
		t.found(Finding{Severity: Damage, Pos: h.pos + statusOffset, What: fmt.Sprintf("the transaction has the unknown status %q", h.status),
			Advice: "No data is lost: it is read as committed."})
	}
	if t.odd > 0 {
		t.found(Finding{Severity: Damage, Pos: t.oddAt, Advice: fieldAdvice,
			What: fmt.Sprintf("%d of %d records have another tid than their transaction", t.odd, t.count)})
	}
	if t.tid <= c.last {
		t.found(Finding{Severity: Damage, Pos: h.pos, What: fmt.Sprintf("the transaction is not later than %v before it", c.last),
			Advice: "No data is lost, but reads as of some moment, and caches of clients, may be wrong. Copy the database (zeolite copy) to a new one."})
	}
	if ahead := time.Until(t.tid.Time()); ahead > 30*time.Minute && !c.warnedAhead {
		c.warnedAhead = true
		t.found(Finding{Severity: Warning, Pos: h.pos, What: fmt.Sprintf("the transaction is from the future, by %v", ahead.Round(time.Minute)),
			Advice: "The clock was wrong when it was committed, or the tid is damaged. New transactions follow it in tid, not in time."})
	}
}

// records checks the records, and enters them into the index.
func (t *txnWalk) records() error {
	h := &t.h
	for pos := h.records(); pos != t.end; {
		r, ok, err := t.recordAt(pos)
		if err != nil {
			return err
		}
		if !ok {
			next, err := t.findRecord(pos + 1)
			if err != nil {
				return err
			}
			to := next
			if next < 0 {
				to = t.end
			}
			t.found(Finding{Severity: Damage, Pos: pos, What: fmt.Sprintf("%d bytes are not a record", to-pos),
				Advice: lostRecordsAdvice})
			if next < 0 {
				return nil
			}
			pos = next
			continue
		}
		if h.status != statusUndone {
			if err := t.record(&r); err != nil {
				return err
			}
		}
		pos = r.next()
	}
	return nil
}

// recordAt reads the header at pos, if it is that of a record of the
// transaction: it says so by one at least of tid and position, and ends in it.
func (t *txnWalk) recordAt(pos int64) (r recHeader, ok bool, err error) {
	if pos < t.h.pos+txnHdrLen || pos > t.end-recHdrLen {
		return r, false, nil
	}
	b, err := t.w.bytes(pos, recHdrLen)
	if err != nil || len(b) < recHdrLen {
		return r, false, err
	}
	r = parseRecHeader(b, pos)
	if r.txnPos != t.h.pos && r.tid != t.h.tid || r.next() > t.end {
		return r, false, nil
	}
	if r.dataLen == 0 {
		if b, err = t.w.need(pos, recHdrLen+backLen); err != nil {
			return r, false, err
		}
		r = parseRecHeader(b, pos)
	}
	return r, true, nil
}

// record checks a record, and enters it into the index.
func (t *txnWalk) record(r *recHeader) error {
	c := t.checker
	damage := func(advice, format string, args ...any) {
		t.found(Finding{Severity: Damage, Pos: r.pos, OID: r.oid, HasOID: true, What: fmt.Sprintf(format, args...), Advice: advice})
	}
	if r.txnPos != t.h.pos {
		damage(fieldAdvice, "the record says that it belongs to a transaction at %d", r.txnPos)
	}
	if r.version != 0 {
		damage(fieldAdvice, "the record has a version")
	}
	if r.tid != t.h.tid {
		if t.odd++; t.odd == 1 {
			t.oddAt = r.pos
		}
		// It is the transaction's that is damaged if all agree.
		if t.count == 0 {
			t.tid = r.tid
		}
	}
	if t.count > 0 && r.tid != t.tid {
		t.tid = t.h.tid
	}
	if err := t.previous(r, damage); err != nil {
		return err
	}
	gone := r.gone()
	if r.back != 0 {
		var err error
		if gone, err = t.back(r, damage); err != nil {
			return err
		}
	}
	pos := r.pos
	if gone {
		pos |= goneBit
	}
	c.index.set(r.oid, pos)
	t.count++
	c.report.Records++
	return nil
}

// previous checks the pointer to the object's previous record.
func (t *txnWalk) previous(r *recHeader, damage func(string, string, ...any)) error {
	want, known := t.index.get(r.oid)
	want &^= goneBit
	if r.prev == want || r.prev == 0 && t.h.status == statusPacked {
		return nil // want is 0 if the object is new
	}
	if known && want >= t.h.pos {
		// A second record in the transaction: Python lets both point to
		// the same.
		b, err := t.far.need(want, recHdrLen)
		if err != nil || parseRecHeader(b, want).prev == r.prev {
			return err
		}
	}
	if b, err := t.far.bytes(r.prev, recHdrLen); err == nil && len(b) == recHdrLen {
		p := parseRecHeader(b, r.prev)
		if _, why, err := t.target(p.oid, r.prev, r.pos); err == nil && why == "" && p.oid != r.oid {
			t.found(Finding{Severity: Damage, Pos: r.prev, OID: p.oid, HasOID: true, Advice: lostRecordsAdvice,
				What: fmt.Sprintf("the record has this oid, but one at %d names it as the previous one of oid %v", r.pos, r.oid)})
			return nil
		}
	}
	switch {
	case !known:
		damage(lostHistoryAdvice, "the record points to a previous one at %d, where the object has none", r.prev)
	case r.prev == 0:
		damage(lostHistoryAdvice, "the record does not point to the previous one at %d", want)
	default:
		damage(lostHistoryAdvice, "the record points to a previous one at %d, but that is at %d", r.prev, want)
	}
	return nil
}

// back checks the pointer to the record that has the data, and says whether in
// the end the object is gone.
func (t *txnWalk) back(r *recHeader, damage func(string, string, ...any)) (gone bool, err error) {
	const advice = "This revision of the object is lost, and the object if it is the newest one. Restore it from a backup, or undo the transaction."
	from := r.back
	for below := r.pos; ; {
		d, why, err := t.target(r.oid, from, below)
		if err != nil {
			return false, err
		}
		if why != "" {
			damage(advice, "the record points to one with its data at %d, where %s", from, why)
			return false, nil
		}
		if d.dataLen != 0 || d.back == 0 {
			return d.gone(), nil
		}
		from, below = d.back, d.pos
	}
}

// target reads the record that a pointer leads to. If it is none of the object
// before below, why says so.
func (c *checker) target(oid zeolite.OID, pos, below int64) (r recHeader, why string, err error) {
	if pos < magicLen+txnHdrLen || pos >= below {
		return r, "there can be no earlier record", nil
	}
	b, err := c.far.bytes(pos, recHdrLen+backLen)
	if err != nil {
		return r, "", err
	}
	if len(b) < recHdrLen+backLen {
		return r, "the file ends", nil
	}
	r = parseRecHeader(b, pos)
	if r.oid != oid {
		return r, "there is none of the object", nil
	}
	if r.txnPos < magicLen || r.txnPos >= pos || r.next() > c.size {
		return r, "there is no valid record", nil
	}
	if b, err = c.far.need(r.txnPos, txnHdrLen); err != nil {
		return r, "", err
	}
	if t := parseTxnHeader(b, r.txnPos); t.tid != r.tid || t.length < r.next()-t.pos {
		return r, "there is no record of a transaction", nil
	}
	return r, "", nil
}
