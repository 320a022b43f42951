package zrpc

import "fmt"

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
	ahead   int            // bytes that pickleItem read beyond its items
	keyed   int            // pickleMachine.keyed, of the items so far
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
// no effect. It fails if what was read turns out to be parts of one item, so
// it is best called before Err is asked.
func (d *Decoder) SetRetryPoint() {
	if d.open != 1 || d.err != nil {
		return
	}
	if d.enc == Pickle && d.cur.kind == levelMark {
		// An id (1, True, "name") reads like the first three items, until
		// the opcode that makes a tuple of them.
		if c := d.peekOp(); c != opTuple && closesItem(c) {
			d.wrong("an item")
			return
		}
	}
	d.hasRetry, d.retry = true, d.cur.n
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
		if items, ok := Sequence(v); ok && int(d.retry) <= len(items) {
			d.tree.push(items)
			d.tree.cur.next = int(d.retry)
		} else {
			d.wrong("a message")
			return false
		}
	}
	return true
}

// InTree tells whether Fallback was called: a copy would not be apart then.
func (d *Decoder) InTree() bool { return d.tree != nil }

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

// More tells whether the tuple or list that OpenTuple or List opened has another
// item. It is false after an error. Of what Tuple opened the number of items is
// known: More must not be asked.
func (d *Decoder) More() bool {
	switch {
	case d.err != nil:
		return false
	case d.tree != nil:
		return len(d.tree.stack) > 0 && d.tree.more()
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
