package references

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/zeolite-go/zeolite"
)

// value is what the scanner keeps of a Python value.
type value struct {
	kind kind
	// bytes are those of a string; of a tuple, those of its first item if
	// that is a string.
	bytes []byte
}

type kind uint8

const (
	kindOther     kind = iota
	kindMark           // where the items of a tuple, list or dict begin
	kindBytes          // a byte string, or a string of Python 2
	kindText           // a character string
	kindTuple          // a tuple that begins with something else
	kindOIDTuple       // one that begins with a byte string; its bytes are that
	kindTextTuple      // one that begins with a character string; its bytes are that
	kindList
	kindBlobClass // the class ZODB.blob.Blob
	kindEncode    // the function _codecs.encode, by which Python 3 writes bytes in protocols 0 to 2
)

// limits that no real record comes near.
const (
	maxStack = 1 << 20
	maxMemo  = 1 << 24
)

// scanner runs over pickles. It is used by one goroutine at a time.
type scanner struct {
	data   []byte
	oids   []zeolite.OID
	stack  []value
	memo   []value
	result value
}

var scanners = sync.Pool{New: func() any { return new(scanner) }}

// free makes the scanner ready for another record; it keeps nothing of this
// one alive.
func (s *scanner) free() {
	if cap(s.stack)+cap(s.memo) > 1<<16 {
		s.stack, s.memo = nil, nil
	}
	clear(s.stack[:cap(s.stack)])
	clear(s.memo[:cap(s.memo)])
	s.data, s.oids, s.result = nil, nil, value{}
	scanners.Put(s)
}

type formatError string

func (e formatError) Error() string { return "not a data record: " + string(e) }

const errShort = formatError("it ends in the middle of a pickle")
const errStack = formatError("a pickle takes more from its stack than is there")

// pickle scans one pickle, and leaves data behind it.
func (s *scanner) pickle() error {
	s.stack, s.memo = s.stack[:0], s.memo[:0]
	for {
		if len(s.data) == 0 {
			return errShort
		}
		op := s.data[0]
		s.data = s.data[1:]
		if op == '.' {
			v, err := s.pop()
			s.result = v
			return err
		}
		if err := s.step(op); err != nil {
			return err
		}
		if len(s.stack) > maxStack {
			return formatError("a pickle needs too much stack")
		}
	}
}

// step runs one opcode. They are grouped by what they do here, not there.
func (s *scanner) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		return s.skip(1)
	case 0x95: // FRAME
		return s.skip(8)

	// Values that cannot be part of an id.
	case 'N', '}', 0x88, 0x89, 0x8f, 0x97: // None, dict, booleans, set, buffer
		return s.push(value{})
	case 'K', 0x82: // BININT1, EXT1
		return s.skipPush(1)
	case 'M', 0x83: // BININT2, EXT2
		return s.skipPush(2)
	case 'J', 0x84: // BININT, EXT4
		return s.skipPush(4)
	case 'G': // BINFLOAT
		return s.skipPush(8)
	case 0x8a, 0x8b: // LONG1, LONG4
		_, err := s.counted(1 + 3*int(op-0x8a))
		if err == nil {
			err = s.push(value{})
		}
		return err
	case 'I', 'L', 'F': // numbers as text
		if _, err := s.line(); err != nil {
			return err
		}
		return s.push(value{})

	// Strings.
	case 'U', 'C': // SHORT_BINSTRING, SHORT_BINBYTES
		return s.pushString(kindBytes, 1)
	case 'T', 'B': // BINSTRING, BINBYTES
		return s.pushString(kindBytes, 4)
	case 0x8e, 0x96: // BINBYTES8, BYTEARRAY8
		return s.pushString(kindBytes, 8)
	case 0x8c: // SHORT_BINUNICODE
		return s.pushString(kindText, 1)
	case 'X': // BINUNICODE
		return s.pushString(kindText, 4)
	case 0x8d: // BINUNICODE8
		return s.pushString(kindText, 8)
	case 'S', 'V':
		return s.pushLine(op)

	// Containers.
	case '(':
		return s.push(value{kind: kindMark})
	case ')':
		return s.push(value{kind: kindTuple})
	case ']':
		return s.push(value{kind: kindList})
	case 0x85, 0x86, 0x87: // TUPLE1, TUPLE2, TUPLE3
		return s.tuple(int(op-0x85) + 1)
	case 't':
		n, err := s.aboveMark()
		if err != nil {
			return err
		}
		if err := s.tuple(n); err != nil {
			return err
		}
		s.dropUnderTop()
		return nil
	case 'l', 'd', 0x91: // LIST, DICT, FROZENSET
		if err := s.popMark(); err != nil {
			return err
		}
		if op == 'l' {
			return s.push(value{kind: kindList})
		}
		return s.push(value{})
	case 'e', 'u', 0x90: // APPENDS, SETITEMS, ADDITEMS
		return s.popMark()
	case 'a': // APPEND
		return s.drop(1)
	case 's': // SETITEM
		return s.drop(2)

	// Stack and memo.
	case '0': // POP
		if n := len(s.stack); n == 0 {
			return errStack
		}
		s.stack = s.stack[:len(s.stack)-1]
		return nil
	case '1':
		return s.popMark()
	case '2': // DUP
		if len(s.stack) == 0 {
			return errStack
		}
		return s.push(s.stack[len(s.stack)-1])
	case 'p', 'q', 'r', 0x94:
		return s.put(op)
	case 'g', 'h', 'j':
		return s.get(op)

	// Classes and instances.
	case 'c': // GLOBAL
		module, err := s.line()
		if err != nil {
			return err
		}
		name, err := s.line()
		if err != nil {
			return err
		}
		return s.push(global(module, name))
	case 0x93: // STACK_GLOBAL
		if len(s.stack) < 2 {
			return errStack
		}
		v := global(s.stack[len(s.stack)-2].bytes, s.stack[len(s.stack)-1].bytes)
		return s.replace(2, v)
	case 'R': // REDUCE
		return s.reduce()
	case 0x81: // NEWOBJ
		return s.replace(2, value{})
	case 0x92: // NEWOBJ_EX
		return s.replace(3, value{})
	case 'b': // BUILD
		return s.drop(1)
	case 'i': // INST
		for range 2 {
			if _, err := s.line(); err != nil {
				return err
			}
		}
		fallthrough
	case 'o': // OBJ
		if err := s.popMark(); err != nil {
			return err
		}
		return s.push(value{})
	case 0x98: // READONLY_BUFFER
		return nil

	// What it is all about.
	case 'Q': // BINPERSID
		v, err := s.pop()
		if err != nil {
			return err
		}
		return s.reference(v)
	case 'P': // PERSID
		text, err := s.line()
		if err != nil {
			return err
		}
		return s.reference(value{kindBytes, text})
	}
	return formatError(fmt.Sprintf("opcode %#x is not known", op))
}

// reference takes note of a persistent id.
func (s *scanner) reference(v value) error {
	switch v.kind {
	case kindList:
	case kindBytes, kindText, kindOIDTuple, kindTextTuple:
		oid, err := zeolite.OIDFromBytes(v.bytes)
		if err != nil {
			return formatError("a persistent id has an oid of " + strconv.Itoa(len(v.bytes)) + " bytes")
		}
		s.oids = append(s.oids, oid)
	default:
		return formatError("a persistent id has an unknown form")
	}
	return s.push(value{})
}

func global(module, name []byte) value {
	switch {
	case bytes.Equal(module, blobModule) && string(name) == "Blob":
		return value{kind: kindBlobClass}
	case string(module) == "_codecs" && string(name) == "encode":
		return value{kind: kindEncode}
	}
	return value{}
}

// reduce forgets a call, but for that which makes bytes of a character string.
func (s *scanner) reduce() error {
	if len(s.stack) < 2 {
		return errStack
	}
	function, args := s.stack[len(s.stack)-2], s.stack[len(s.stack)-1]
	v := value{}
	// What is too long for an oid in UTF-8 is not decoded: the memo may bring it
	// as often as there are calls.
	if function.kind == kindEncode && args.kind == kindTextTuple && len(args.bytes) <= 2*zeolite.IDLen {
		v = value{kindBytes, latin1(args.bytes)}
	}
	return s.replace(2, v)
}

// latin1 encodes UTF-8 as Latin-1.
func latin1(text []byte) []byte {
	b := make([]byte, 0, len(text))
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		b = append(b, byte(r))
		text = text[n:]
	}
	return b
}
