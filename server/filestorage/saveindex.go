package filestorage

import (
	"sync"
	"sync/atomic"

	"github.com/zeolite-go/zeolite"
)

// indexSaver writes Data.fs.index now and then. It may be used by several
// goroutines at once.
type indexSaver struct {
	mu      sync.Mutex // one save at a time; who holds it may take the commit lock
	running atomic.Bool
	savedAt atomic.Int64 // the end of the file when the index was saved
	size    atomic.Int64 // of the index file
}

// maybeSaveIndex saves the index in the background if the file has grown
// enough since the last time. The caller holds the commit lock.
func (s *Storage) maybeSaveIndex() {
	g := s.gen.Load()
	grown := g.end.Load() - s.indexSave.savedAt.Load()
	// Writing the index must not become what the disk mostly does.
	if grown < max(s.opts.IndexSaveBytes, 4*s.indexSave.size.Load()) {
		return
	}
	if !g.tryAcquire() {
		return
	}
	if !s.indexSave.running.CompareAndSwap(false, true) {
		g.release()
		return
	}
	if !s.startBackground() {
		s.indexSave.running.Store(false)
		g.release()
		return
	}
	go func() {
		defer s.background.Done()
		defer g.release()
		defer s.indexSave.running.Store(false)
		s.saveIndex(g)
	}()
}

// saveIndex writes the index of g, unless another generation has taken its
// place. Transactions may be committed meanwhile.
func (s *Storage) saveIndex(g *generation) {
	s.indexSave.mu.Lock()
	defer s.indexSave.mu.Unlock()
	if s.gen.Load() != g {
		return
	}
	// The index must not be on disk before what it knows.
	end := g.end.Load()
	if s.data.now() != nil {
		return
	}
	size, err := saveIndexFile(s.fs, s.path+".index", end, func(w *indexWriter) error { return g.writeIndex(w, end) })
	if err != nil {
		s.log.Error("cannot save the index; the next start will take longer", "path", s.path+".index", "error", err)
		// Do not try again at once.
	}
	s.indexSave.savedAt.Store(end)
	s.indexSave.size.Store(size)
}

// writeIndex writes the index as it was when the file ended at end, which it
// did when, or before, writeIndex was called: objects that have been written since
// are followed back.
func (g *generation) writeIndex(w *indexWriter, end int64) error {
	var entries []uint64
	for prefix, ok := g.index.prefixFrom(0); ok; prefix, ok = g.index.prefixFrom(prefix + 1) {
		// What has never changed is valid for any end.
		same, err := g.index.mapped.writeUnchanged(w, prefix)
		if err != nil {
			return err
		}
		if same {
			prefix |= partMask
			continue
		}
		entries = g.index.appendTo(entries[:0], prefix)
		for oid, pos := range entriesOf(prefix, entries) {
			if pos, err = g.positionAt(oid, pos, end); err != nil {
				return err
			}
			if pos == 0 {
				continue
			}
			if err := w.add(oid, pos); err != nil {
				return err
			}
		}
	}
	return nil
}

// positionAt returns the position of the newest record of an object before end,
// from that of a later one on; 0 if it has none.
func (g *generation) positionAt(oid zeolite.OID, pos, end int64) (int64, error) {
	var buf [recHdrLen + backLen]byte
	for pos >= end {
		h, _, err := g.readHeader(oid, pos, buf[:])
		if err != nil {
			return 0, err
		}
		pos = h.prev
	}
	return pos, nil
}
