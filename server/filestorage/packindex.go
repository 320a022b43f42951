package filestorage

import "github.com/zeolite-go/zeolite"

// findCurrent walks the transactions up to p.tid and remembers the newest
// record of each object, unless it says that the object is gone. It finds out
// where later transactions begin, and which records they point back to.
func (p *packer) findCurrent() error {
	end := p.g.end.Load()
	w := newWindow(p.g.file)
	w.forward(magicLen, end)
	defer w.close()
	unpacked := false
	pos := int64(magicLen)
	for pos < end {
		h, err := w.txn(pos, end)
		if err != nil {
			return err
		}
		if h.tid > p.tid {
			// A pack to an earlier moment than the last one.
			p.redundant = !unpacked && h.status == statusPacked
			break
		}
		unpacked = unpacked || h.status != statusPacked
		if h.status != statusUndone {
			if err := p.enter(w, &h); err != nil {
				return err
			}
		}
		pos = h.next()
		if err := p.step("index", pos, end); err != nil {
			return err
		}
	}
	p.packPos = pos
	if p.redundant || pos == magicLen {
		return nil
	}
	if !p.gc {
		p.kept = p.droppable // at most
	}
	for pos < end {
		h, err := w.txn(pos, end)
		if err != nil {
			return err
		}
		for at := h.records(); at < h.end(); {
			r, err := w.record(&h, at)
			if err != nil {
				return err
			}
			if r.back != 0 && r.back < p.packPos {
				p.targets[r.back] = 0
				if p.gc {
					p.givenBack = append(p.givenBack, givenBack{r.oid, r.back})
				}
			}
			at = r.next()
		}
		pos = h.next()
		if err := p.step("index", pos, end); err != nil {
			return err
		}
	}
	return nil
}

// enter takes note of the records of a transaction.
func (p *packer) enter(w *window, h *txnHeader) error {
	for at := h.records(); at < h.end(); {
		r, err := w.record(h, at)
		if err != nil {
			return err
		}
		gone := r.gone()
		if !gone && r.dataLen == 0 {
			if gone, err = p.g.isGone(r); err != nil {
				return err
			}
		}
		if gone {
			p.current.remove(r.oid)
		} else {
			p.current.set(r.oid, at)
		}
		if unmade := gone && r.back != 0; unmade || p.unmade[r.oid] {
			if p.unmade == nil {
				p.unmade = make(map[zeolite.OID]bool)
			}
			p.unmade[r.oid] = unmade
		}
		p.droppable += r.len()
		at = r.next()
	}
	return nil
}
