package zrpc

import (
	"fmt"
	"unicode/utf8"
)

// ParseMsgpack reads the msgpack value at the start of b, and returns what
// follows it. Arrays become Tuples. Extension types are refused; a key of a
// map may be any scalar. The error is a *SyntaxError.
func ParseMsgpack(b []byte, lim Limits) (v Value, rest []byte, err error) {
	v, size, err := readMsgpack(b, 0, lim)
	if err != nil {
		return nil, b, err
	}
	return v, b[size:], nil
}

// AppendMsgpack appends v to dst. It fails with *EncodeError if v holds what
// msgpack cannot express, or a key of a dict that is neither text nor bytes.
func AppendMsgpack(dst []byte, v Value) ([]byte, error) {
	e := NewEncoder(Msgpack, dst)
	e.Value(v)
	if e.err != nil {
		return dst, e.err
	}
	return e.Buf, nil
}

// msgpackReader reads general values. It stops at its first error.
type msgpackReader struct {
	buf  []byte
	pos  int
	left int // values that may still be read
	lim  Limits
	err  error
}

// readMsgpack reads the value at buf[pos:] and returns its length.
func readMsgpack(buf []byte, pos int, lim Limits) (v Value, size int, err error) {
	lim = lim.withDefaults()
	r := msgpackReader{buf: buf, pos: pos, left: lim.MaxValues - 1, lim: lim}
	v = r.value(0)
	if r.err != nil {
		return nil, 0, r.err
	}
	return v, r.pos - pos, nil
}

func (r *msgpackReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = &SyntaxError{Msgpack, r.pos, fmt.Sprintf(format, args...)}
	}
}

func (r *msgpackReader) value(depth int) Value {
	b := r.buf[r.pos:]
	if len(b) == 0 {
		r.fail("it ends in the middle")
		return nil
	}
	switch c := b[0]; {
	case c == mpNil:
		r.pos++
		return nil
	case c == mpFalse || c == mpTrue:
		r.pos++
		return c == mpTrue
	case c < mpFixMap, c >= mpFixNeg, c >= mpUint8 && c <= mpInt64:
		v, wide, size, ok := scanMsgpackInt(b)
		if !r.advance(size, ok) {
			return nil
		}
		if wide {
			return uint64(v)
		}
		return v
	case c == mpFloat32 || c == mpFloat64:
		v, size, ok := scanMsgpackFloat(b)
		if !r.advance(size, ok) {
			return nil
		}
		return v
	case c >= mpBin8 && c <= mpBin32:
		s, size, ok := scanMsgpackBin(b)
		if !r.advance(size, ok) {
			return nil
		}
		return s
	case c&0xe0 == mpFixStr, c >= mpStr8 && c <= mpStr32:
		s, size, ok := scanMsgpackStr(b)
		if ok && !utf8.Valid(s) {
			r.fail("text that is not UTF-8")
		}
		if !r.advance(size, ok) {
			return nil
		}
		return string(s)
	case c&0xf0 == mpFixArray, c == mpArray16, c == mpArray32:
		n, size, ok := scanMsgpackArray(b)
		if !r.advance(size, ok) || !r.enter(depth, n) {
			return nil
		}
		return r.array(int(n), depth)
	case c&0xf0 == mpFixMap, c == mpMap16, c == mpMap32:
		n, size, ok := scanMsgpackMap(b)
		if !r.advance(size, ok) || !r.enter(depth, 2*n) {
			return nil
		}
		return r.dict(int(n), depth)
	}
	r.fail("%s is not allowed", msgpackTypeName(b[0]))
	return nil
}

// advance passes a token of the given size. A token that is not ok is one that
// the bytes at hand do not hold completely.
func (r *msgpackReader) advance(size int, ok bool) bool {
	if !ok {
		r.fail("it ends in the middle")
	}
	if r.err != nil {
		return false
	}
	r.pos += size
	return true
}

// enter checks that a container of n values may be read.
func (r *msgpackReader) enter(depth int, n uint64) bool {
	if depth >= r.lim.MaxDepth {
		r.fail("containers nest deeper than %d (Limits.MaxDepth)", r.lim.MaxDepth)
	} else if n > uint64(r.left) {
		r.fail("more than %d values (Limits.MaxValues)", r.lim.MaxValues)
	}
	r.left -= int(min(n, uint64(r.left)))
	return r.err == nil
}

func (r *msgpackReader) array(n, depth int) Value {
	items := make(Tuple, n)
	for i := range items {
		if items[i] = r.value(depth + 1); r.err != nil {
			return nil
		}
	}
	return items
}

func (r *msgpackReader) dict(n, depth int) Value {
	d := &Dict{}
	if n > 0 {
		d.Pairs = make([]Pair, 0, n)
	}
	for range n {
		key := r.value(depth + 1)
		if _, ok := comparableKey(key); !ok && r.err == nil {
			r.fail("%s as the key of a map", typeName(key))
		}
		val := r.value(depth + 1)
		if r.err != nil {
			return nil
		}
		d.Set(key, val)
	}
	return d
}

// msgpackTypeName says in words what the first byte of a value announces.
func msgpackTypeName(c byte) string {
	switch {
	case c == mpNil:
		return "None"
	case c == mpFalse || c == mpTrue:
		return "a bool"
	case c < mpFixMap, c >= mpFixNeg, c >= mpUint8 && c <= mpInt64:
		return "an integer"
	case c == mpFloat32 || c == mpFloat64:
		return "a float"
	case c >= mpBin8 && c <= mpBin32:
		return "bytes"
	case c&0xe0 == mpFixStr, c >= mpStr8 && c <= mpStr32:
		return "text"
	case c&0xf0 == mpFixArray, c == mpArray16, c == mpArray32:
		return "a sequence"
	case c&0xf0 == mpFixMap, c == mpMap16, c == mpMap32:
		return "a dict"
	}
	return fmt.Sprintf("type %#02x", c)
}
