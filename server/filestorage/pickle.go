package filestorage

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strconv"
	"strings"
)

// A pickle reader and writer for the one file in which FileStorage uses
// pickles, Data.fs.index. It knows integers, strings, tuples, lists, dicts and
// None; a class is a name, an instance its class, arguments and state.

// pickleClass is a global; pickleObject an instance of something.
type (
	pickleClass  string
	pickleObject struct {
		class any
		args  any
		state any
	}
	pickleTuple []any
	pickleDict  map[any]any
	pickleList  struct{ items []any }
	pickleMark  struct{}
	// pickleSpan is a long string that was left in the file.
	pickleSpan struct {
		off int64
		n   int
	}
)

// maxPickleString bounds one string of an index: a bucket of 65536 entries is
// half a megabyte.
const maxPickleString = 64 << 20

var errPickle = errors.New("not a pickle that an index is made of")

// pickleReader reads pickles that follow each other in a file. It is used by
// one goroutine.
type pickleReader struct {
	r     *bufio.Reader // of file
	file  *cursor
	leave int // so long strings become spans
	stack []any
	memo  map[int]any
}

// cursor reads a file from a position on.
type cursor struct {
	file      io.ReaderAt
	off, size int64
}

func (c *cursor) Read(b []byte) (int, error) {
	n, err := c.file.ReadAt(b[:min(int64(len(b)), c.size-c.off)], c.off)
	c.off += int64(n)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// load reads the next pickle.
func (p *pickleReader) load() (v any, err error) {
	p.stack, p.memo = p.stack[:0], nil
	for {
		op, err := p.r.ReadByte()
		if err != nil {
			return nil, unexpectedEOF(err)
		}
		if op == '.' {
			return p.pop()
		}
		if err := p.step(op); err != nil {
			return nil, err
		}
	}
}

func (p *pickleReader) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		_, err := p.r.ReadByte()
		return err
	case 0x95: // FRAME
		_, err := p.r.Discard(8)
		return err
	case 'N':
		p.push(nil)
	case 0x88, 0x89: // NEWTRUE, NEWFALSE
		p.push(op == 0x88)
	case 'K', 'M', 'J', 0x8a:
		return p.integer(op)
	case 'I', 'L':
		return p.decimal()
	case 'C', 'U', 0x8c: // one byte of length
		return p.str(1)
	case 'B', 'T', 'X':
		return p.str(4)
	case 0x8d, 0x8e:
		return p.str(8)
	case '(':
		p.push(pickleMark{})
	case ')':
		p.push(pickleTuple{})
	case ']':
		p.push(&pickleList{})
	case '}':
		p.push(pickleDict{})
	case 0x85, 0x86, 0x87: // TUPLE1, 2, 3
		n := int(op-0x85) + 1
		if len(p.stack) < n {
			return errPickle
		}
		t := append(pickleTuple(nil), p.stack[len(p.stack)-n:]...)
		p.stack = p.stack[:len(p.stack)-n]
		p.push(t)
	case 't', 'l', 'd', 'e', 'u':
		return p.marked(op)
	case 'a', 's':
		return p.appendOne(op)
	case 'c':
		return p.global()
	case 0x93: // STACK_GLOBAL
		name, err1 := p.pop()
		module, err2 := p.pop()
		if err1 != nil || err2 != nil {
			return errPickle
		}
		p.push(pickleClass(fmt.Sprintf("%s.%s", module, name)))
	case 'R', 0x81: // REDUCE, NEWOBJ
		args, err1 := p.pop()
		class, err2 := p.pop()
		if err1 != nil || err2 != nil {
			return errPickle
		}
		p.push(&pickleObject{class: class, args: args})
	case 'b':
		state, err := p.pop()
		if err != nil || len(p.stack) == 0 {
			return errPickle
		}
		obj, ok := p.stack[len(p.stack)-1].(*pickleObject)
		if !ok {
			return errPickle
		}
		obj.state = state
	case 'q', 'r', 'p', 'h', 'j', 'g', 0x94:
		return p.memoize(op)
	default:
		return fmt.Errorf("%w: opcode %#x", errPickle, op)
	}
	return nil
}

func (p *pickleReader) push(v any) { p.stack = append(p.stack, v) }

func (p *pickleReader) pop() (any, error) {
	if len(p.stack) == 0 {
		return nil, errPickle
	}
	v := p.stack[len(p.stack)-1]
	if _, ok := v.(pickleMark); ok {
		return nil, errPickle
	}
	p.stack = p.stack[:len(p.stack)-1]
	return v, nil
}

// popMark takes everything above the last mark, and the mark.
func (p *pickleReader) popMark() ([]any, error) {
	for i := len(p.stack) - 1; i >= 0; i-- {
		if _, ok := p.stack[i].(pickleMark); ok {
			items := append([]any(nil), p.stack[i+1:]...)
			p.stack = p.stack[:i]
			return items, nil
		}
	}
	return nil, errPickle
}

// uint reads n bytes, little-endian.
func (p *pickleReader) uint(n int) (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(p.r, b[:n]); err != nil {
		return 0, unexpectedEOF(err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

func (p *pickleReader) integer(op byte) error {
	size := map[byte]int{'K': 1, 'M': 2, 'J': 4, 0x8a: 1}[op]
	n, err := p.uint(size)
	if err != nil {
		return err
	}
	switch op {
	case 'J':
		p.push(int64(int32(n)))
	case 0x8a: // LONG1: n bytes, two's complement
		if n > 8 {
			return errPickle
		}
		v, err := p.uint(int(n))
		if err != nil {
			return err
		}
		if n > 0 && n < 8 && v>>(8*n-1) != 0 {
			v |= ^uint64(0) << (8 * n)
		}
		p.push(int64(v))
	default:
		p.push(int64(n))
	}
	return nil
}

func (p *pickleReader) line() (string, error) {
	b, err := p.r.ReadSlice('\n')
	if err != nil {
		return "", unexpectedEOF(err)
	}
	return string(b[:len(b)-1]), nil
}

func (p *pickleReader) decimal() error {
	text, err := p.line()
	if err != nil {
		return err
	}
	if n := len(text); n > 0 && text[n-1] == 'L' {
		text = text[:n-1]
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return errPickle
	}
	p.push(n)
	return nil
}

func (p *pickleReader) str(lengthBytes int) error {
	n, err := p.uint(lengthBytes)
	if err != nil {
		return err
	}
	if n > maxPickleString {
		return fmt.Errorf("%w: string of %d bytes", errPickle, n)
	}
	if int(n) >= p.leave {
		return p.span(int(n))
	}
	var s strings.Builder
	s.Grow(int(n))
	for left := int(n); left > 0; {
		b, err := p.r.Peek(min(left, p.r.Size()))
		if err != nil {
			return unexpectedEOF(err)
		}
		s.Write(b)
		p.r.Discard(len(b))
		left -= len(b)
	}
	p.push(s.String())
	return nil
}

// span passes over a string.
func (p *pickleReader) span(n int) error {
	off := p.file.off - int64(p.r.Buffered())
	if int64(n) > p.file.size-off {
		return io.ErrUnexpectedEOF
	}
	p.file.off = off + int64(n)
	p.r.Reset(p.file)
	p.push(pickleSpan{off, n})
	return nil
}

func (p *pickleReader) global() error {
	module, err := p.line()
	if err != nil {
		return err
	}
	name, err := p.line()
	if err != nil {
		return err
	}
	p.push(pickleClass(module + "." + name))
	return nil
}

func (p *pickleReader) marked(op byte) error {
	items, err := p.popMark()
	if err != nil {
		return err
	}
	switch op {
	case 't':
		p.push(pickleTuple(items))
		return nil
	case 'l':
		p.push(&pickleList{items})
		return nil
	case 'd':
		p.push(pickleDict{})
	}
	return p.extend(items, op == 'e')
}

func (p *pickleReader) appendOne(op byte) error {
	n := 2
	if op == 'a' {
		n = 1
	}
	if len(p.stack) < n {
		return errPickle
	}
	items := append([]any(nil), p.stack[len(p.stack)-n:]...)
	p.stack = p.stack[:len(p.stack)-n]
	return p.extend(items, op == 'a')
}

// extend adds items to the list or dict on top of the stack.
func (p *pickleReader) extend(items []any, list bool) error {
	if len(p.stack) == 0 {
		return errPickle
	}
	switch c := p.stack[len(p.stack)-1].(type) {
	case *pickleList:
		if !list {
			return errPickle
		}
		c.items = append(c.items, items...)
	case pickleDict:
		if list || len(items)%2 != 0 {
			return errPickle
		}
		for i := 0; i < len(items); i += 2 {
			key, ok := items[i].(string)
			if !ok {
				return errPickle
			}
			c[key] = items[i+1]
		}
	default:
		return errPickle
	}
	return nil
}

func (p *pickleReader) memoize(op byte) (err error) {
	var i uint64
	switch op {
	case 'q', 'h':
		i, err = p.uint(1)
	case 'r', 'j':
		i, err = p.uint(4)
	case 'p', 'g':
		var text string
		if text, err = p.line(); err == nil {
			i, err = strconv.ParseUint(text, 10, 31)
		}
	case 0x94:
		i = uint64(len(p.memo))
	}
	if err != nil {
		return err
	}
	if op == 'h' || op == 'j' || op == 'g' {
		v, ok := p.memo[int(i)]
		if !ok {
			return errPickle
		}
		p.push(v)
		return nil
	}
	if len(p.stack) == 0 {
		return errPickle
	}
	if p.memo == nil {
		p.memo = make(map[int]any)
	}
	p.memo[int(i)] = p.stack[len(p.stack)-1]
	return nil
}

func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendPickleStart and the functions below write pickles of protocol 3 as
// Python's pickler does in fast mode, without a memo.
func appendPickleStart(b []byte) []byte { return append(b, 0x80, 3) }

func appendPickleInt(b []byte, n int64) []byte {
	switch {
	case n >= 0 && n <= 0xff:
		return append(b, 'K', byte(n))
	case n >= 0 && n <= 0xffff:
		return binary.LittleEndian.AppendUint16(append(b, 'M'), uint16(n))
	case n == int64(int32(n)):
		return binary.LittleEndian.AppendUint32(append(b, 'J'), uint32(n))
	}
	// Two's complement, as few bytes as hold the sign.
	size := 8
	if n > 0 {
		size = bits.Len64(uint64(n))/8 + 1
	}
	le := binary.LittleEndian.AppendUint64(nil, uint64(n))
	return append(append(b, 0x8a, byte(size)), le[:size]...)
}

func appendPickleBytes(b, s []byte) []byte {
	return append(appendPickleBytesHeader(b, len(s)), s...)
}

// appendPickleBytesHeader is what comes before n bytes.
func appendPickleBytesHeader(b []byte, n int) []byte {
	if n < 256 {
		return append(b, 'C', byte(n))
	}
	return binary.LittleEndian.AppendUint32(append(b, 'B'), uint32(n))
}
