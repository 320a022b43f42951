package zrpc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// pickleMachine reads a pickle into general values: the stack machine that
// the format is written for, without the power to name or call anything. One
// goroutine uses it, once.
type pickleMachine struct {
	buf   []byte
	pos   int
	stack []Value
	marks []int // for each open mark, the height of the stack below it
	memo  map[uint64]Value
	spent int // values pushed and memo entries made
	keyed int // bytes of keys and names that were looked at as a whole
	lim   Limits
	err   error
	done  bool

	// part is set to read a single item from the middle of a pickle: the
	// machine is done, with pos at the opcode in question, where one reaches
	// for values from before the item. second is where the second value on
	// the stack begins.
	part   bool
	second int
}

// list is a List while it may still grow through other references to it.
type list struct{ items []Value }

func (m *pickleMachine) fail(format string, args ...any) {
	if m.err == nil {
		m.err = &SyntaxError{Pickle, m.pos, fmt.Sprintf(format, args...)}
	}
}

// run executes opcodes until the end of the pickle or the item.
func (m *pickleMachine) run() {
	for m.err == nil && !m.done {
		start, height := m.pos, len(m.stack)+len(m.marks)
		m.step(m.byte())
		switch {
		case m.err != nil:
		case m.done:
			if m.part {
				m.pos = start
			}
		case height == 1 && len(m.stack)+len(m.marks) == 2:
			m.second = start
		}
	}
}

// byte consumes one byte; at the end it fails.
func (m *pickleMachine) byte() byte {
	if b := m.take(1); b != nil {
		return b[0]
	}
	return 0
}

// take consumes n bytes. It returns nil, and fails, if there are fewer.
func (m *pickleMachine) take(n uint64) []byte {
	if n > uint64(len(m.buf)-m.pos) {
		m.fail("it ends in the middle: %d bytes wanted, %d left", n, len(m.buf)-m.pos)
		return nil
	}
	end := m.pos + int(n)
	b := m.buf[m.pos:end:end]
	m.pos = end
	return b
}

// uint consumes a little-endian number of n bytes, at most 8.
func (m *pickleMachine) uint(n uint64) uint64 {
	var v uint64
	for i, c := range m.take(n) {
		v |= uint64(c) << (8 * i)
	}
	return v
}

// line consumes bytes up to and with a newline, which is not returned.
func (m *pickleMachine) line() string {
	n := bytes.IndexByte(m.buf[m.pos:], '\n')
	if n < 0 {
		m.fail("it ends in the middle of a line")
		return ""
	}
	return string(m.take(uint64(n) + 1)[:n])
}

// asciiLine is a line that must be ASCII, as Python asks of persistent ids.
func (m *pickleMachine) asciiLine() string {
	s := m.line()
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			m.fail("a persistent id that is not ASCII")
			return ""
		}
	}
	return s
}

// spend counts towards Limits.MaxValues.
func (m *pickleMachine) spend() bool {
	if m.spent++; m.spent > m.lim.MaxValues {
		m.fail("more than %d values (Limits.MaxValues)", m.lim.MaxValues)
	}
	return m.err == nil
}

// look counts text and bytes that are looked at as a whole each time they are used.
// The memo may bring the same ones again and again, for two bytes each, and the
// value that is read need not show it.
func (m *pickleMachine) look(v Value) bool {
	switch v := v.(type) {
	case string:
		m.keyed += len(v)
	case []byte:
		m.keyed += len(v)
	}
	if m.keyed-len(m.buf) > m.lim.MaxShared {
		m.fail("shared text and bytes as keys or names come to more than Limits.MaxShared")
	}
	return m.err == nil
}

func (m *pickleMachine) push(v Value) {
	if m.spend() {
		m.stack = append(m.stack, v)
	}
}

// floor is the height of the stack below which no opcode may reach, because
// of a mark.
func (m *pickleMachine) floor() int {
	if n := len(m.marks); n > 0 {
		return m.marks[n-1]
	}
	return 0
}

// need tells whether there are n values above the last mark.
func (m *pickleMachine) need(n int) bool {
	if m.err != nil || m.done {
		return false
	}
	if len(m.stack)-m.floor() >= n {
		return true
	}
	if m.part && len(m.marks) == 0 {
		m.done = true
	} else {
		m.fail("an opcode needs %d values that are not there", n)
	}
	return false
}

// pop takes the top n values off the stack; they are valid until the next
// push. It returns nil if they are not there.
func (m *pickleMachine) pop(n int) []Value {
	if !m.need(n) {
		return nil
	}
	cut := len(m.stack) - n
	top := m.stack[cut:]
	m.stack = m.stack[:cut]
	return top
}

// popMark takes the values above the last mark, and the mark.
func (m *pickleMachine) popMark() (items []Value, ok bool) {
	switch {
	case m.err != nil:
		return nil, false
	case len(m.marks) > 0:
		items = m.stack[m.floor():]
		m.stack = m.stack[:m.floor()]
		m.marks = m.marks[:len(m.marks)-1]
		return items, true
	case m.part:
		m.done = true
	default:
		m.fail("an opcode needs a mark that is not there")
	}
	return nil, false
}

// step executes one opcode.
func (m *pickleMachine) step(op byte) {
	if m.err != nil {
		return
	}
	switch op {
	case opProto:
		m.proto(int(m.byte()))
	case opStop:
		m.done = true
	case opMark:
		if m.spend() {
			m.marks = append(m.marks, len(m.stack))
		}
	case opPop:
		// A mark that has nothing above it is popped like a value.
		if n := len(m.marks); n > 0 && m.floor() == len(m.stack) {
			m.marks = m.marks[:n-1]
		} else {
			m.pop(1)
		}
	case opPopMark:
		m.popMark()
	case opDup:
		if m.need(1) {
			m.push(m.stack[len(m.stack)-1])
		}

	case opNone:
		m.push(nil)
	case opNewTrue:
		m.push(true)
	case opNewFalse:
		m.push(false)
	case opBinInt1:
		m.push(int64(m.byte()))
	case opBinInt2:
		m.push(int64(m.uint(2)))
	case opBinInt:
		m.push(int64(int32(m.uint(4))))
	case opLong1:
		m.long(uint64(m.byte()))
	case opLong4:
		m.long(m.uint(4))
	case opInt, opLong:
		m.push(m.decimal(op))
	case opFloat:
		m.push(m.float())
	case opBinFloat:
		if b := m.take(8); b != nil {
			m.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
		}

	case opBinUnicode:
		m.text(m.uint(4))
	case opUnicode:
		m.push(m.unicodeLine())
	case opShortBinString:
		m.str2(m.take(uint64(m.byte())))
	case opBinString:
		m.str2(m.take(m.uint(4)))
	case opString:
		m.str2(m.stringLine())
	case opShortBinBytes:
		m.bytes(uint64(m.byte()))
	case opBinBytes:
		m.bytes(m.uint(4))

	case opEmptyTuple:
		m.push(Tuple{})
	case opTuple1, opTuple2, opTuple3:
		if items := m.pop(int(op-opTuple1) + 1); items != nil {
			m.push(append(Tuple{}, items...))
		}
	case opTuple:
		if items, ok := m.popMark(); ok {
			m.push(append(Tuple{}, items...))
		}
	case opEmptyList:
		m.push(&list{items: []Value{}})
	case opList:
		if items, ok := m.popMark(); ok {
			m.push(&list{items: append([]Value{}, items...)})
		}
	case opAppend:
		if m.need(2) {
			m.extend(m.pop(1))
		}
	case opAppends:
		if items, ok := m.popMark(); ok {
			m.extend(items)
		}
	case opEmptyDict:
		m.push(&Dict{})
	case opDict:
		if items, ok := m.popMark(); ok {
			items = append([]Value{}, items...) // push writes over them
			m.push(&Dict{})
			m.update(items)
		}
	case opSetItem:
		if m.need(3) {
			m.update(m.pop(2))
		}
	case opSetItems:
		if items, ok := m.popMark(); ok {
			m.update(items)
		}

	case opPut, opBinPut, opLongBinPut, opMemoize:
		m.put(op)
	case opGet, opBinGet, opLongBinGet:
		m.get(op)

	case opGlobal:
		m.push(m.global(m.line(), m.line()))
	case opReduce, opNewObj:
		if v := m.pop(2); v != nil {
			m.construct(v[0], v[1], op == opNewObj)
		}
	case opInst:
		class := m.global(m.line(), m.line())
		if items, ok := m.popMark(); ok {
			m.construct(class, append(Tuple{}, items...), false)
		}
	case opObj:
		if items, ok := m.popMark(); !ok {
		} else if len(items) == 0 {
			m.fail("an object without a class")
		} else {
			m.construct(items[0], append(Tuple{}, items[1:]...), false)
		}
	case opBuild:
		if m.need(2) {
			m.build(m.pop(1)[0])
		}
	case opPersID:
		m.push(PersID{m.asciiLine()})
	case opBinPersID:
		if v := m.pop(1); v != nil {
			m.push(PersID{v[0]})
		}
	case opExt1, opExt2, opExt4:
		m.fail("classes by number (copyreg.add_extension) are not supported")

	default:
		m.step4(op)
	}
}

// step4 executes the opcodes of protocols 4 and 5.
func (m *pickleMachine) step4(op byte) {
	known := op >= opShortBinUnicode && op <= opByteArray8
	switch {
	case !known:
		m.fail("unknown opcode %#02x", op)
		return
	case !m.lim.AllowProto5:
		m.fail("opcode %#02x belongs to protocol 4 or 5; at most 3 is allowed here", op)
		return
	}
	switch op {
	case opShortBinUnicode:
		m.text(uint64(m.byte()))
	case opBinUnicode8:
		m.text(m.uint(8))
	case opBinBytes8:
		m.bytes(m.uint(8))
	case opByteArray8:
		if b := m.take(m.uint(8)); m.err == nil {
			m.construct(Global{"builtins", "bytearray"}, Tuple{b}, false)
		}
	case opFrame:
		if n := m.uint(8); n > uint64(len(m.buf)-m.pos) {
			m.fail("a frame of %d bytes, %d left", n, len(m.buf)-m.pos)
		}
	case opEmptySet:
		// As protocol 3 writes it: set([items]).
		m.construct(Global{"builtins", "set"}, Tuple{&list{items: []Value{}}}, false)
	case opAddItems:
		if items, ok := m.popMark(); ok && m.need(1) {
			m.addToSet(items)
		}
	case opFrozenSet:
		if items, ok := m.popMark(); ok {
			m.construct(Global{"builtins", "frozenset"}, Tuple{&list{items: append([]Value{}, items...)}}, false)
		}
	case opStackGlobal:
		if v := m.pop(2); v != nil {
			module, ok1 := v[0].(string)
			name, ok2 := v[1].(string)
			if !ok1 || !ok2 {
				m.fail("a class whose name is not text")
			}
			if !m.look(module) || !m.look(name) {
				return
			}
			m.push(m.global(module, name))
		}
	case opNewObjEx:
		if v := m.pop(3); v != nil {
			m.construct(Global{"copyreg", "__newobj_ex__"}, append(Tuple{}, v...), false)
		}
	}
}

func (m *pickleMachine) proto(n int) {
	limit := 3
	if m.lim.AllowProto5 {
		limit = 5
	}
	if n > limit {
		m.fail("pickle protocol %d; at most %d is allowed here", n, limit)
	}
}

// extend appends items to the list, or the list-like object, on the stack.
func (m *pickleMachine) extend(items []Value) {
	if !m.need(1) {
		return
	}
	switch target := m.stack[len(m.stack)-1].(type) {
	case *list:
		target.items = append(target.items, items...)
	case *Object:
		target.Items = append(target.Items, items...)
	default:
		m.fail("items for %s", typeName(target))
	}
}

// update puts keys and values, in turn, into the dict, or the dict-like
// object, on the stack.
func (m *pickleMachine) update(items []Value) {
	if !m.need(1) {
		return
	}
	if len(items)%2 != 0 {
		m.fail("a key without a value")
		return
	}
	target := m.stack[len(m.stack)-1]
	dict, isDict := target.(*Dict)
	object, isObject := target.(*Object)
	for ; len(items) > 0; items = items[2:] {
		key, val := items[0], items[1]
		switch {
		case !hashable(key):
			m.fail("%s as the key of a dict", typeName(key))
			return
		case isDict:
			if !m.look(key) {
				return
			}
			dict.Set(key, val)
		case isObject:
			object.Pairs = append(object.Pairs, Pair{key, val})
		default:
			m.fail("keys and values for %s", typeName(target))
			return
		}
	}
}

func (m *pickleMachine) addToSet(items []Value) {
	if o, ok := m.stack[len(m.stack)-1].(*Object); ok && o.Class == (Global{"builtins", "set"}) {
		if args, ok := o.Args.(Tuple); ok && len(args) == 1 {
			if l, ok := args[0].(*list); ok {
				l.items = append(l.items, items...)
				return
			}
		}
	}
	m.fail("items for a set that is not there")
}

// construct pushes the description of an object.
func (m *pickleMachine) construct(class, args Value, isNew bool) {
	if _, ok := args.(Tuple); !ok {
		m.fail("an object made of %s, not a tuple", typeName(args))
		return
	}
	switch class.(type) {
	case Global, *Object, PersID:
	default:
		m.fail("%s in the place of a class", typeName(class))
		return
	}
	m.push(&Object{Class: class, Args: args, New: isNew})
}

func (m *pickleMachine) build(state Value) {
	o, ok := m.stack[len(m.stack)-1].(*Object)
	switch {
	case !ok:
		m.fail("a state for %s", typeName(m.stack[len(m.stack)-1]))
	case o.State != nil:
		m.fail("a second state for an object")
	default:
		o.State = state
	}
}

func (m *pickleMachine) global(module, name string) Value {
	if m.err == nil && (module == "" || name == "" || !utf8.ValidString(module) || !utf8.ValidString(name)) {
		m.fail("a class of the name %.100q", module+"."+name)
	}
	return Global{module, name}
}

func (m *pickleMachine) put(op byte) {
	var i uint64
	switch op {
	case opPut:
		i = m.memoLine()
	case opBinPut:
		i = m.uint(1)
	case opLongBinPut:
		i = m.uint(4)
	case opMemoize:
		if m.part {
			m.fail("a memo that began earlier") // its length is not known here
		}
		i = uint64(len(m.memo))
	}
	if !m.need(1) || !m.spend() {
		return
	}
	if m.memo == nil {
		m.memo = make(map[uint64]Value)
	}
	m.memo[i] = m.stack[len(m.stack)-1]
}

func (m *pickleMachine) get(op byte) {
	var i uint64
	switch op {
	case opGet:
		i = m.memoLine()
	case opBinGet:
		i = m.uint(1)
	case opLongBinGet:
		i = m.uint(4)
	}
	v, ok := m.memo[i]
	if !ok {
		m.fail("nothing in the memo at %d", i)
	}
	m.push(v)
}

func (m *pickleMachine) memoLine() uint64 {
	s := m.line()
	i, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		m.fail("a memo index %.20q", s)
	}
	return i
}
