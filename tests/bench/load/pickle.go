package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// pickle is the encoding Z5.
type pickle struct{}

func (pickle) letter() byte { return 'Z' }

func (e pickle) appendMessage(dst []byte, id any, oneWay bool, method string, args []any) []byte {
	dst = append(dst, 0x80, 3, '(')
	dst = e.appendValue(dst, id)
	dst = e.appendValue(dst, oneWay)
	dst = e.appendValue(dst, method)
	switch {
	case len(args) == 0:
		return append(dst, ')', 't', '.')
	case len(args) > 3:
		dst = append(dst, '(')
	}
	for _, arg := range args {
		dst = e.appendValue(dst, arg)
	}
	if len(args) > 3 {
		return append(dst, 't', 't', '.')
	}
	return append(dst, 0x84+byte(len(args)), 't', '.')
}

func (e pickle) appendValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, 'N')
	case bool:
		if v {
			return append(dst, 0x88)
		}
		return append(dst, 0x89)
	case int:
		if v >= 0 && v < 1<<8 {
			return append(dst, 'K', byte(v))
		}
		return binary.LittleEndian.AppendUint64(append(dst, 0x8a, 8), uint64(v))
	case uint64:
		return binary.BigEndian.AppendUint64(append(dst, 'C', 8), v)
	case pair:
		return append(e.appendValue(e.appendValue(dst, v[0]), v[1]), 0x86)
	case []byte:
		if len(v) < 1<<8 {
			dst = append(dst, 'C', byte(len(v)))
		} else {
			dst = binary.LittleEndian.AppendUint32(append(dst, 'B'), uint32(len(v)))
		}
		return append(dst, v...)
	case string:
		return append(binary.LittleEndian.AppendUint32(append(dst, 'X'), uint32(len(v))), v...)
	case emptyMap:
		return append(dst, '}')
	}
	panic(fmt.Sprintf("no encoding for %T", v))
}

// skipped are opcodes that build containers or fill the memo, with the number
// of bytes behind them. Nothing a server sends reads the memo.
var skipped = map[byte]int{
	0x80: 1, '(': 0, ')': 0, ']': 0, '}': 0, 't': 0, 'e': 0, 'u': 0, 's': 0, 'a': 0, 'l': 0,
	0x85: 0, 0x86: 0, 0x87: 0, 'q': 1, 'r': 4, 0x94: 0, 0x95: 8, 'R': 0, 'b': 0, 0x81: 0,
}

// skipTable is skipped with 1 added, so that zero says: not an opcode to skip.
var skipTable = func() (t [256]byte) {
	for op, n := range skipped {
		t[op] = byte(n) + 1
	}
	return t
}()

func (pickle) next(b []byte) (scalar, []byte, error) {
	for len(b) > 0 {
		op := b[0]
		b = b[1:]
		if n := skipTable[op]; n > 0 {
			var err error
			if _, b, err = take(b, int(n-1)); err != nil {
				return scalar{}, nil, err
			}
			continue
		}
		switch op {
		case '.':
			return scalar{kind: end}, nil, nil
		case 'N':
			return scalar{kind: null}, b, nil
		case 0x88, 0x89:
			return scalar{kind: boolean, n: int64(0x89 - op)}, b, nil
		case 'K':
			return pickleInt(b, 1, false)
		case 'M':
			return pickleInt(b, 2, false)
		case 'J':
			return pickleInt(b, 4, true)
		case 0x8a:
			if len(b) == 0 || b[0] > 8 {
				return scalar{}, nil, fmt.Errorf("integer too long")
			}
			return pickleInt(b[1:], int(b[0]), true)
		case 'G':
			_, b, err := take(b, 8)
			return scalar{kind: float}, b, err
		case 'C':
			return pickleSized(bytesKind, b, 1)
		case 'B':
			return pickleSized(bytesKind, b, 4)
		case 'X':
			return pickleSized(text, b, 4)
		case 0x8c:
			return pickleSized(text, b, 1)
		case 'c':
			return pickleGlobal(b)
		default:
			return scalar{}, nil, fmt.Errorf("pickle opcode %#x is not expected", op)
		}
	}
	return scalar{}, nil, errShort
}

func (pickle) bytesHead(b []byte) (int, []byte, error) {
	for len(b) > 0 && skipTable[b[0]] > 0 && len(b) >= int(skipTable[b[0]]) {
		b = b[skipTable[b[0]]:]
	}
	if len(b) == 0 || b[0] != 'C' && b[0] != 'B' {
		return 0, nil, errNoBytes
	}
	digits := 1
	if b[0] == 'B' {
		digits = 4
	}
	n, rest, err := littleEndian(b[1:], digits)
	return int(n), rest, err
}

func littleEndian(b []byte, n int) (uint64, []byte, error) {
	digits, rest, err := take(b, n)
	var v uint64
	for i, d := range digits {
		v |= uint64(d) << (8 * i)
	}
	return v, rest, err
}

func pickleInt(b []byte, n int, signed bool) (scalar, []byte, error) {
	v, rest, err := littleEndian(b, n)
	if signed && n > 0 {
		shift := 64 - 8*n
		return scalar{kind: integer, n: int64(v<<shift) >> shift}, rest, err
	}
	return scalar{kind: integer, n: int64(v)}, rest, err
}

func pickleSized(k kind, b []byte, lengthBytes int) (scalar, []byte, error) {
	n, b, err := littleEndian(b, lengthBytes)
	if err != nil {
		return scalar{}, nil, err
	}
	v, rest, err := take(b, int(n))
	return scalar{kind: k, b: v}, rest, err
}

// pickleGlobal reads the name of a class, module and name, as one text.
func pickleGlobal(b []byte) (scalar, []byte, error) {
	first := bytes.IndexByte(b, '\n')
	if first < 0 {
		return scalar{}, nil, errShort
	}
	second := bytes.IndexByte(b[first+1:], '\n')
	if second < 0 {
		return scalar{}, nil, errShort
	}
	n := first + 1 + second
	return scalar{kind: text, b: b[:n]}, b[n+1:], nil
}
