package filestorage

import (
	"errors"
	"fmt"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/references"
)

// errResurrected says that a transaction that was committed during the pack
// refers to an object that was garbage when the pack began.
var errResurrected = errors.New("a transaction refers to an object that was found to be garbage")

// mark marks the objects that can be reached from the root, or from any record
// of a later transaction.
//
// A reference that leads nowhere is an error where Python's pack fails, too: if
// it is in what could be reached from the root at p.tid, or in an old revision
// that a later record gives back to such an object. What only later
// transactions refer to may refer to anything.
func (p *packer) mark() error {
	if p.current.len() == 0 {
		return nil
	}
	level, ok := p.reach(nil, zeolite.RootOID)
	if !ok {
		return &zeolite.StorageError{
			Class:   "builtins.KeyError",
			Message: "cannot collect garbage: there is no root object, so everything would be garbage",
			Err:     &zeolite.NotFoundError{OID: zeolite.RootOID},
		}
	}
	if err := p.follow(level, true); err != nil {
		return err
	}
	if err := p.followGivenBack(); err != nil {
		return err
	}
	if err := p.checkDangling(); err != nil {
		return err
	}
	level, err := p.reachFromLater(level[:0])
	if err != nil {
		return err
	}
	return p.follow(level, false)
}

// reach marks an object and adds the position of its record to level, if that
// is new. It fails if there is no such object as of p.tid.
func (p *packer) reach(level []int64, oid zeolite.OID) ([]int64, bool) {
	pos, ok := p.current.mark(oid, markBit)
	if ok && pos&markBit == 0 {
		level = append(level, pos)
	}
	return level, ok
}

// reachAll marks the objects that references lead to.
func (p *packer) reachAll(level []int64, refs []reference, strict bool) []int64 {
	for _, r := range refs {
		if strict && p.exempt[r.to] {
			continue // reachFromLater comes to it
		}
		var ok bool
		if level, ok = p.reach(level, r.to); !ok && strict && !p.unmade[r.to] {
			p.dangling = append(p.dangling, r)
		}
	}
	return level
}

// followGivenBack marks what old revisions refer to that later records give
// back to objects that were reached, as of p.tid. The first such record of an
// object that was not reached makes no claims about what it refers to; but from
// then on the object counts as reached.
func (p *packer) followGivenBack() error {
	var level []int64
	var job markJob
	m := marker{g: p.g}
	for _, b := range p.givenBack {
		if pos, ok := p.current.get(b.oid); !p.exempt[b.oid] && (!ok || pos&markBit == 0) {
			if p.exempt == nil {
				p.exempt = make(map[zeolite.OID]bool)
			}
			p.exempt[b.oid] = true
		}
	}
	seen := make(map[zeolite.OID]bool)
	for _, b := range p.givenBack {
		if p.exempt[b.oid] && !seen[b.oid] {
			seen[b.oid] = true
			continue
		}
		job.level = []int64{b.back}
		if m.read(&job); job.err != nil {
			return job.err
		}
		level = p.reachAll(level, job.refs, true)
	}
	return p.follow(level, true)
}

// checkDangling refuses to pack if references lead nowhere, unless that is
// allowed.
func (p *packer) checkDangling() error {
	n := len(p.dangling)
	if n == 0 {
		return nil
	}
	const logged = 10
	for _, d := range p.dangling[:min(n, logged)] {
		p.s.log.Warn("a reference dangles", "path", p.s.path, "from", d.from, "to", d.to)
	}
	if p.s.opts.PackDangling {
		p.s.log.Warn("packing although there are references to objects that do not exist", "path", p.s.path, "count", n)
		return nil
	}
	return &zeolite.StorageError{
		Class: "builtins.KeyError",
		Message: fmt.Sprintf("cannot collect garbage, and nothing was changed: references to objects that do not exist: %d, the first in oid %v",
			n, p.dangling[0].from),
		Err: &zeolite.NotFoundError{OID: p.dangling[0].to},
	}
}

// reachFromLater adds what the transactions later than p.tid refer to.
func (p *packer) reachFromLater(level []int64) ([]int64, error) {
	end := p.g.end.Load()
	p.markedTo = end
	w := newWindow(p.g.file)
	var oids []zeolite.OID
	for pos := p.packPos; pos < end; {
		t, err := w.txn(pos, end)
		if err != nil {
			return nil, err
		}
		for at := t.records(); at < t.end(); {
			r, err := w.record(&t, at)
			if err != nil {
				return nil, err
			}
			// The object itself: what it was before may still be read.
			level, _ = p.reach(level, r.oid)
			_, data, err := p.g.recordAt(at, p.buf[:])
			if err != nil {
				return nil, err
			}
			if oids, err = findReferences(oids[:0], r.oid, data); err != nil {
				return nil, err
			}
			for _, oid := range oids {
				level, _ = p.reach(level, oid)
			}
			at = r.next()
		}
		pos = t.next()
		if err := p.step("mark later", pos, end); err != nil {
			return nil, err
		}
	}
	return level, nil
}

// recordAt reads the record at pos with the data it has or points to.
func (g *generation) recordAt(pos int64, buf []byte) (recHeader, []byte, error) {
	n, err := g.file.ReadAt(buf, pos)
	if n < recHdrLen+backLen {
		return recHeader{}, nil, readError(pos, err)
	}
	h := parseRecHeader(buf[:n], pos)
	if err := h.check(h.oid, g.bound.Load()); err != nil {
		return h, nil, err
	}
	data, err := g.readData(h, buf, n)
	return h, data, err
}

// findReferences finds the references of a record. A record that cannot be
// understood stops the pack: what it refers to would be lost.
func findReferences(oids []zeolite.OID, of zeolite.OID, data []byte) ([]zeolite.OID, error) {
	oids, err := references.Find(oids, data)
	if err != nil {
		return nil, &zeolite.StorageError{Message: "cannot collect garbage: cannot read the references of oid " + of.String(), Err: err}
	}
	return oids, nil
}

// reference is one object's to another.
type reference struct{ from, to zeolite.OID }

// checkResurrected fails if the record of a transaction that was committed
// after mark refers to an object that mark did not reach.
func (p *packer) checkResurrected(r recHeader) error {
	_, data, err := p.g.recordAt(r.pos, p.buf[:])
	if err != nil {
		return err
	}
	oids, err := findReferences(nil, r.oid, data)
	if err != nil {
		return err
	}
	for _, oid := range append(oids, r.oid) {
		if pos, ok := p.current.get(oid); ok && pos&markBit == 0 {
			return errResurrected
		}
	}
	return nil
}
