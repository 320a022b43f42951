package memory

import (
	"context"
	"maps"
	"os"
	"slices"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/references"
)

// Pack implements zeolite.Packer; it collects garbage unless told otherwise.
// An object stays if, as of tid, it can be reached from the root, or if it can
// be reached from any later revision: what a reader can still follow is kept.
//
// Finding what is reachable works on a snapshot, while everybody goes on. Only
// the sweep after it, which makes new lists, holds the locks.
func (s *Storage) Pack(ctx context.Context, tid zeolite.TID, opts zeolite.PackOptions) error {
	if !s.packing.TryLock() {
		return &zeolite.StorageError{Message: "packing runs already"}
	}
	defer s.packing.Unlock()

	if err := s.rlock(ctx); err != nil {
		return err
	}
	tid = min(tid, s.last) // what commits from now on is not to be packed
	done := tid <= s.packed || len(s.txns) == 0
	// Lists only grow while packing is held, so these headers are a snapshot.
	p := &packer{ctx: ctx, tid: tid, objects: maps.Clone(s.objects), progress: opts.Progress}
	txns := s.txns
	s.mu.RUnlock()
	if done {
		return nil
	}

	if opts.GC == nil || *opts.GC {
		if err := p.markAll(txns); err != nil {
			return err
		}
		p.report()
	}
	p.progress = nil // it may use the storage, so not under its locks

	s.commit.Lock()
	defer s.commit.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return zeolite.ErrClosed
	}
	if p.reachable != nil {
		// Commits of the meantime may refer to what was garbage before, and so
		// may what an undo is about to bring back.
		for _, r := range s.broughtBack() {
			if err := p.lookInto(r); err != nil {
				return err
			}
		}
		if err := p.markTransactions(s.txns[len(txns):]); err != nil {
			return err
		}
	}
	s.sweep(p)
	return nil
}

// packer is one Pack under way. It is used by the goroutine that packs.
type packer struct {
	ctx      context.Context
	tid      zeolite.TID
	objects  map[zeolite.OID][]*revision
	progress func(zeolite.PackProgress)

	reachable map[zeolite.OID]bool // nil: nothing is garbage
	todo      []zeolite.OID        // reachable, but not looked into yet
	marked    int64
}

// markAll marks what is reachable from the root as of p.tid, and from the
// records of later transactions.
func (p *packer) markAll(txns []*transaction) error {
	if !slices.ContainsFunc(p.objects[zeolite.RootOID], func(r *revision) bool { return r.data != nil }) {
		// Everything would be garbage: rather a mistake than a wish.
		return &zeolite.StorageError{Message: "cannot collect garbage: there is no root object",
			Err: &zeolite.NotFoundError{OID: zeolite.RootOID}}
	}
	p.reachable = map[zeolite.OID]bool{}
	p.reach(zeolite.RootOID)
	later, found := searchTransaction(txns, p.tid)
	if found {
		later++
	}
	return p.markTransactions(txns[later:])
}

// markTransactions marks what is reachable from the records of transactions
// later than p.tid, and everything that was put on p.todo before.
func (p *packer) markTransactions(txns []*transaction) error {
	for _, t := range txns {
		for _, r := range t.records {
			if err := p.lookInto(r); err != nil {
				return err
			}
		}
	}
	for len(p.todo) > 0 {
		oid := p.todo[len(p.todo)-1]
		p.todo = p.todo[:len(p.todo)-1]
		p.marked++
		if p.marked%1000 == 0 {
			p.report()
		}
		if r := p.asOf(p.objects[oid]); r != nil {
			if err := p.lookInto(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *packer) report() {
	if p.progress != nil {
		p.progress(zeolite.PackProgress{Phase: "mark", Done: p.marked, Total: int64(len(p.objects))})
	}
}

// lookInto reaches what a revision refers to.
func (p *packer) lookInto(r *revision) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if r.data == nil {
		return nil
	}
	oids, err := references.Find(nil, r.data)
	if err != nil {
		return &zeolite.StorageError{Message: "cannot collect garbage: cannot read the references of " + r.oid.String(), Err: err}
	}
	for _, oid := range oids {
		p.reach(oid)
	}
	return nil
}

func (p *packer) reach(oid zeolite.OID) {
	if !p.reachable[oid] {
		p.reachable[oid] = true
		p.todo = append(p.todo, oid)
	}
}

// asOf returns the revision that was current just after p.tid, nil if the
// object had none.
func (p *packer) asOf(revs []*revision) *revision {
	if i := p.following(revs); i > 0 {
		return revs[i-1]
	}
	return nil
}

// following returns the index of the first revision later than p.tid.
func (p *packer) following(revs []*revision) int {
	i, found := searchRevision(revs, p.tid)
	if found {
		i++
	}
	return i
}

// kept returns the revisions of an object that survive: those later than p.tid
// and the one that was current then, unless that one is garbage or only says
// that the object is gone.
func (p *packer) kept(oid zeolite.OID, revs []*revision) []*revision {
	later := p.following(revs)
	if r := p.asOf(revs); r != nil && r.data != nil && (p.reachable == nil || p.reachable[oid]) {
		later--
	}
	return slices.Clone(revs[later:])
}

// sweep drops what p does not keep. It is called with the locks held and makes
// new lists, because iterators may hold the old ones.
func (s *Storage) sweep(p *packer) {
	keep := map[*revision]bool{}
	blobs := map[string]bool{} // by path: whether a revision still has it
	objects := map[zeolite.OID][]*revision{}
	s.dataBytes = 0
	for oid, revs := range s.objects {
		for _, r := range revs {
			blobs[r.blob] = false
		}
		if kept := p.kept(oid, revs); len(kept) > 0 {
			objects[oid] = kept
		}
		for _, r := range objects[oid] {
			keep[r] = true
			s.dataBytes += int64(len(r.data))
		}
	}
	for r := range keep {
		blobs[r.blob] = true
	}

	var txns []*transaction
	for _, t := range s.txns {
		if t.TID <= p.tid {
			packed := &transaction{TransactionInfo: t.TransactionInfo}
			packed.Status = 'p'
			for _, r := range t.records {
				if keep[r] {
					packed.records = append(packed.records, r)
				}
			}
			if len(packed.records) == 0 {
				continue
			}
			t = packed
		}
		txns = append(txns, t)
	}

	s.objects, s.txns, s.packed = objects, txns, p.tid
	s.oids = slices.Sorted(maps.Keys(objects))
	for path, used := range blobs {
		if path != "" && !used {
			os.Remove(path) // a file left behind goes with the directory on Close
		}
	}
}
