package load

import (
	"encoding/binary"
	"fmt"
)

// msgpack is the encoding M5.
type msgpack struct{}

func (msgpack) letter() byte { return 'M' }

func (e msgpack) appendMessage(dst []byte, id any, oneWay bool, method string, args []any) []byte {
	dst = append(dst, 0x94)
	dst = e.appendValue(dst, id)
	dst = e.appendValue(dst, oneWay)
	dst = e.appendValue(dst, method)
	dst = append(dst, 0x90|byte(len(args)))
	for _, arg := range args {
		dst = e.appendValue(dst, arg)
	}
	return dst
}

func (e msgpack) appendValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, 0xc0)
	case bool:
		if v {
			return append(dst, 0xc3)
		}
		return append(dst, 0xc2)
	case int:
		if v >= 0 && v < 0x80 {
			return append(dst, byte(v))
		}
		return binary.BigEndian.AppendUint64(append(dst, 0xd3), uint64(v))
	case uint64:
		return binary.BigEndian.AppendUint64(append(dst, 0xc4, 8), v)
	case pair:
		return e.appendValue(e.appendValue(append(dst, 0x92), v[0]), v[1])
	case []byte:
		switch n := len(v); {
		case n < 1<<8:
			dst = append(dst, 0xc4, byte(n))
		case n < 1<<16:
			dst = binary.BigEndian.AppendUint16(append(dst, 0xc5), uint16(n))
		default:
			dst = binary.BigEndian.AppendUint32(append(dst, 0xc6), uint32(n))
		}
		return append(dst, v...)
	case string:
		if len(v) < 32 {
			dst = append(dst, 0xa0|byte(len(v)))
		} else {
			dst = append(dst, 0xd9, byte(len(v)))
		}
		return append(dst, v...)
	case emptyMap:
		return append(dst, 0x80)
	}
	panic(fmt.Sprintf("no encoding for %T", v))
}

func (msgpack) next(b []byte) (scalar, []byte, error) {
	for len(b) > 0 {
		c := b[0]
		b = b[1:]
		switch {
		case c < 0x80:
			return scalar{kind: integer, n: int64(c)}, b, nil
		case c >= 0xe0:
			return scalar{kind: integer, n: int64(int8(c))}, b, nil
		case c < 0xa0: // small maps and arrays
		case c < 0xc0:
			return msgpackBytes(text, b, int(c&31))
		case c == 0xc0:
			return scalar{kind: null}, b, nil
		case c == 0xc2, c == 0xc3:
			return scalar{kind: boolean, n: int64(c & 1)}, b, nil
		case c >= 0xc4 && c <= 0xc6:
			return msgpackSized(bytesKind, b, 1<<(c-0xc4))
		case c >= 0xd9 && c <= 0xdb:
			return msgpackSized(text, b, 1<<(c-0xd9))
		case c == 0xcb:
			_, b, err := take(b, 8)
			return scalar{kind: float}, b, err
		case c >= 0xcc && c <= 0xcf:
			return msgpackInt(b, 1<<(c-0xcc), false)
		case c >= 0xd0 && c <= 0xd3:
			return msgpackInt(b, 1<<(c-0xd0), true)
		case c >= 0xdc && c <= 0xdf: // large arrays (dc, dd) and maps (de, df)
			var err error
			if _, b, err = take(b, 2<<(c&1)); err != nil {
				return scalar{}, nil, err
			}
		default:
			return scalar{}, nil, fmt.Errorf("msgpack type %#x is not used by ZEO", c)
		}
	}
	return scalar{kind: end}, nil, nil
}

func (msgpack) bytesHead(b []byte) (int, []byte, error) {
	for len(b) > 0 && (b[0]&0xe0 == 0x80) { // small maps and arrays
		b = b[1:]
	}
	if len(b) == 0 || b[0] < 0xc4 || b[0] > 0xc6 {
		return 0, nil, errNoBytes
	}
	n, rest, err := bigEndian(b[1:], 1<<(b[0]-0xc4))
	return int(n), rest, err
}

// bigEndian reads a number of n bytes.
func bigEndian(b []byte, n int) (uint64, []byte, error) {
	digits, rest, err := take(b, n)
	var v uint64
	for _, d := range digits {
		v = v<<8 | uint64(d)
	}
	return v, rest, err
}

func msgpackSized(k kind, b []byte, lengthBytes int) (scalar, []byte, error) {
	n, b, err := bigEndian(b, lengthBytes)
	if err != nil {
		return scalar{}, nil, err
	}
	return msgpackBytes(k, b, int(n))
}

func msgpackBytes(k kind, b []byte, n int) (scalar, []byte, error) {
	v, rest, err := take(b, n)
	return scalar{kind: k, b: v}, rest, err
}

func msgpackInt(b []byte, n int, signed bool) (scalar, []byte, error) {
	v, rest, err := bigEndian(b, n)
	if signed {
		shift := 64 - 8*n
		return scalar{kind: integer, n: int64(v<<shift) >> shift}, rest, err
	}
	return scalar{kind: integer, n: int64(v)}, rest, err
}
