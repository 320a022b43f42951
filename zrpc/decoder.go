package zrpc

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

// Decoder walks the values of one message, in either encoding. Its methods
// mirror those of Encoder: containers are opened and closed, values are asked
// for by type. After the first error every method returns a zero value, so a
// message is read straight through and Err is looked at once, at the end.
//
//	d := NewDecoder(enc, payload, Limits{})
//	d.Start()
//	d.Tuple(4)
//	id, oneway, name := d.Int(), d.Bool(), d.Str()
//	d.Tuple(2); oid, tid := d.ID(), d.ID(); d.EndTuple(2)
//	d.EndTuple(4)
//	d.Stop()
//
// There are two ways to read. At first the Decoder goes through the bytes and
// accepts the forms that peers commonly write, without allocating. Any other
// form is an error, which may only mean that the message was written in an
// unusual way (a pickle with a memo, say). So whoever gets an error calls
// Fallback: it reads the whole message into general values and places the
// Decoder back at its start, or at its retry point, where the same calls then
// walk those values. An error that comes after Fallback is final.
//
// Slices that its methods return alias the payload, unless the Decoder is in
// tree mode, where they may also be copies. One goroutine uses a Decoder at a
// time. It may be copied, and the copies used apart from each other, before
// Fallback was called.
type Decoder struct {
	buf  []byte // the payload; nil after an error and in tree mode
	pos  int
	cur  level // the container being read
	open uint8 // how many of stack are used
	enc  Encoding
	bin8 byte // what begins a byte string of up to 255 bytes

	hasRetry bool
	retry    uint32 // items of the outermost container before the retry point

	stack   [maxOpen]level // the containers around cur
	err     error
	tree    *tree // not nil in tree mode
	payload []byte
	lim     Limits
}

// maxOpen is how deep containers may nest that are read piece by piece. The
// deepest message of the protocol has three levels.
const maxOpen = 8

// level is one container that is open.
type level struct {
	n    uint32 // items read
	cnt  uint32 // items announced, levelArray only
	kind levelKind
}

// levelKind says how a container was opened, and so how it ends.
type levelKind uint8

const (
	levelTop        levelKind = iota // not a container: the message itself
	levelArray                       // msgpack, with a count
	levelPlain                       // pickle: a tuple of up to 3 items, without a mark
	levelMark                        // pickle: a tuple behind a mark
	levelEmpty                       // pickle: the empty tuple
	levelList                        // pickle: a list, nothing read of it yet
	levelListSingle                  // pickle: a list of one item
	levelListBatch                   // pickle: in a batch of list items
	levelListDone                    // pickle: a list without further items
)

// NewDecoder returns a Decoder for one payload. It allocates nothing.
func NewDecoder(enc Encoding, payload []byte, lim Limits) Decoder {
	d := Decoder{enc: enc, bin8: mpBin8, buf: payload, payload: payload, lim: lim}
	if enc == Pickle {
		d.bin8 = opShortBinBytes
	}
	return d
}

// Encoding returns the encoding being read.
func (d *Decoder) Encoding() Encoding { return d.enc }

// Err returns the first error: *ShapeError for a value of the wrong type or a
// wrong number of items, *SyntaxError for bytes that are no message at all.
// Before Fallback a ShapeError may also come of an unusual or a broken
// encoding.
func (d *Decoder) Err() error { return d.err }

// SetRetryPoint makes Fallback return to this place rather than to the start.
// It is called between two items of the outermost tuple: after the header of
// a message, so that its arguments can be read again alone. Elsewhere it has
// no effect.
func (d *Decoder) SetRetryPoint() {
	if d.open == 1 && d.err == nil {
		d.hasRetry, d.retry = true, d.cur.n
	}
}

// Fallback prepares another attempt after an error: it reads the payload into
// general values, clears the error and puts the Decoder back at the retry
// point, or at the start if there is none. It returns false if that was done
// before, or if the payload cannot be read; Err tells why.
func (d *Decoder) Fallback() bool {
	if d.tree != nil {
		return false
	}
	v, rest, err := parse(d.enc, d.payload, d.lim)
	if err == nil && len(rest) > 0 {
		err = &SyntaxError{d.enc, len(d.payload) - len(rest), "more bytes follow the message"}
	}
	d.buf, d.pos, d.open, d.cur = nil, 0, 0, level{}
	if d.err = err; err != nil {
		return false
	}
	d.tree = &tree{cur: treeLevel{items: []Value{v}}}
	if d.hasRetry {
		if items, ok := sequence(v); ok && int(d.retry) <= len(items) {
			d.tree.push(items)
			d.tree.cur.next = int(d.retry)
		} else {
			d.wrong("a message")
			return false
		}
	}
	return true
}

// fail records the first error and makes all that follows miss.
func (d *Decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.buf, d.pos = nil, 0
}

// wrong reports that the next item is not what was wanted.
func (d *Decoder) wrong(want string) {
	if d.err != nil {
		return
	}
	e := &ShapeError{Want: want, Item: -1}
	switch {
	case d.tree != nil:
		e.Item, e.Got = d.tree.position()
	case d.cur.kind == levelArray && d.cur.n >= d.cur.cnt:
		e.Item, e.Got = int(d.cur.n), "the end of the sequence"
	default:
		if d.open > 0 {
			e.Item = int(d.cur.n)
		}
		switch {
		case d.pos >= len(d.buf):
			e.Got = "the end of the payload"
		case d.enc == Pickle:
			e.Got = fmt.Sprintf("opcode %#02x", d.buf[d.pos])
		default:
			e.Got = msgpackTypeName(d.buf[d.pos])
		}
	}
	d.fail(e)
}

func (d *Decoder) wrongCount(want, got int) {
	d.fail(&ShapeError{Want: fmt.Sprintf("%d items", want), Got: fmt.Sprintf("%d items", got), Item: -1})
}

func (d *Decoder) push(kind levelKind, cnt uint32) {
	if int(d.open) == len(d.stack) {
		d.fail(&ShapeError{Want: fmt.Sprintf("at most %d nested containers", maxOpen), Got: "more", Item: -1})
		return
	}
	d.stack[d.open] = d.cur
	d.open++
	d.cur = level{kind: kind, cnt: cnt}
}

// pop leaves a container, which is then an item of the one around it.
func (d *Decoder) pop() {
	d.open--
	d.cur = d.stack[d.open]
	d.cur.n++
}

// closing tells whether there is a container to leave.
func (d *Decoder) closing() bool {
	if d.err != nil {
		return false
	}
	if d.open == 0 {
		d.fail(&ShapeError{Want: "an open container", Got: "none", Item: -1})
		return false
	}
	return true
}

// Start reads what begins a message.
func (d *Decoder) Start() {
	if d.enc == Pickle && d.tree == nil && d.err == nil {
		d.pickleStart()
	}
}

// Stop reads what ends a message, and makes sure that nothing follows.
func (d *Decoder) Stop() {
	switch {
	case d.err != nil:
	case d.tree != nil:
		if !d.tree.atEnd() {
			d.wrong("the end of the message")
		}
	case d.open > 0:
		d.wrong("the end of the message")
	default:
		if d.enc == Pickle && !d.expectOp(opStop, "the end of the message") {
			return
		}
		if d.pos != len(d.buf) {
			d.wrong("the end of the payload")
		}
	}
}

// Tuple opens a tuple, or a list, of exactly n items.
func (d *Decoder) Tuple(n int) {
	switch {
	case d.err != nil:
	case d.tree != nil:
		d.treeOpen(n)
	case d.enc == Pickle:
		d.pickleTuple(n)
	default:
		d.msgpackArray(n)
	}
}

// EndTuple closes a tuple of n items, all of which were read.
func (d *Decoder) EndTuple(n int) {
	switch {
	case d.err != nil:
	case d.tree != nil:
		d.treeClose()
	case !d.closing():
	case d.cur.n != uint32(n):
		d.wrongCount(n, int(d.cur.n))
	case d.enc == Pickle:
		d.pickleEndTuple()
	default:
		d.pop()
	}
}

// OpenTuple opens a tuple, or a list, whose number of items is not known:
// arguments of which the last are optional. The items that must be there are
// read without further ado, the others if More says so.
func (d *Decoder) OpenTuple() {
	switch {
	case d.err != nil:
	case d.tree != nil:
		d.treeOpen(-1)
	case d.enc == Pickle:
		d.pickleOpenTuple()
	default:
		d.msgpackArray(-1)
	}
}

// CloseTuple closes what OpenTuple opened, all of whose items were read.
func (d *Decoder) CloseTuple() {
	switch {
	case d.err != nil:
	case d.tree != nil:
		d.treeClose()
	case !d.closing():
	case d.enc == Pickle:
		d.pickleEndTuple()
	case d.cur.n != d.cur.cnt:
		d.wrongCount(int(d.cur.n), int(d.cur.cnt))
	default:
		d.pop()
	}
}

// List opens a list, or a tuple, of any length. Its items are read as long as
// More says so.
func (d *Decoder) List() {
	switch {
	case d.err != nil:
	case d.tree != nil:
		d.treeOpen(-1)
	case d.enc == Pickle:
		if d.expectOp(opEmptyList, "a list") {
			d.push(levelList, 0)
		}
	default:
		d.msgpackArray(-1)
	}
}

// More tells whether the tuple or list being read has another item. It is
// false after an error.
func (d *Decoder) More() bool {
	switch {
	case d.err != nil:
		return false
	case d.tree != nil:
		return d.tree.more()
	case d.enc == Pickle:
		return d.pickleMore()
	}
	return d.cur.n < d.cur.cnt
}

// CloseList closes what List opened, all of whose items were read.
func (d *Decoder) CloseList() {
	switch {
	case d.err != nil:
	case d.tree != nil:
		d.treeClose()
	case !d.closing():
	case d.More():
		d.wrong("the end of a list")
	case d.err != nil: // More may fail
	case d.enc == Pickle && d.cur.kind != levelListDone:
		d.wrong("the end of a list")
	default:
		d.pop()
	}
}

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

// IsInt tells whether the next item is an integer, without reading it.
func (d *Decoder) IsInt() bool {
	switch {
	case d.err != nil:
		return false
	case d.tree != nil:
		_, _, ok := d.treePeekInteger()
		return ok
	case d.enc == Pickle:
		c := d.peekOp()
		return c == opBinInt1 || c == opBinInt2 || c == opBinInt || c == opLong1
	}
	_, _, _, ok := scanMsgpackInt(d.buf[d.pos:])
	return ok
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

// ID reads an oid or a tid: a byte string of exactly 8 bytes, big-endian.
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
		d.wrong("a value")
		return nil
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

// floatKey makes NaN, which differs from itself, one key like any other.
func floatKey(f float64) any {
	if math.IsNaN(f) {
		return nanKey{}
	}
	return f
}

type nanKey struct{}
