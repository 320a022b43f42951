package references

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// The parts of the scanner that do not depend on what is looked for: taking
// bytes from the pickle, the stack, and the memo.

// push cannot fail; step returns what it returns.
func (s *scanner) push(v value) error {
	s.stack = append(s.stack, v)
	return nil
}

func (s *scanner) pop() (value, error) {
	n := len(s.stack)
	if n == 0 || s.stack[n-1].kind == kindMark {
		return value{}, errStack
	}
	v := s.stack[n-1]
	s.stack = s.stack[:n-1]
	return v, nil
}

// drop removes n values that something below them swallows.
func (s *scanner) drop(n int) error {
	if len(s.stack) <= n {
		return errStack
	}
	s.stack = s.stack[:len(s.stack)-n]
	return nil
}

// replace puts v in the place of n values.
func (s *scanner) replace(n int, v value) error {
	if len(s.stack) < n {
		return errStack
	}
	s.stack = append(s.stack[:len(s.stack)-n], v)
	return nil
}

// aboveMark returns how many values are above the last mark.
func (s *scanner) aboveMark() (int, error) {
	for i := len(s.stack) - 1; i >= 0; i-- {
		if s.stack[i].kind == kindMark {
			return len(s.stack) - 1 - i, nil
		}
	}
	return 0, errStack
}

// popMark removes the last mark and what is above it.
func (s *scanner) popMark() error {
	n, err := s.aboveMark()
	if err == nil {
		s.stack = s.stack[:len(s.stack)-1-n]
	}
	return err
}

// tuple makes a tuple of n values.
func (s *scanner) tuple(n int) error {
	v := value{kind: kindTuple}
	if n > len(s.stack) {
		return errStack
	}
	if n > 0 {
		switch first := s.stack[len(s.stack)-n]; first.kind {
		case kindBytes:
			v = value{kindOIDTuple, first.bytes}
		case kindText:
			v = value{kindTextTuple, first.bytes}
		}
	}
	return s.replace(n, v)
}

// dropUnderTop removes the mark below a tuple.
func (s *scanner) dropUnderTop() {
	n := len(s.stack)
	s.stack[n-2] = s.stack[n-1]
	s.stack = s.stack[:n-1]
}

func (s *scanner) take(n int) ([]byte, error) {
	if n < 0 || n > len(s.data) {
		return nil, errShort
	}
	b := s.data[:n]
	s.data = s.data[n:]
	return b, nil
}

func (s *scanner) skip(n int) error {
	_, err := s.take(n)
	return err
}

func (s *scanner) skipPush(n int) error {
	if err := s.skip(n); err != nil {
		return err
	}
	return s.push(value{})
}

// counted takes as many bytes as a little-endian number of size bytes says.
func (s *scanner) counted(size int) ([]byte, error) {
	b, err := s.take(size)
	if err != nil {
		return nil, err
	}
	var le [8]byte
	copy(le[:], b)
	n := binary.LittleEndian.Uint64(le[:])
	if n > uint64(len(s.data)) {
		return nil, errShort
	}
	return s.take(int(n))
}

func (s *scanner) pushString(k kind, size int) error {
	b, err := s.counted(size)
	if err != nil {
		return err
	}
	return s.push(value{k, b})
}

func (s *scanner) line() ([]byte, error) {
	i := bytes.IndexByte(s.data, '\n')
	if i < 0 {
		return nil, errShort
	}
	b := s.data[:i]
	s.data = s.data[i+1:]
	return b, nil
}

// pushLine reads the strings of protocol 0: a Python literal, or text with
// escapes.
func (s *scanner) pushLine(op byte) error {
	b, err := s.line()
	if err != nil {
		return err
	}
	if op == 'V' {
		return s.push(value{kindText, unescape(b, true)})
	}
	b = bytes.TrimRight(b, " \t\r")
	if len(b) < 2 || b[0] != b[len(b)-1] || b[0] != '\'' && b[0] != '"' {
		return formatError("a string is not quoted")
	}
	return s.push(value{kindBytes, unescape(b[1:len(b)-1], false)})
}

// put stores the top of the stack in the memo.
func (s *scanner) put(op byte) error {
	i, err := s.memoIndex(op)
	if err != nil {
		return err
	}
	if len(s.stack) == 0 {
		return errStack
	}
	// Picklers count up, so the memo is dense; anything else is bounded.
	if i >= maxMemo {
		return formatError("a pickle needs too large a memo")
	}
	for len(s.memo) <= i {
		if i > 2*len(s.memo)+len(s.data)+1024 {
			return formatError("a pickle has gaps in its memo")
		}
		s.memo = append(s.memo, value{})
	}
	s.memo[i] = s.stack[len(s.stack)-1]
	return nil
}

func (s *scanner) get(op byte) error {
	i, err := s.memoIndex(op)
	if err != nil {
		return err
	}
	if i >= len(s.memo) {
		return formatError("a pickle asks its memo for what is not there")
	}
	return s.push(s.memo[i])
}

func (s *scanner) memoIndex(op byte) (int, error) {
	switch op {
	case 'p', 'g':
		text, err := s.line()
		if err != nil {
			return 0, err
		}
		i, err := strconv.ParseUint(string(text), 10, 31)
		if err != nil {
			return 0, formatError("a pickle has a bad memo index")
		}
		return int(i), nil
	case 'q', 'h':
		b, err := s.take(1)
		if err != nil {
			return 0, err
		}
		return int(b[0]), nil
	case 'r', 'j':
		b, err := s.take(4)
		if err != nil {
			return 0, err
		}
		return int(binary.LittleEndian.Uint32(b)), nil
	}
	return len(s.memo), nil // MEMOIZE
}
