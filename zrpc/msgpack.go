package zrpc

import (
	"encoding/binary"
	"math"
	"unicode/utf8"
)

// The first bytes of msgpack values. The fix forms hold a length or a number
// in their low bits.
const (
	mpFixMap   = 0x80 // to 0x8f
	mpFixArray = 0x90 // to 0x9f
	mpFixStr   = 0xa0 // to 0xbf
	mpNil      = 0xc0
	mpFalse    = 0xc2
	mpTrue     = 0xc3
	mpBin8     = 0xc4
	mpBin16    = 0xc5
	mpBin32    = 0xc6
	mpFloat32  = 0xca
	mpFloat64  = 0xcb
	mpUint8    = 0xcc
	mpUint16   = 0xcd
	mpUint32   = 0xce
	mpUint64   = 0xcf
	mpInt8     = 0xd0
	mpInt16    = 0xd1
	mpInt32    = 0xd2
	mpInt64    = 0xd3
	mpStr8     = 0xd9
	mpStr16    = 0xda
	mpStr32    = 0xdb
	mpArray16  = 0xdc
	mpArray32  = 0xdd
	mpMap16    = 0xde
	mpMap32    = 0xdf
	mpFixNeg   = 0xe0 // to 0xff: -32 to -1
)

func appendMsgpackInt(dst []byte, v int64) []byte {
	if v >= 0 {
		switch {
		case v < 0x80:
			return append(dst, byte(v))
		case v <= math.MaxUint8:
			return append(dst, mpUint8, byte(v))
		case v <= math.MaxUint16:
			return binary.BigEndian.AppendUint16(append(dst, mpUint16), uint16(v))
		case v <= math.MaxUint32:
			return binary.BigEndian.AppendUint32(append(dst, mpUint32), uint32(v))
		}
		return binary.BigEndian.AppendUint64(append(dst, mpUint64), uint64(v))
	}
	switch {
	case v >= -32:
		return append(dst, byte(v))
	case v >= math.MinInt8:
		return append(dst, mpInt8, byte(v))
	case v >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(dst, mpInt16), uint16(v))
	case v >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(dst, mpInt32), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, mpInt64), uint64(v))
}

// The scanners below read one msgpack token at the start of b. They return
// what it says and its length, or ok false if b begins with something else or
// ends too early. size is the length of the token, contents not included.

func scanMsgpackInt(b []byte) (v int64, wide bool, size int, ok bool) {
	if len(b) == 0 {
		return 0, false, 0, false
	}
	c := b[0]
	if c < mpFixMap || c >= mpFixNeg {
		return int64(int8(c)), false, 1, true
	}
	if c < mpUint8 || c > mpInt64 {
		return 0, false, 0, false
	}
	size = 1 + 1<<((c-mpUint8)&3)
	if len(b) < size {
		return 0, false, 0, false
	}
	switch c {
	case mpUint8:
		v = int64(b[1])
	case mpUint16:
		v = int64(binary.BigEndian.Uint16(b[1:]))
	case mpUint32:
		v = int64(binary.BigEndian.Uint32(b[1:]))
	case mpUint64, mpInt64:
		v = int64(binary.BigEndian.Uint64(b[1:]))
		wide = c == mpUint64 && v < 0
	case mpInt8:
		v = int64(int8(b[1]))
	case mpInt16:
		v = int64(int16(binary.BigEndian.Uint16(b[1:])))
	case mpInt32:
		v = int64(int32(binary.BigEndian.Uint32(b[1:])))
	}
	return v, wide, size, true
}

// scanMsgpackLen reads a length of 1<<log2 bytes that follows b[0].
func scanMsgpackLen(b []byte, log2 byte) (n uint64, size int, ok bool) {
	size = 1 + 1<<log2
	if len(b) < size {
		return 0, 0, false
	}
	switch log2 {
	case 0:
		n = uint64(b[1])
	case 1:
		n = uint64(binary.BigEndian.Uint16(b[1:]))
	default:
		n = uint64(binary.BigEndian.Uint32(b[1:]))
	}
	return n, size, true
}

func scanMsgpackArray(b []byte) (n uint64, size int, ok bool) {
	if len(b) == 0 {
		return 0, 0, false
	}
	switch c := b[0]; {
	case c&0xf0 == mpFixArray:
		n, size, ok = uint64(c&0x0f), 1, true
	case c == mpArray16 || c == mpArray32:
		n, size, ok = scanMsgpackLen(b, c-mpArray16+1)
	}
	// An item has at least one byte.
	return n, size, ok && n <= uint64(len(b)-size)
}

func scanMsgpackMap(b []byte) (n uint64, size int, ok bool) {
	if len(b) == 0 {
		return 0, 0, false
	}
	switch c := b[0]; {
	case c&0xf0 == mpFixMap:
		n, size, ok = uint64(c&0x0f), 1, true
	case c == mpMap16 || c == mpMap32:
		n, size, ok = scanMsgpackLen(b, c-mpMap16+1)
	}
	return n, size, ok && 2*n <= uint64(len(b)-size)
}

// scanMsgpackStr reads text and its contents: size is that of both.
func scanMsgpackStr(b []byte) (s []byte, size int, ok bool) {
	if len(b) == 0 {
		return nil, 0, false
	}
	var n uint64
	switch c := b[0]; {
	case c&0xe0 == mpFixStr:
		n, size, ok = uint64(c&0x1f), 1, true
	case c >= mpStr8 && c <= mpStr32:
		n, size, ok = scanMsgpackLen(b, c-mpStr8)
	}
	return contents(b, n, size, ok)
}

// scanMsgpackBin reads a byte string and its contents: size is that of both.
func scanMsgpackBin(b []byte) (s []byte, size int, ok bool) {
	if len(b) == 0 || b[0] < mpBin8 || b[0] > mpBin32 {
		return nil, 0, false
	}
	n, size, ok := scanMsgpackLen(b, b[0]-mpBin8)
	return contents(b, n, size, ok)
}

func contents(b []byte, n uint64, size int, ok bool) ([]byte, int, bool) {
	if !ok || n > uint64(len(b)-size) {
		return nil, 0, false
	}
	end := size + int(n)
	return b[size:end:end], end, true
}

func scanMsgpackFloat(b []byte) (v float64, size int, ok bool) {
	switch {
	case len(b) >= 9 && b[0] == mpFloat64:
		return math.Float64frombits(binary.BigEndian.Uint64(b[1:])), 9, true
	case len(b) >= 5 && b[0] == mpFloat32:
		return float64(math.Float32frombits(binary.BigEndian.Uint32(b[1:]))), 5, true
	}
	i, wide, size, ok := scanMsgpackInt(b)
	return intFloat(i, wide), size, ok
}

func (d *Decoder) msgpackArray(n int) {
	got, size, ok := scanMsgpackArray(d.buf[d.pos:])
	switch {
	case !ok:
		d.wrong("a sequence")
	case n >= 0 && got != uint64(n):
		d.wrongCount(n, int(got))
	default:
		d.pos += size
		d.push(levelArray, uint32(got))
	}
}

// skipMsgpack returns the length of the whole value at the start of b. It
// vouches for the value: text in it is UTF-8. Maps, whose keys need a closer
// look, are not ok; readMsgpack takes it.
func skipMsgpack(b []byte, depth int) (size int, ok bool) {
	// items counts the values still to be passed at each open level.
	pos, items := 0, uint64(1)
	var store [8]uint64
	open := store[:0]
	for {
		for items == 0 {
			if len(open) == 0 {
				return pos, true
			}
			items = open[len(open)-1]
			open = open[:len(open)-1]
		}
		items--
		rest := b[pos:]
		if len(rest) == 0 {
			return 0, false
		}
		var n uint64
		var sz int
		c := rest[0]
		switch {
		case c < mpFixMap, c >= mpFixNeg, c == mpNil, c == mpFalse, c == mpTrue:
			pos++
			continue
		case c >= mpFloat32 && c <= mpInt64:
			_, sz, ok = scanMsgpackFloat(rest)
		case c >= mpBin8 && c <= mpBin32:
			_, sz, ok = scanMsgpackBin(rest)
		case c&0xe0 == mpFixStr, c >= mpStr8 && c <= mpStr32:
			var text []byte
			text, sz, ok = scanMsgpackStr(rest)
			ok = ok && utf8.Valid(text)
		case c&0xf0 == mpFixArray, c == mpArray16, c == mpArray32:
			n, sz, ok = scanMsgpackArray(rest)
		default:
			return 0, false
		}
		if !ok {
			return 0, false
		}
		pos += sz
		if n > 0 {
			if len(open) >= depth {
				return 0, false
			}
			open = append(open, items)
			items = n
		}
	}
}
