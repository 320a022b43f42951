package zrpc

import (
	"encoding/binary"
	"math"
	"math/big"
	"slices"
	"strings"
)

// ParsePickle reads the pickle at the start of b, of any protocol that lim
// allows, and returns what follows it. No class is looked up and nothing is
// called: they become Global and *Object values. The error is a *SyntaxError.
func ParsePickle(b []byte, lim Limits) (v Value, rest []byte, err error) {
	m := pickleMachine{buf: b, lim: lim.withDefaults()}
	m.run()
	v = m.result()
	if m.err != nil {
		return nil, b, m.err
	}
	return v, b[m.pos:], nil
}

// AppendPickle appends v to dst as a pickle of protocol 3 without a memo. It
// fails with *EncodeError if v holds what is not a Value.
func AppendPickle(dst []byte, v Value) ([]byte, error) {
	e := NewEncoder(Pickle, dst)
	e.Start()
	e.Value(v)
	e.Stop()
	if e.err != nil {
		return dst, e.err
	}
	return e.Buf, nil
}

// maxAhead is how many times the length of the payload pickleItem may read in
// vain, beyond the items asked for, over all of a message.
const maxAhead = 4

// pickleItem reads the next item and returns it, and its encoded bytes.
//
// In a pickle the end of an item shows only when something beyond it is used:
// after two byte strings comes an opcode that makes them a pair, or the next
// item. So the machine runs on until an opcode reaches for what was there
// before; the first value on its stack is then the item.
func (d *Decoder) pickleItem() (v Value, raw []byte) {
	if d.peekOp() == 0 {
		d.wrong("a value")
		return nil, nil
	}
	m := pickleMachine{buf: d.buf, pos: d.pos, part: true, keyed: d.keyed, lim: d.lim.withDefaults()}
	m.run()
	d.keyed = m.keyed
	if m.err == nil && len(m.stack) == 0 {
		d.wrong("a value")
		return nil, nil
	}
	end := m.pos
	if len(m.stack) > 1 {
		end = m.second
		m.stack = m.stack[:1]
	}
	v = m.result()
	if m.err != nil {
		d.fail(m.err)
		return nil, nil
	}
	// Many items of one list would take quadratic time; Fallback takes over.
	if d.ahead += m.pos - end; d.ahead > maxAhead*len(d.buf) {
		d.wrong("fewer values to read one by one")
		return nil, nil
	}
	raw = d.buf[d.pos:end:end]
	d.pos = end
	d.cur.n++
	return v, raw
}

// pickleRaw is pickleItem, quick for the ids that peers use: the pair of ids
// that a loadBefore is named by.
func (d *Decoder) pickleRaw() []byte {
	const pair = 2*(2+8) + 1
	if b := d.buf[d.pos:]; len(b) >= pair && b[0] == opShortBinBytes && b[1] == 8 &&
		b[10] == opShortBinBytes && b[11] == 8 && b[20] == opTuple2 {
		d.pos += pair
		d.cur.n++
		return b[:pair:pair]
	}
	_, raw := d.pickleItem()
	return raw
}

// result takes the one value that the machine left, checks it and completes
// it.
func (m *pickleMachine) result() Value {
	if m.err == nil && (len(m.stack) != 1 || len(m.marks) > 0) {
		m.fail("it leaves %d values and %d marks, not one value", len(m.stack), len(m.marks))
	}
	if m.err != nil {
		return nil
	}
	c := completion{lim: m.lim, values: m.lim.MaxValues, bytes: int64(len(m.buf)) + int64(m.lim.MaxShared)}
	v := c.complete(m.stack[0], 0)
	if c.problem != "" {
		m.fail("%s", c.problem)
		return nil
	}
	return v
}

// completion walks a value that was read. It makes Lists of the growing lists
// of the machine, in place, and counts what the value would come to if every
// shared part were written out, so that nobody who walks it later is
// surprised. A value that contains itself is too deep.
type completion struct {
	lim     Limits
	values  int
	bytes   int64
	problem string
}

func (c *completion) complete(v Value, depth int) Value {
	if c.values--; c.values < 0 {
		c.problem = "more values than Limits.MaxValues, counting shared ones each time"
	}
	if c.problem != "" {
		return nil
	}
	switch v := v.(type) {
	case string:
		c.count(len(v))
	case []byte:
		c.count(len(v))
	case *big.Int:
		c.count(len(v.Bits()) * 8)
	case Tuple:
		c.all(v, depth)
	case List:
		c.all(v, depth)
	case *list:
		c.all(v.items, depth)
		return List(v.items)
	case *Dict:
		c.pairs(v.Pairs, depth)
	case Global:
		c.count(len(v.Module) + len(v.Name))
	case *Object:
		if c.enter(depth) {
			v.Class = c.complete(v.Class, depth+1)
			v.Args = c.complete(v.Args, depth+1)
			v.State = c.complete(v.State, depth+1)
			c.all(v.Items, depth)
			c.pairs(v.Pairs, depth)
		}
	case PersID:
		if c.enter(depth) {
			return PersID{c.complete(v.ID, depth+1)}
		}
	}
	return v
}

func (c *completion) count(n int) {
	if c.bytes -= int64(n); c.bytes < 0 {
		c.problem = "shared text and bytes come to more than Limits.MaxShared"
	}
}

func (c *completion) enter(depth int) bool {
	if depth >= c.lim.MaxDepth {
		c.problem = "containers nest deeper than Limits.MaxDepth, or contain themselves"
	}
	return c.problem == ""
}

func (c *completion) all(items []Value, depth int) {
	if !c.enter(depth) {
		return
	}
	for i, item := range items {
		items[i] = c.complete(item, depth+1)
		if c.problem != "" {
			return
		}
	}
}

func (c *completion) pairs(pairs []Pair, depth int) {
	if !c.enter(depth) {
		return
	}
	for i, p := range pairs {
		pairs[i] = Pair{c.complete(p.Key, depth+1), c.complete(p.Val, depth+1)}
		if c.problem != "" {
			return
		}
	}
}

// pickleOnly writes the values that only pickle has.
func (e *Encoder) pickleOnly(v Value, depth int) {
	switch v := v.(type) {
	case Global:
		if v.Module == "" || v.Name == "" || strings.Contains(v.Module, "\n") || strings.Contains(v.Name, "\n") {
			e.fail("a class of the name %q", v.String())
			return
		}
		e.Buf = append(e.Buf, opGlobal)
		e.Buf = append(append(e.Buf, v.Module...), '\n')
		e.Buf = append(append(e.Buf, v.Name...), '\n')
	case *Object:
		e.object(v, depth)
	case PersID:
		e.value(v.ID, depth+1)
		e.Buf = append(e.Buf, opBinPersID)
	default:
		e.fail("%s is not a Value", goTypeName(v))
	}
}

func (e *Encoder) object(v *Object, depth int) {
	e.value(v.Class, depth+1)
	e.value(v.Args, depth+1)
	if v.New {
		e.Buf = append(e.Buf, opNewObj)
	} else {
		e.Buf = append(e.Buf, opReduce)
	}
	if n := len(v.Items); n > 0 {
		if n > 1 {
			e.Buf = append(e.Buf, opMark)
		}
		for i, item := range v.Items {
			e.Item(i)
			e.value(item, depth+1)
		}
		e.EndList(n)
	}
	if n := len(v.Pairs); n > 0 {
		if n > 1 {
			e.Buf = append(e.Buf, opMark)
		}
		e.pairs(v.Pairs, depth)
		e.EndDict(n)
	}
	if v.State != nil {
		e.value(v.State, depth+1)
		e.Buf = append(e.Buf, opBuild)
	}
}

// appendPickleBig appends an integer beyond 64 bits: shortest two's
// complement, little-endian.
func appendPickleBig(dst []byte, v *big.Int) []byte {
	// A negative v has as many bits as -v-1, all of them flipped.
	abs := v
	if v.Sign() < 0 {
		abs = new(big.Int).Not(v)
	}
	b := make([]byte, abs.BitLen()/8+1) // one bit more, for the sign
	abs.FillBytes(b)
	slices.Reverse(b)
	if v.Sign() < 0 {
		for i := range b {
			b[i] = ^b[i]
		}
	}
	if len(b) <= math.MaxUint8 {
		dst = append(dst, opLong1, byte(len(b)))
	} else {
		dst = binary.LittleEndian.AppendUint32(append(dst, opLong4), uint32(len(b)))
	}
	return append(dst, b...)
}

// longValue reads a two's complement, little-endian integer of any size.
func longValue(b []byte) Value {
	if v, wide, ok := smallLong(b); ok {
		if wide {
			return uint64(v)
		}
		return v
	}
	be := slices.Clone(b)
	slices.Reverse(be)
	v := new(big.Int).SetBytes(be)
	if be[0] >= 0x80 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(be))))
	}
	return v
}
