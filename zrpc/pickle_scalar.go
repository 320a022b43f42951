package zrpc

import (
	"errors"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Integers longer than this are refused: nothing in ZODB has them, and
// converting them to or from decimal takes quadratic time.
const (
	maxLongBytes  = 8192
	maxLongDigits = 4300 // as in Python
)

// long pushes a two's complement integer of n bytes.
func (m *pickleMachine) long(n uint64) {
	if n > maxLongBytes {
		m.fail("an integer of %d bytes; at most %d are allowed", n, maxLongBytes)
		return
	}
	if b := m.take(n); b != nil {
		m.push(longValue(b))
	}
}

// decimal reads the line of an INT or LONG opcode.
func (m *pickleMachine) decimal(op byte) Value {
	s := m.line()
	switch {
	case op == opInt && s == "00":
		return false
	case op == opInt && s == "01":
		return true
	case op == opLong:
		s = strings.TrimSuffix(s, "L")
	}
	if v, err := strconv.ParseInt(s, 10, 64); err == nil {
		return v
	}
	v, ok := new(big.Int), false
	if len(s) <= maxLongDigits {
		v, ok = v.SetString(s, 10)
	}
	if !ok {
		m.fail("an integer %.20q", s)
		return nil
	}
	if v.IsUint64() {
		return v.Uint64()
	}
	return v
}

func (m *pickleMachine) float() Value {
	s := m.line()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		m.fail("a float %.20q", s)
	}
	return v
}

// bytes pushes a byte string of n bytes, which aliases the pickle.
func (m *pickleMachine) bytes(n uint64) {
	if b := m.take(n); b != nil {
		m.push(b)
	}
}

// text pushes text of n bytes.
func (m *pickleMachine) text(n uint64) {
	b := m.take(n)
	if !validText(b) {
		m.fail("text that is not UTF-8")
	}
	m.push(string(b))
}

// str2 pushes the contents of a Python 2 str: as text if it is ASCII, which is
// how Python 3 reads it, else as bytes. Libraries that know no pickle of bytes
// write oids and tids like this.
func (m *pickleMachine) str2(b []byte) {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			m.push(b)
			return
		}
	}
	m.push(string(b))
}

// validText tells whether b is UTF-8. As in Python, which pickles text with
// the error handler surrogatepass, half surrogates are let through; msgpack
// and Str do not take them.
func validText(b []byte) bool {
	for !utf8.Valid(b) {
		for len(b) > 0 {
			r, n := utf8.DecodeRune(b)
			if r == utf8.RuneError && n == 1 {
				break
			}
			b = b[n:]
		}
		if len(b) < 3 || b[0] != 0xed || b[1] < 0xa0 || b[1] > 0xbf || b[2] < 0x80 || b[2] > 0xbf {
			return false
		}
		b = b[3:]
	}
	return true
}

// appendText appends a code point as validText accepts it.
func appendText(b []byte, r rune) []byte {
	if r >= 0xd800 && r < 0xe000 {
		return append(b, 0xe0|byte(r>>12), 0x80|byte(r>>6)&0x3f, 0x80|byte(r)&0x3f)
	}
	return utf8.AppendRune(b, r)
}

// unicodeLine reads the line of a UNICODE opcode: Latin-1, with other
// characters as \uXXXX and \UXXXXXXXX.
func (m *pickleMachine) unicodeLine() Value {
	s := m.line()
	out := make([]byte, 0, len(s))
	for len(s) > 0 {
		c := s[0]
		digits := 0
		if c == '\\' && len(s) > 1 {
			switch s[1] {
			case 'u':
				digits = 4
			case 'U':
				digits = 8
			}
		}
		if digits == 0 {
			// A backslash before anything else stands for itself, and so
			// does what follows it.
			out = utf8.AppendRune(out, rune(c))
			s = s[1:]
			if c == '\\' && len(s) > 0 {
				out = utf8.AppendRune(out, rune(s[0]))
				s = s[1:]
			}
			continue
		}
		if len(s) < 2+digits {
			m.fail("an escape in text ends too early")
			return nil
		}
		r, err := strconv.ParseUint(s[2:2+digits], 16, 32)
		if err != nil || r > utf8.MaxRune {
			m.fail("an escape in text: %.12q", s)
			return nil
		}
		out = appendText(out, rune(r))
		s = s[2+digits:]
	}
	return string(out)
}

// stringLine reads the line of a STRING opcode: quoted, with the escapes of a
// Python string.
func (m *pickleMachine) stringLine() []byte {
	s := m.line()
	if len(s) < 2 || s[0] != s[len(s)-1] || (s[0] != '\'' && s[0] != '"') {
		m.fail("a str without its quotes")
		return nil
	}
	s = s[1 : len(s)-1]
	out := make([]byte, 0, len(s))
	for len(s) > 0 {
		c := s[0]
		s = s[1:]
		if c != '\\' {
			out = append(out, c)
			continue
		}
		if s == "" {
			m.fail("a str ends with a backslash")
			return nil
		}
		c, s = s[0], s[1:]
		switch c {
		case '\\', '\'', '"':
			out = append(out, c)
		case 'a', 'b', 'f', 'n', 'r', 't', 'v':
			out = append(out, "\a\b\f\n\r\t\v"[strings.IndexByte("abfnrtv", c)])
		case 'x':
			if len(s) < 2 {
				m.fail("an escape in a str ends too early")
				return nil
			}
			v, err := strconv.ParseUint(s[:2], 16, 8)
			if err != nil {
				m.fail("an escape in a str: %.4q", s)
				return nil
			}
			out = append(out, byte(v))
			s = s[2:]
		case '0', '1', '2', '3', '4', '5', '6', '7':
			v := int(c - '0')
			for i := 0; i < 2 && s != "" && s[0] >= '0' && s[0] <= '7'; i++ {
				v = v*8 + int(s[0]-'0')
				s = s[1:]
			}
			out = append(out, byte(v))
		default:
			out = append(out, '\\', c)
		}
	}
	return out
}
