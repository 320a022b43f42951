package zrpc

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

// integer reads an integer: its value, or if wide is set the bits of one above
// MaxInt64.
func (d *Decoder) integer() (v int64, wide bool) {
	var ok bool
	switch {
	case d.tree != nil:
		v, wide, ok = d.treeInteger()
	case d.enc == Pickle:
		v, wide, ok = d.pickleInteger()
	default:
		var size int
		v, wide, size, ok = scanMsgpackInt(d.buf[d.pos:])
		d.pos += size
	}
	if !ok {
		d.wrong("an integer")
		return 0, false
	}
	d.cur.n++
	return v, wide
}

// Int reads an integer that fits an int64.
func (d *Decoder) Int() int64 {
	v, wide := d.integer()
	if wide {
		d.fail(&ShapeError{Want: "a 64-bit signed integer", Got: fmt.Sprint(uint64(v)), Item: -1})
		return 0
	}
	return v
}

// Uint reads an integer from 0 to 2^64-1.
func (d *Decoder) Uint() uint64 {
	v, wide := d.integer()
	if v < 0 && !wide {
		d.fail(&ShapeError{Want: "an integer that is not negative", Got: fmt.Sprint(v), Item: -1})
		return 0
	}
	return uint64(v)
}

// Bool reads True or False, or an integer, which is true if it is not 0:
// peers write flags either way.
func (d *Decoder) Bool() bool {
	switch {
	case d.tree != nil:
		if v, ok := d.tree.peek().(bool); ok && d.err == nil {
			d.tree.cur.next++
			return v
		}
	case d.enc == Pickle:
		if c := d.peekOp(); c == opNewTrue || c == opNewFalse {
			d.pos++
			d.cur.n++
			return c == opNewTrue
		}
	case d.pos < len(d.buf):
		if c := d.buf[d.pos]; c == mpTrue || c == mpFalse {
			d.pos++
			d.cur.n++
			return c == mpTrue
		}
	}
	v, _ := d.integer()
	return v != 0
}

// IsNil tells whether the next item is None, and if so reads it.
func (d *Decoder) IsNil() bool {
	switch {
	case d.err != nil:
		return false
	case d.tree != nil:
		if !d.tree.more() || d.tree.peek() != nil {
			return false
		}
		d.tree.cur.next++
		return true
	case d.enc == Pickle:
		if d.peekOp() != opNone {
			return false
		}
	case d.pos >= len(d.buf) || d.buf[d.pos] != mpNil:
		return false
	}
	d.pos++
	d.cur.n++
	return true
}

// Nil reads None.
func (d *Decoder) Nil() {
	if !d.IsNil() {
		d.wrong("None")
	}
}

// IsInt tells whether the next item is one that Int takes, without reading it.
func (d *Decoder) IsInt() bool {
	switch {
	case d.err != nil:
		return false
	case d.tree != nil:
		_, wide, ok := d.treePeekInteger()
		return ok && !wide
	case d.enc == Pickle:
		switch d.peekOp() {
		case opBinInt1, opBinInt2, opBinInt:
			return true
		case opLong1:
			return d.pos+1 < len(d.buf) && d.buf[d.pos+1] <= 8
		}
		return false
	}
	_, wide, _, ok := scanMsgpackInt(d.buf[d.pos:])
	return ok && !wide
}

// IsStr tells whether the next item is one that Str takes, without reading it.
func (d *Decoder) IsStr() bool {
	switch {
	case d.err != nil:
		return false
	case d.tree != nil:
		_, ok := d.tree.peek().(string)
		return ok
	case d.enc == Pickle:
		return d.peekOp() == opBinUnicode
	case d.pos >= len(d.buf):
		return false
	}
	c := d.buf[d.pos]
	return c&0xe0 == mpFixStr || c == mpStr8 || c == mpStr16 || c == mpStr32
}

// Float reads a float or an integer.
func (d *Decoder) Float() float64 {
	var v float64
	var ok bool
	switch {
	case d.tree != nil:
		v, ok = d.treeFloat()
	case d.enc == Pickle:
		v, ok = d.pickleFloat()
	default:
		var size int
		v, size, ok = scanMsgpackFloat(d.buf[d.pos:])
		d.pos += size
	}
	if !ok {
		d.wrong("a number")
		return 0
	}
	d.cur.n++
	return v
}

// Str reads text and returns it as UTF-8 bytes, known to be valid. Byte
// strings are not text.
func (d *Decoder) Str() []byte {
	var s []byte
	var ok bool
	switch {
	case d.tree != nil:
		s, ok = d.treeStr()
	case d.enc == Pickle:
		s, ok = d.pickleStr()
	default:
		var size int
		s, size, ok = scanMsgpackStr(d.buf[d.pos:])
		d.pos += size
	}
	if !ok || !utf8.Valid(s) {
		d.wrong("text")
		return nil
	}
	d.cur.n++
	return s
}

// Bytes reads a byte string; text is not one. The result is not nil unless
// there was an error.
func (d *Decoder) Bytes() []byte {
	var s []byte
	var ok bool
	switch {
	case d.tree != nil:
		s, ok = d.treeBytes()
	case d.enc == Pickle:
		s, ok = d.pickleBytes()
	default:
		var size int
		s, size, ok = scanMsgpackBin(d.buf[d.pos:])
		d.pos += size
	}
	if !ok {
		d.wrong("bytes")
		return nil
	}
	d.cur.n++
	return s
}

// ID reads an oid or a tid: a byte string of exactly 8 bytes, big-endian, or in
// pickle a str of Python 2.
func (d *Decoder) ID() uint64 {
	b := d.buf[d.pos:]
	if len(b) >= 10 && b[0] == d.bin8 && b[1] == 8 {
		d.pos += 10
		d.cur.n++
		return binary.BigEndian.Uint64(b[2:])
	}
	return d.idSlow()
}

func (d *Decoder) idSlow() uint64 {
	if d.tree != nil && d.enc == Pickle {
		// Libraries that know no pickle of bytes write a str of Python 2,
		// which is text if it happens to be ASCII.
		if s, ok := d.tree.peek().(string); ok && len(s) == 8 {
			d.tree.cur.next++
			return binary.BigEndian.Uint64([]byte(s))
		}
	}
	b := d.Bytes()
	if len(b) != 8 {
		if d.err == nil {
			d.fail(&ShapeError{Want: "8 bytes", Got: fmt.Sprintf("%d bytes", len(b)), Item: -1})
		}
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// AppendIDs reads a list of oids or tids and appends them to dst.
func AppendIDs[T ~uint64](d *Decoder, dst []T) []T {
	d.List()
	for d.More() {
		dst = append(dst, T(d.ID()))
		// The rest of a batch, or of an array, item by item without asking.
		left := uint32(0)
		switch d.cur.kind {
		case levelArray:
			left = d.cur.cnt - d.cur.n
		case levelListBatch:
			left = math.MaxUint32
		}
		for b := d.buf[d.pos:]; left > 0 && len(b) >= 10 && b[0] == d.bin8 && b[1] == 8; left-- {
			dst = append(dst, T(binary.BigEndian.Uint64(b[2:])))
			b = b[10:]
			d.pos += 10
			d.cur.n++
		}
	}
	d.CloseList()
	return dst
}

// Raw reads the next item, whatever it is, and returns it as it was encoded,
// to be sent back with Encoder.Raw: the id of a message, which a peer may
// choose freely.
func (d *Decoder) Raw() []byte {
	switch {
	case d.err != nil:
		return nil
	case d.tree != nil:
		return d.treeRaw()
	case d.enc == Pickle:
		return d.pickleRaw()
	}
	size, ok := skipMsgpack(d.buf[d.pos:], d.lim.withDefaults().MaxDepth)
	if !ok {
		var err error
		if _, size, err = readMsgpack(d.buf, d.pos, d.lim); err != nil {
			d.wrong("a value")
			return nil
		}
	}
	end := d.pos + size
	raw := d.buf[d.pos:end:end]
	d.pos = end
	d.cur.n++
	return raw
}

// Value reads the next item, whatever it is, as a general value.
func (d *Decoder) Value() Value {
	switch {
	case d.err != nil:
		return nil
	case d.tree != nil:
		return d.treeValue()
	case d.enc == Pickle:
		v, _ := d.pickleItem()
		return v
	}
	v, size, err := readMsgpack(d.buf, d.pos, d.lim)
	if err != nil {
		d.fail(err)
		return nil
	}
	d.pos += size
	d.cur.n++
	return v
}

// intFloat converts what integer reads to a float.
func intFloat(v int64, wide bool) float64 {
	if wide {
		return float64(uint64(v))
	}
	return float64(v)
}
