package filestorage

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/references"
)

// shift says that what was at from or behind it, up to the next shift, is now
// by bytes earlier in the file.
type shift struct{ from, by int64 }

// isKept says whether the record at pos before packPos goes to the new file.
func (p *packer) isKept(oid zeolite.OID, pos int64) bool {
	have, ok := p.current.get(oid)
	if p.gc && have&markBit == 0 {
		return false
	}
	return ok && have&^markBit == pos
}

// copyPacked copies what is kept of the transactions before packPos.
func (p *packer) copyPacked() error {
	w := newWindow(p.g.file)
	w.forward(magicLen, p.packPos)
	defer w.close()
	for pos := int64(magicLen); pos < p.packPos; {
		t, err := w.txn(pos, p.packPos)
		if err != nil {
			return err
		}
		if t.status != statusUndone {
			if err := p.copyPackedTxn(w, &t); err != nil {
				return err
			}
		}
		pos = t.next()
		if err := p.step("copy", pos, p.g.end.Load()); err != nil {
			return err
		}
	}
	p.copied = p.packPos
	p.shifts = append(p.shifts, shift{p.packPos, p.packPos - p.out.end()})
	return nil
}

// copyPackedTxn copies the records of a transaction that are kept, and notes the
// blobs of those that are not. A transaction without any goes, too. But the last
// one of all stays, if without records: LastTID must not go back, or clients know
// more than their server.
func (p *packer) copyPackedTxn(w *window, t *txnHeader) error {
	// Each byte is read once: so the length is filled in when it is known.
	start := p.out.end()
	user, desc, ext, err := w.texts(*t)
	if err != nil {
		return err
	}
	begun := false
	begin := func() error {
		begun = true
		return packError(p.out.write(appendTxnHeader(p.buf[:0], t.tid, 0, statusPacked, user, desc, ext)))
	}
	for at := t.records(); at < t.end(); {
		r, err := w.record(t, at)
		if err != nil {
			return err
		}
		at = r.next()
		if !p.isKept(r.oid, r.pos) {
			if p.s.blobs != nil {
				if err := p.dropBlob(w, r); err != nil {
					return err
				}
			}
			continue
		}
		if !begun {
			if err := begin(); err != nil {
				return err
			}
		}
		_, data, err := p.newPointer(r)
		if err != nil {
			return err
		}
		place := p.out.end()
		if _, wanted := p.targets[r.pos]; wanted {
			p.targets[r.pos] = place
		}
		if _, err := p.copyRecord(w, r, 0, start, 0, data); err != nil {
			return err
		}
		p.index.set(r.oid, place)
	}
	if !begun {
		if t.tid != p.newest {
			return nil
		}
		if err := begin(); err != nil {
			return err
		}
	}
	var length [lengthLen]byte
	binary.BigEndian.PutUint64(length[:], uint64(p.out.end()-start))
	p.out.patch(start+lengthOffset, length[:])
	return packError(p.out.write(length[:]))
}

// maxBlobRecord is more than the record of a blob has: a class without a state.
const maxBlobRecord = 1024

// dropBlob notes that the blob of a record is to be removed, if it has one.
func (p *packer) dropBlob(w *window, r recHeader) error {
	if r.gone() || r.dataLen > maxBlobRecord {
		return nil
	}
	var data []byte
	var err error
	if r.dataLen > 0 {
		data, err = w.need(r.pos+recHdrLen, int(r.dataLen))
	} else {
		_, data, err = p.g.recordAt(r.pos, p.buf[:])
	}
	if err != nil {
		return err
	}
	if references.IsBlob(data) {
		p.removed = append(p.removed, removedBlob{r.oid, r.tid})
	}
	return nil
}

// copyRest copies the transactions from p.copied to end.
func (p *packer) copyRest(end int64) error {
	w := newWindow(p.g.file)
	var recs []recHeader
	for p.copied < end {
		t, err := w.txn(p.copied, end)
		if err != nil {
			return err
		}
		recs = recs[:0]
		for at := t.records(); at < t.end(); {
			r, err := w.record(&t, at)
			if err != nil {
				return err
			}
			if p.gc && at >= p.markedTo {
				if err := p.checkResurrected(r); err != nil {
					return err
				}
			}
			recs = append(recs, r)
			at = r.next()
		}
		if err := p.copyTxn(w, &t, recs); err != nil {
			return err
		}
		p.copied = t.next()
		if by := p.copied - p.out.end(); by != p.shifts[len(p.shifts)-1].by {
			p.shifts = append(p.shifts, shift{p.copied, by})
		}
		if err := p.step("copy", p.copied, end); err != nil {
			return err
		}
	}
	return nil
}

// moved returns the new position of a record behind packPos.
func (p *packer) moved(pos int64) int64 {
	i, found := slices.BinarySearchFunc(p.shifts, pos, func(s shift, pos int64) int { return cmp.Compare(s.from, pos) })
	if !found {
		i--
	}
	return pos - p.shifts[i].by
}

// copyTxn copies a transaction behind packPos.
func (p *packer) copyTxn(w *window, t *txnHeader, recs []recHeader) error {
	// What records point to decides how long they get.
	backs := make([]int64, len(recs))
	bodies := make([][]byte, len(recs))
	length := t.headerLen()
	for i, r := range recs {
		var err error
		if backs[i], bodies[i], err = p.newPointer(r); err != nil {
			return err
		}
		switch {
		case bodies[i] != nil:
			length += recHdrLen + int64(len(bodies[i]))
		default:
			length += r.len()
		}
	}
	user, desc, ext, err := w.texts(*t)
	if err != nil {
		return err
	}
	newPos := p.out.end()
	if err := p.out.write(appendTxnHeader(nil, t.tid, length, t.status, user, desc, ext)); err != nil {
		return packError(err)
	}
	place := p.out.end()
	lengthChanged := length != t.length
	for i, r := range recs {
		if lengthChanged && place != r.pos-p.shifts[len(p.shifts)-1].by {
			p.shifts = append(p.shifts, shift{r.pos, r.pos - place})
		}
		prev, _ := p.index.get(r.oid)
		n, err := p.copyRecord(w, r, prev, newPos, backs[i], bodies[i])
		if err != nil {
			return err
		}
		p.index.set(r.oid, place)
		place += n
	}
	var b [lengthLen]byte
	binary.BigEndian.PutUint64(b[:], uint64(length))
	return packError(p.out.write(b[:]))
}

// newPointer decides what becomes of a record that points to another: it
// points to where that is now, or gets the data itself.
func (p *packer) newPointer(r recHeader) (back int64, data []byte, err error) {
	if r.dataLen > 0 || r.back == 0 {
		return 0, nil, nil
	}
	if r.pos >= p.packPos {
		if r.back >= p.packPos {
			return p.moved(r.back), nil, nil
		}
		if to := p.targets[r.back]; to != 0 {
			return to, nil, nil
		}
	}
	_, data, err = p.g.recordAt(r.pos, p.buf[:])
	return 0, data, err // no data: the object is gone
}

// copyRecord writes a record and returns its length.
func (p *packer) copyRecord(w *window, r recHeader, prev, txnPos, back int64, data []byte) (int64, error) {
	var head [recHdrLen + backLen]byte
	dataLen := r.dataLen
	if data != nil {
		dataLen = int64(len(data))
	}
	b := appendRecHeader(head[:0], r.oid, r.tid, prev, txnPos, dataLen)
	if dataLen == 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(back))
	}
	if err := p.out.write(b); err != nil {
		return 0, packError(err)
	}
	n := int64(len(b)) + dataLen
	if data != nil {
		return n, packError(p.out.write(data))
	}
	for done := int64(0); done < dataLen; {
		part, err := w.need(r.pos+recHdrLen+done, int(min(windowSize, dataLen-done)))
		if err != nil {
			return 0, err
		}
		if err := p.out.write(part); err != nil {
			return 0, packError(err)
		}
		done += int64(len(part))
	}
	return n, nil
}

func packError(err error) error {
	if err == nil {
		return nil
	}
	return &zeolite.StorageError{Message: "cannot write the packed database", Err: err}
}
