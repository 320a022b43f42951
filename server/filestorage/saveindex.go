package filestorage

import (
	"iter"
	"sync"
	"sync/atomic"

	"github.com/zeolite-go/zeolite"
)

// indexSaver writes Data.fs.index now and then. It may be used by several
// goroutines at once.
type indexSaver struct {
	mu      sync.Mutex // one save at a time
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
	size, err := saveIndexFile(s.fs, s.path+".index", g.entriesAt(end), end)
	if err != nil {
		s.log.Error("cannot save the index; the next start will take longer", "path", s.path+".index", "error", err)
		// Do not try again at once.
	}
	s.indexSave.savedAt.Store(end)
	s.indexSave.size.Store(size)
}

// entriesAt yields the index as it was when the file ended at end: objects
// that have been written since are followed back.
func (g *generation) entriesAt(end int64) iter.Seq2[zeolite.OID, int64] {
	return func(yield func(zeolite.OID, int64) bool) {
		var buf [recHdrLen + backLen]byte
		for oid, pos := range g.index.all() {
			for pos >= end {
				h, _, err := g.readHeader(oid, pos, buf[:])
				if err != nil {
					pos = 0
					break
				}
				pos = h.prev
			}
			if pos != 0 && !yield(oid, pos) {
				return
			}
		}
	}
}
