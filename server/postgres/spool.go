package postgres

import (
	"os"
	"sync/atomic"
)

// spools bounds what the spools of a storage take together. It is safe for
// concurrent use.
type spools struct {
	dir   string
	limit int64
	used  atomic.Int64
}

// reserve takes n bytes of the room there is, if there are.
func (s *spools) reserve(n int64) bool {
	if s.used.Add(n) > s.limit {
		s.used.Add(-n)
		return false
	}
	return true
}

// spool keeps bytes that a slow reader has not taken, in a file that has no
// name: nothing is left of it if the process dies. It is guarded by the mutex
// of its stream.
type spool struct {
	all  *spools
	file *os.File
	r, w int64 // what is between them is yet to be read
}

func (s *spool) empty() bool { return s.r == s.w }

// add keeps bytes; false says that there is no room, or no file.
func (s *spool) add(p []byte) bool {
	if !s.all.reserve(int64(len(p))) {
		return false
	}
	if err := s.write(p); err != nil {
		s.all.used.Add(-int64(len(p)))
		return false
	}
	s.w += int64(len(p))
	return true
}

func (s *spool) write(p []byte) error {
	if s.file == nil {
		f, err := os.CreateTemp(s.all.dir, "zeolite-spool-*")
		if err != nil {
			return err
		}
		if err := os.Remove(f.Name()); err != nil {
			f.Close()
			return err
		}
		s.file = f
	}
	_, err := s.file.WriteAt(p, s.w)
	return err
}

// take reads what comes next. When all was read, the room is free again.
func (s *spool) take(p []byte) (int, error) {
	n, err := s.file.ReadAt(p[:min(int64(len(p)), s.w-s.r)], s.r)
	if err != nil {
		return 0, err
	}
	if s.r += int64(n); s.empty() {
		s.close()
	}
	return n, nil
}

// close drops what is there.
func (s *spool) close() {
	if s.file != nil {
		s.file.Close() // which removes it
		s.file = nil
	}
	s.all.used.Add(-s.w)
	s.r, s.w = 0, 0
}
