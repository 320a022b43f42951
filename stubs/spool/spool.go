// Package spool is where both ends of a connection keep what is said in a
// transaction until its vote: its operations, with their records. Nobody knows how
// much that will be: it is in memory up to a limit, and beyond it in a temporary
// file. Log keeps operations (log.go), Spool bytes (spool.go).
package spool

import (
	"fmt"
	"os"
)

// Spool is a sequence of bytes that grows at its end. The zero value, with a
// Limit, is empty. It is used by one goroutine at a time.
type Spool struct {
	// Limit is how many bytes are kept in memory.
	Limit int

	file   *os.File // nil while memory suffices
	size   int64    // of the file
	memory []byte   // what follows it; bytes in it never change
}

// Append adds bytes and returns their offset. If it fails nothing was added:
// the temporary file cannot be made or written, as when the disk is full.
func (s *Spool) Append(p []byte) (off int64, err error) {
	off = s.Size()
	if len(s.memory)+len(p) > s.Limit {
		if err := s.flush(); err != nil {
			return 0, err
		}
		if len(p) > s.Limit {
			return off, s.write(p)
		}
		s.memory = make([]byte, 0, s.Limit) // the old one may be in use
	}
	s.memory = append(s.memory, p...)
	return off, nil
}

// flush moves what is in memory to the file, which has no name any more as
// soon as it is open.
func (s *Spool) flush() error {
	if s.file == nil {
		f, err := os.CreateTemp("", "zeolite-*.spool")
		if err != nil {
			return fmt.Errorf("temporary file: %w", err)
		}
		_ = os.Remove(f.Name())
		s.file = f
	}
	if err := s.write(s.memory); err != nil {
		return err
	}
	s.memory = nil
	return nil
}

func (s *Spool) write(p []byte) error {
	if _, err := s.file.WriteAt(p, s.size); err != nil {
		return fmt.Errorf("temporary file: %w", err)
	}
	s.size += int64(len(p))
	return nil
}

// Size is the number of bytes.
func (s *Spool) Size() int64 { return s.size + int64(len(s.memory)) }

// InMemory tells whether Bytes would not read the file.
func (s *Spool) InMemory(off int64) bool { return off >= s.size }

// Bytes returns n bytes from an offset on; they must be there. They must not
// be changed, and stay as they are whatever is appended.
func (s *Spool) Bytes(off int64, n int) ([]byte, error) {
	if s.InMemory(off) {
		from := off - s.size
		return s.memory[from : from+int64(n) : from+int64(n)], nil
	}
	p := make([]byte, n)
	stored := int(min(int64(n), s.size-off))
	if _, err := s.file.ReadAt(p[:stored], off); err != nil {
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	copy(p[stored:], s.memory)
	return p, nil
}

// Close forgets the bytes.
func (s *Spool) Close() {
	if s.file != nil {
		s.file.Close()
	}
	*s = Spool{Limit: s.Limit}
}
