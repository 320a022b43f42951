package filestorage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zeolite-go/zeolite"
)

// Packing writes a new file beside the old one while everything goes on:
//
//  1. Find the newest record of each object as of the moment packed to
//     (packindex.go); with garbage collection, mark those that can be reached
//     (packgc.go).
//  2. Copy what is kept (packcopy.go): of the transactions up to that moment
//     the records found in 1, with status 'p', without pointers to older ones;
//     later transactions whole, with pointers to the places where things are
//     now. This includes what is committed meanwhile.
//  3. When almost nothing is left, hold up commits, copy the rest, and put the
//     new file in the place of the old one (packswap.go).
//  4. Remove the blobs of the revisions that are gone (packblobs.go).
//
// Until the rename in 3, a crash or an error leaves the old database; after it
// the new one.

var _ zeolite.Packer = (*Storage)(nil)

// Pack implements zeolite.Packer. With garbage collection an object also stays
// if a later revision refers to it, even if it could not be reached then.
//
// If an object that is kept refers to one that does not exist, garbage
// collection fails before anything was changed, as Python's does: what is
// missing may have been lost. With Options.PackDangling that is logged instead.
// A missing root is always an error: everything would be garbage.
func (s *Storage) Pack(ctx context.Context, tid zeolite.TID, opts zeolite.PackOptions) error {
	if err := s.writable(ctx); err != nil {
		return err
	}
	if !s.packing.CompareAndSwap(false, true) {
		return &zeolite.StorageError{
			Class:   "ZODB.FileStorage.FileStorage.FileStorageError",
			Message: "Already packing",
		}
	}
	defer s.packing.Store(false)
	if !s.startBackground() {
		return zeolite.ErrClosed
	}
	defer s.background.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.stopped, cancel)()

	gc := !s.opts.PackWithoutGC
	if opts.GC != nil {
		gc = *opts.GC
	}
	var err error
	for try := 0; ; try++ {
		err = s.packOnce(ctx, tid, gc, opts.Progress)
		// A commit may use an object just when it is found to be garbage.
		// That is rare; and then it is no garbage next time.
		if !errors.Is(err, errResurrected) || try == 2 {
			break
		}
		s.log.Info("packing starts again: a transaction uses what was garbage", "path", s.path)
	}
	if err != nil && s.closed.Load() {
		return zeolite.ErrClosed
	}
	return err
}

func (s *Storage) packOnce(ctx context.Context, tid zeolite.TID, gc bool, progress func(zeolite.PackProgress)) error {
	g, err := s.acquire()
	if err != nil {
		return err
	}
	defer g.release()
	started := time.Now()
	before := g.end.Load()
	p := &packer{
		s: s, g: g, ctx: ctx, gc: gc,
		newest:   g.lastTID(),
		current:  newIndex(),
		targets:  make(map[int64]int64),
		progress: progress,
	}
	p.tid = min(tid, p.newest) // what commits from now on is not packed
	this := packedInVain{end: before, tid: p.tid, gc: gc}
	if this == s.inVain {
		s.log.Info("nothing to pack: packing has saved nothing, and nothing has changed", "path", s.path)
		return nil
	}
	if err := p.findCurrent(); err != nil {
		return err
	}
	if p.redundant {
		s.log.Info("nothing to pack: packed to a later time before", "path", s.path)
		return nil
	}
	if p.packPos <= magicLen {
		return nil // no transaction is that old
	}
	if gc {
		if err := p.mark(); err != nil {
			return err
		}
	}
	if err := p.createFile(); err != nil {
		return err
	}
	swapped := false
	defer func() {
		if !swapped {
			p.discard()
		}
	}()
	if err := p.copyPacked(); err != nil {
		return err
	}
	if p.out.end() == p.packPos {
		// No byte would be saved.
		if err := p.markPacked(); err != nil {
			return err
		}
		s.inVain = this
		return nil
	}
	if err := p.copyRest(g.end.Load()); err != nil {
		return err
	}
	if swapped, err = p.finish(); err != nil {
		return err
	}
	p.out.stop()
	s.inVain = packedInVain{}
	s.log.Info("packed", "path", s.path, "to", p.tid.Time(), "garbage collection", gc,
		"bytes before", before, "bytes after", s.gen.Load().end.Load(), "took", time.Since(started))
	if err := s.removePackedBlobs(ctx, false); err != nil {
		// The database is packed; what is left is removed another time.
		s.log.Error("cannot remove the blobs of revisions that were packed", "error", err)
	}
	s.saveIndex(s.gen.Load())
	return nil
}

// packer is one Pack under way. It is used by the goroutine that packs.
type packer struct {
	s   *Storage
	g   *generation
	ctx context.Context
	gc  bool
	tid zeolite.TID
	// newest was the last transaction when the pack began.
	newest zeolite.TID

	// current maps objects to their newest record as of tid; marked with
	// markBit if it was reached. packPos is where later transactions begin.
	current   *index
	packPos   int64
	redundant bool
	// droppable is the length of all records before packPos, kept that of
	// those that will be in the new file.
	droppable, kept int64
	marked          int64 // objects
	markedTo        int64 // references of transactions up to here were marked
	buf             [readGuess]byte

	// givenBack are the records behind packPos that point to one before it, in
	// file order. For what is said to dangle: dangling are these references;
	// unmade are objects that are gone by a pointer to a record that says so,
	// which Python's pack takes for objects; exempt are those that later
	// records bring back, although they were not reached.
	givenBack      []givenBack
	dangling       []reference
	unmade, exempt map[zeolite.OID]bool

	out   *packWriter
	index *index // of the new file
	// copied is how far the old file has been copied.
	copied int64
	// targets are the old records that later ones point to, with their new
	// positions; 0 while they have none.
	targets map[int64]int64
	// shifts tell how far later records moved, by position.
	shifts  []shift
	removed []removedBlob

	progress func(zeolite.PackProgress)
	phase    string
	since    time.Time // when phase began
	told     time.Time
	steps    int
}

// packedInVain says which pack has saved nothing: while the file ends there, the
// same pack need not write a whole file to find that out. That is remembered as long
// as the storage is open.
type packedInVain struct {
	end int64
	tid zeolite.TID
	gc  bool
}

// givenBack is a record that gives an object back the state it had in another
// record.
type givenBack struct {
	oid  zeolite.OID
	back int64
}

// markBit in a position of packer.current says that the object was reached.
const markBit = 1 << 50

// step is called for each record or so: it sees to cancellation and progress.
func (p *packer) step(phase string, done, total int64) error {
	p.steps++
	if phase == p.phase && p.steps%256 != 0 {
		return nil
	}
	return p.report(phase, done, total)
}

// report is step for what is called less often.
func (p *packer) report(phase string, done, total int64) error {
	if p.progress != nil {
		now := time.Now()
		if phase != p.phase {
			p.since, p.told = now, time.Time{}
		}
		if now.Sub(p.told) >= 200*time.Millisecond {
			p.told = now
			report := zeolite.PackProgress{Phase: phase, Done: done, Total: total}
			if took := now.Sub(p.since); done > 0 && total > done && took > 0 {
				report.Remaining = time.Duration(float64(took) * float64(total-done) / float64(done))
			}
			p.progress(report)
		}
	}
	p.phase = phase
	return p.ctx.Err()
}

// createFile creates the new file, if the disk has space for it.
func (p *packer) createFile() error {
	var err error
	if p.out, err = createPackFile(p.s.fs, p.s.path+".pack"); err != nil {
		return &zeolite.StorageError{Message: "cannot create a file to pack to", Err: err}
	}
	p.index = newIndex()
	need := p.g.end.Load() - p.droppable + p.kept
	if err := p.out.file.Allocate(0, need); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		p.discard()
		return &zeolite.StorageError{Message: fmt.Sprintf("cannot pack: %d bytes are needed on disk", need), Err: err}
	}
	return nil
}

// discard removes the new file.
func (p *packer) discard() {
	p.out.done.Wait()
	p.out.stop()
	p.out.file.Close()
	p.s.fs.Remove(p.s.path + ".pack")
}

// markPacked gives the transactions that are packed their status in place, for
// the case that nothing else would change: it ends what can be undone. Each
// byte may or may not survive a crash.
func (p *packer) markPacked() error {
	if err := p.endLog(); err != nil {
		return err
	}
	w := newWindow(p.g.file)
	for pos := int64(magicLen); pos < p.packPos; {
		h, err := w.txn(pos, p.packPos)
		if err != nil {
			return err
		}
		if h.status == statusNormal {
			if _, err := p.g.file.WriteAt([]byte{statusPacked}, h.pos+statusOffset); err != nil {
				return &zeolite.StorageError{Message: "cannot write to the database", Err: err}
			}
		}
		pos = h.next()
		if err := p.step("mark packed", pos, p.packPos); err != nil {
			return err
		}
	}
	p.s.log.Info("packing would save nothing", "path", p.s.path)
	return nil
}

// endLog makes the log say nothing of the transactions there are: it has them as
// they were, and would not fit Data.fs any more. Later ones are behind packPos.
func (p *packer) endLog() error {
	s := p.s
	failed := func(err error) error {
		return &zeolite.StorageError{Message: "cannot write to the database", Err: err}
	}
	// Once before anybody has to wait, so that there is little to do when they have to.
	if err := s.data.now(); err != nil {
		return failed(err)
	}
	select {
	case s.committer.lock <- struct{}{}:
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
	defer func() { <-s.committer.lock }()
	if s.wal == nil {
		return nil
	}
	err := s.data.now()
	if err == nil {
		err = s.wal.void()
	}
	if err != nil {
		return failed(err)
	}
	return nil
}
