package filestorage

import "github.com/zeolite-go/zeolite"

// nowReader is a File that can read what is in memory.
type nowReader interface {
	// ReadNow is ReadAt for bytes that need not come from the disk; fewer if
	// not all are in memory, or past the end of the file.
	ReadNow(b []byte, off int64) int
}

// LoadNow implements zeolite.QuickLoader: it finds revisions that are in the
// operating system's cache of the file.
func (s *Storage) LoadNow(oid zeolite.OID, before zeolite.TID, buf []byte) (rev zeolite.Revision, ok bool) {
	g, err := s.acquire()
	if err != nil {
		return rev, false
	}
	defer g.release()
	file, can := g.file.(nowReader)
	if !can {
		return rev, false
	}
	last := g.lastTID()
	pos, ok := g.index.get(oid)
	for ok && pos != 0 {
		guess := buf[:min(len(buf), readGuess)]
		n := file.ReadNow(guess, pos)
		if n < recHdrLen+backLen {
			return rev, false
		}
		h := parseRecHeader(guess[:n], pos)
		if h.check(oid, g.bound.Load()) != nil {
			return rev, false
		}
		if h.tid < before && h.tid <= last {
			if h.dataLen == 0 || h.len() > int64(len(buf)) {
				return rev, false
			}
			data := buf[recHdrLen:h.len()]
			if have := n - recHdrLen; have < len(data) && file.ReadNow(data[have:], pos+int64(n)) < len(data)-have {
				return rev, false
			}
			rev.Data, rev.TID = data, h.tid
			return rev, true
		}
		if h.tid <= last {
			rev.End = h.tid
		}
		pos = h.prev
	}
	return rev, false
}
