package zrpc

import (
	"bytes"
	"encoding/binary"
	"math"
)

// The opcodes of pickle, protocols 0 to 5, by the names of the pickletools
// documentation. Only those of protocol 3 are ever written.
const (
	opMark           = '('
	opStop           = '.'
	opPop            = '0'
	opPopMark        = '1'
	opDup            = '2'
	opFloat          = 'F'
	opInt            = 'I'
	opBinInt         = 'J'
	opBinInt1        = 'K'
	opLong           = 'L'
	opBinInt2        = 'M'
	opNone           = 'N'
	opPersID         = 'P'
	opBinPersID      = 'Q'
	opReduce         = 'R'
	opString         = 'S'
	opBinString      = 'T'
	opShortBinString = 'U'
	opUnicode        = 'V'
	opBinUnicode     = 'X'
	opAppend         = 'a'
	opBuild          = 'b'
	opGlobal         = 'c'
	opDict           = 'd'
	opEmptyDict      = '}'
	opAppends        = 'e'
	opGet            = 'g'
	opBinGet         = 'h'
	opInst           = 'i'
	opLongBinGet     = 'j'
	opList           = 'l'
	opEmptyList      = ']'
	opObj            = 'o'
	opPut            = 'p'
	opBinPut         = 'q'
	opLongBinPut     = 'r'
	opSetItem        = 's'
	opTuple          = 't'
	opEmptyTuple     = ')'
	opSetItems       = 'u'
	opBinFloat       = 'G'

	// Protocol 2.
	opProto    = 0x80
	opNewObj   = 0x81
	opExt1     = 0x82
	opExt2     = 0x83
	opExt4     = 0x84
	opTuple1   = 0x85
	opTuple2   = 0x86
	opTuple3   = 0x87
	opNewTrue  = 0x88
	opNewFalse = 0x89
	opLong1    = 0x8a
	opLong4    = 0x8b

	// Protocol 3.
	opBinBytes      = 'B'
	opShortBinBytes = 'C'

	// Protocols 4 and 5.
	opShortBinUnicode = 0x8c
	opBinUnicode8     = 0x8d
	opBinBytes8       = 0x8e
	opEmptySet        = 0x8f
	opAddItems        = 0x90
	opFrozenSet       = 0x91
	opNewObjEx        = 0x92
	opStackGlobal     = 0x93
	opMemoize         = 0x94
	opFrame           = 0x95
	opByteArray8      = 0x96
)

// pickleBatch is how many items of a list, or pairs of a dict, Python puts
// between one mark and its append or set opcode.
const pickleBatch = 1000

func appendPickleInt(dst []byte, v int64) []byte {
	switch {
	case v >= 0 && v <= math.MaxUint8:
		return append(dst, opBinInt1, byte(v))
	case v >= 0 && v <= math.MaxUint16:
		return append(dst, opBinInt2, byte(v), byte(v>>8))
	case v == int64(int32(v)):
		return binary.LittleEndian.AppendUint32(append(dst, opBinInt), uint32(v))
	}
	// The shortest two's complement: bytes are dropped from the top while
	// the sign still shows.
	n := 8
	for n > 1 && v>>(8*n-9) == v>>63 {
		n--
	}
	dst = append(dst, opLong1, byte(n))
	for ; n > 0; n-- {
		dst = append(dst, byte(v))
		v >>= 8
	}
	return dst
}

// smallLong reads the two's complement, little-endian integer b if it fits:
// v is its value, or if wide is set the bits of one above MaxInt64.
func smallLong(b []byte) (v int64, wide, ok bool) {
	n := len(b)
	if n == 9 && b[8] == 0 && b[7] >= 0x80 {
		return int64(binary.LittleEndian.Uint64(b)), true, true
	}
	if n == 0 {
		return 0, false, true
	}
	if n > 8 {
		// Longer than needed is legal: what is left over must be sign.
		sign := byte(int8(b[n-1]) >> 7)
		for _, c := range b[8:] {
			if c != sign {
				return 0, false, false
			}
		}
		if byte(int8(b[7])>>7) != sign {
			if sign == 0 {
				return int64(binary.LittleEndian.Uint64(b)), true, true
			}
			return 0, false, false
		}
		return int64(binary.LittleEndian.Uint64(b)), false, true
	}
	var u uint64
	for i, c := range b {
		u |= uint64(c) << (8 * i)
	}
	shift := 64 - 8*n
	return int64(u<<shift) >> shift, false, true
}

// The typed reader of pickles. It takes the opcodes that picklers without a
// memo write, in a straight line, and steps over opcodes that only fill the
// memo. It relies on this: each item it accepts leaves exactly one value on
// the stack of a real unpickler, so an opcode that closes a tuple or fills a
// list can only concern the items just read. Where the next opcode could mean
// two things it takes the likely one; the other makes it fail a little later,
// and Fallback reads the message in the general way.

// peekOp returns the next opcode that is not a memo put, 0 at the end.
func (d *Decoder) peekOp() byte {
	for d.pos < len(d.buf) {
		c := d.buf[d.pos]
		if c-opPut > opLongBinPut-opPut && c != opMemoize {
			return c
		}
		d.skipPut(c)
	}
	return 0
}

func (d *Decoder) skipPut(c byte) {
	n := 1
	switch c {
	case opBinPut:
		n = 2
	case opLongBinPut:
		n = 5
	case opPut:
		n = bytes.IndexByte(d.buf[d.pos:], '\n') + 1
		if n == 0 {
			n = len(d.buf)
		}
	}
	d.pos = min(d.pos+n, len(d.buf))
}

// expectOp consumes the opcode c.
func (d *Decoder) expectOp(c byte, want string) bool {
	if d.peekOp() != c {
		d.wrong(want)
		return false
	}
	d.pos++
	return true
}

func (d *Decoder) pickleStart() {
	if d.peekOp() != opProto {
		return // protocols 0 and 1 have no such opcode
	}
	if d.pos+1 >= len(d.buf) || d.buf[d.pos+1] > 3 {
		d.wrong("a pickle of protocol 0 to 3")
		return
	}
	d.pos += 2
}

func (d *Decoder) pickleInteger() (v int64, wide, ok bool) {
	c := d.peekOp()
	b := d.buf[d.pos:]
	switch {
	case c == opBinInt1 && len(b) >= 2:
		d.pos += 2
		return int64(b[1]), false, true
	case c == opBinInt2 && len(b) >= 3:
		d.pos += 3
		return int64(b[1]) | int64(b[2])<<8, false, true
	case c == opBinInt && len(b) >= 5:
		d.pos += 5
		return int64(int32(binary.LittleEndian.Uint32(b[1:]))), false, true
	case c == opLong1 && len(b) >= 2 && len(b)-2 >= int(b[1]):
		n := int(b[1])
		if v, wide, ok = smallLong(b[2 : 2+n]); ok {
			d.pos += 2 + n
		}
		return v, wide, ok
	}
	return 0, false, false
}

func (d *Decoder) pickleFloat() (float64, bool) {
	if c := d.peekOp(); c == opBinFloat && len(d.buf)-d.pos >= 9 {
		v := math.Float64frombits(binary.BigEndian.Uint64(d.buf[d.pos+1:]))
		d.pos += 9
		return v, true
	}
	v, wide, ok := d.pickleInteger()
	return intFloat(v, wide), ok
}

func (d *Decoder) pickleStr() ([]byte, bool) {
	if d.peekOp() != opBinUnicode {
		return nil, false
	}
	return d.long32()
}

func (d *Decoder) pickleBytes() ([]byte, bool) {
	switch d.peekOp() {
	case opShortBinBytes:
		b := d.buf[d.pos:]
		if len(b) < 2 || len(b)-2 < int(b[1]) {
			return nil, false
		}
		n := 2 + int(b[1])
		d.pos += n
		return b[2:n:n], true
	case opBinBytes:
		return d.long32()
	}
	return nil, false
}

// long32 reads an opcode, a 32-bit little-endian length and that many bytes.
func (d *Decoder) long32() ([]byte, bool) {
	b := d.buf[d.pos:]
	if len(b) < 5 {
		return nil, false
	}
	n := uint64(binary.LittleEndian.Uint32(b[1:]))
	if n > uint64(len(b)-5) {
		return nil, false
	}
	end := 5 + int(n)
	d.pos += end
	return b[5:end:end], true
}

func (d *Decoder) pickleTuple(n int) {
	if n <= 3 {
		d.push(levelPlain, 0)
	} else if d.expectOp(opMark, "a tuple") {
		d.push(levelMark, 0)
	}
}

func (d *Decoder) pickleOpenTuple() {
	switch d.peekOp() {
	case 0:
		d.wrong("a tuple")
	case opEmptyTuple:
		d.push(levelEmpty, 0)
	case opMark:
		d.pos++
		d.push(levelMark, 0)
	default:
		d.push(levelPlain, 0)
	}
}

// pickleEndTuple consumes what closes the tuple being read.
func (d *Decoder) pickleEndTuple() {
	n := d.cur.n
	var op byte
	switch {
	case d.cur.kind == levelMark:
		op = opTuple
	case n == 0:
		op = opEmptyTuple
	case n <= 3:
		op = opTuple1 + byte(n-1)
	default:
		d.wrong("the end of a tuple")
		return
	}
	if d.expectOp(op, "the end of a tuple") {
		d.pop()
	}
}

// pickleMore tells whether another item of the container being read follows,
// and consumes what surrounds the items of a list.
func (d *Decoder) pickleMore() bool {
	c := d.peekOp()
	switch d.cur.kind {
	case levelPlain:
		return c < opTuple1 || c > opTuple3
	case levelMark:
		return c != opTuple
	case levelList:
		switch {
		case c == opMark:
			d.pos++
			d.cur.kind = levelListBatch
			return d.pickleMore()
		case closesItem(c):
			d.cur.kind = levelListDone
			return false
		}
		d.cur.kind = levelListSingle
		return true
	case levelListSingle:
		if d.cur.n == 0 {
			return true
		}
		if d.expectOp(opAppend, "the end of a list") {
			d.cur.kind = levelListDone
		}
		return false
	case levelListBatch:
		for c == opAppends {
			d.pos++
			if c = d.peekOp(); c != opMark {
				d.cur.kind = levelListDone
				return false
			}
			d.pos++ // the next batch of the same list
			c = d.peekOp()
		}
		return true
	}
	return false // levelEmpty, levelListDone
}

// closesItem tells whether an opcode uses the item before it, rather than
// beginning another one.
func closesItem(c byte) bool {
	switch c {
	case opTuple1, opTuple2, opTuple3, opTuple, opAppend, opAppends, opSetItem, opSetItems, opStop:
		return true
	}
	return false
}
