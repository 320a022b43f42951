package zrpc

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Value is any value that a pickle or a msgpack message can hold, for the few
// places of the protocol whose shape is open: the dicts of get_info and of
// history, transaction extensions, the state of an exception. It is one of:
//
//	nil, bool, float64, string, []byte
//	int64       or, only for what does not fit:
//	uint64      above MaxInt64
//	*big.Int    beyond 64 bits (pickle only)
//	Tuple       also a list, if it came in msgpack
//	List, *Dict (pickle makes a difference between tuples and lists)
//	Global, *Object, PersID (pickle only)
//
// Nothing of a Value that was read is ever looked up, called or executed: a
// class is a name and nothing more. A Value that was read has no cycles, but
// parts of it may be shared, so it must be treated as read-only. Its byte
// strings alias the bytes it was read from.
type Value any

// Tuple is a Python tuple.
type Tuple []Value

// List is a Python list.
type List []Value

// Sequence returns the items of a tuple or list, which msgpack cannot tell apart.
func Sequence(v Value) ([]Value, bool) {
	switch v := v.(type) {
	case Tuple:
		return v, true
	case List:
		return v, true
	}
	return nil, false
}

// Pair is one entry of a Dict.
type Pair struct{ Key, Val Value }

// Dict is a Python dict: pairs in the order of their insertion. Concurrent
// readers are fine as long as nobody calls Set.
type Dict struct {
	// Pairs may be read and ranged over; use Set to change it.
	Pairs []Pair
	index map[any]int // from comparable keys to Pairs, when it is long
}

// NewDict returns a Dict of the given keys and values, in turn.
func NewDict(keysAndValues ...Value) *Dict {
	d := &Dict{}
	for i := 0; i+1 < len(keysAndValues); i += 2 {
		d.Set(keysAndValues[i], keysAndValues[i+1])
	}
	return d
}

// Len returns the number of pairs.
func (d *Dict) Len() int { return len(d.Pairs) }

// Get returns the value of a text key.
func (d *Dict) Get(key string) (Value, bool) {
	if d.index != nil {
		i, ok := d.index[key]
		if !ok {
			return nil, false
		}
		return d.Pairs[i].Val, true
	}
	for _, p := range d.Pairs {
		if k, ok := p.Key.(string); ok && k == key {
			return p.Val, true
		}
	}
	return nil, false
}

// dictScan is how many pairs are searched one by one rather than by an index.
const dictScan = 16

// Set gives key a value: it replaces that of an equal key, or adds a pair.
// Keys that are tuples, classes or objects are always added.
func (d *Dict) Set(key, val Value) {
	if d.index == nil && len(d.Pairs) >= dictScan {
		d.index = make(map[any]int, 2*len(d.Pairs))
		for i, p := range d.Pairs {
			if k, ok := comparableKey(p.Key); ok {
				d.index[k] = i
			}
		}
	}
	if d.index == nil {
		for i, p := range d.Pairs {
			if sameKey(p.Key, key) {
				d.Pairs[i].Val = val
				return
			}
		}
	} else if k, ok := comparableKey(key); ok {
		if i, ok := d.index[k]; ok {
			d.Pairs[i].Val = val
			return
		}
		d.index[k] = len(d.Pairs)
	}
	d.Pairs = append(d.Pairs, Pair{key, val})
}

// bytesKey keeps byte strings apart from equal text among dict keys.
type bytesKey string

// comparableKey returns what stands for a key in a Go map.
func comparableKey(v Value) (any, bool) {
	switch v := v.(type) {
	case nil, bool, int64, uint64, string:
		return v, true
	case []byte:
		return bytesKey(v), true
	case float64:
		return floatKey(v), true
	}
	return nil, false
}

// sameKey tells whether what comparableKey returns for both is equal. It copies
// nothing: the keys of a hostile dict are long.
func sameKey(a, b Value) bool {
	switch a := a.(type) {
	case nil, bool, int64, uint64, string:
		return a == b
	case []byte:
		b, ok := b.([]byte)
		return ok && bytes.Equal(a, b)
	case float64:
		b, ok := b.(float64)
		return ok && floatKey(a) == floatKey(b)
	}
	return false
}

// floatKey makes NaN, which differs from itself, one key like any other.
func floatKey(f float64) any {
	if math.IsNaN(f) {
		return nanKey{}
	}
	return f
}

type nanKey struct{}

// hashable tells whether Python would take v as the key of a dict.
func hashable(v Value) bool {
	switch v.(type) {
	case List, *list, *Dict:
		return false
	}
	return true
}

// Global is the name of a Python class or function.
type Global struct{ Module, Name string }

// String returns "module.Name".
func (g Global) String() string { return g.Module + "." + g.Name }

// Object describes how a pickle builds an object: what it calls, and what it
// then gives it. It is a description; nothing is called.
type Object struct {
	Class Value // usually a Global
	Args  Value // usually a Tuple
	// New is true if Class.__new__ is called with Args rather than Class.
	New   bool
	Items []Value // appended to the object, as to a list
	Pairs []Pair  // set in the object, as in a dict
	State Value   // given to __setstate__ or put into __dict__; nil if none
}

// PersID is a reference to an object outside of the pickle: in a data record
// of ZODB, to another record.
type PersID struct{ ID Value }

// Plain returns a copy of v that can be sent in any encoding to any peer:
// classes, objects and persistent ids become readable text such as
// "<module.Name>", integers beyond 64 bits become decimal text, text becomes
// valid UTF-8, and the keys of dicts become text unless they are text or bytes
// already.
func Plain(v Value) Value { return plain(v, 0) }

func plain(v Value, depth int) Value {
	if depth > maxEncodeDepth {
		return "<...>"
	}
	switch v := v.(type) {
	case nil, bool, int64, uint64, float64, []byte:
		return v
	case string:
		return strings.ToValidUTF8(v, "\ufffd")
	case *big.Int:
		return v.String()
	case Tuple:
		return Tuple(plainAll(v, depth))
	case List:
		return List(plainAll(v, depth))
	case *Dict:
		out := &Dict{Pairs: make([]Pair, 0, len(v.Pairs))}
		for _, p := range v.Pairs {
			out.Set(plainKey(p.Key, depth+1), plain(p.Val, depth+1))
		}
		return out
	case Global, *Object, PersID:
		return label(v, 0)
	}
	return fmt.Sprintf("<%T>", v)
}

func plainAll(items []Value, depth int) []Value {
	out := make([]Value, len(items))
	for i, item := range items {
		out[i] = plain(item, depth+1)
	}
	return out
}

func plainKey(v Value, depth int) Value {
	switch v := plain(v, depth).(type) {
	case string, []byte:
		return v
	default:
		return label(v, 0)
	}
}

// label describes a value in a short line of text.
func label(v Value, depth int) string {
	const maxParts = 8
	if depth > 4 {
		return "..."
	}
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case int64:
		return strconv.FormatInt(v, 10)
	case uint64:
		return strconv.FormatUint(v, 10)
	case *big.Int:
		return v.String()
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case string:
		return strings.ToValidUTF8(v, "\ufffd")
	case []byte:
		if len(v) > 32 {
			return fmt.Sprintf("0x%x...", v[:32])
		}
		return fmt.Sprintf("0x%x", v)
	case Tuple, List:
		items, _ := Sequence(v)
		parts := make([]string, 0, min(len(items), maxParts))
		for i, item := range items {
			if i == maxParts {
				parts = append(parts, "...")
				break
			}
			parts = append(parts, label(item, depth+1))
		}
		return "(" + strings.Join(parts, ", ") + ")"
	case *Dict:
		parts := make([]string, 0, min(len(v.Pairs), maxParts))
		for i, p := range v.Pairs {
			if i == maxParts {
				parts = append(parts, "...")
				break
			}
			parts = append(parts, label(p.Key, depth+1)+": "+label(p.Val, depth+1))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case Global:
		return "<" + strings.ToValidUTF8(v.String(), "\ufffd") + ">"
	case *Object:
		if g, ok := v.Class.(Global); ok {
			return label(g, depth)
		}
		return "<object>"
	case PersID:
		return "<persistent id " + label(v.ID, depth+1) + ">"
	}
	return fmt.Sprintf("<%T>", v)
}

// parse reads one value at the start of b.
func parse(enc Encoding, b []byte, lim Limits) (v Value, rest []byte, err error) {
	if enc == Pickle {
		return ParsePickle(b, lim)
	}
	return ParseMsgpack(b, lim)
}

// maxEncodeDepth bounds how deep containers may nest in what is written: the
// msgpack reader of Python gives up not far beyond.
const maxEncodeDepth = 500

// Value writes a general value. Besides what Value lists, nothing is accepted.
func (e *Encoder) Value(v Value) { e.value(v, 0) }

func (e *Encoder) value(v Value, depth int) {
	if depth > maxEncodeDepth {
		e.fail("containers nest more than %d deep", maxEncodeDepth)
	}
	if e.err != nil {
		return
	}
	switch v := v.(type) {
	case nil:
		e.Nil()
	case bool:
		e.Bool(v)
	case int64:
		e.Int(v)
	case uint64:
		e.Uint(v)
	case float64:
		e.Float(v)
	case string:
		if e.enc != Pickle && !utf8.ValidString(v) {
			e.fail("text that is not UTF-8")
			return
		}
		e.Str(v)
	case []byte:
		e.Bytes(v)
	case Tuple:
		e.Tuple(len(v))
		for _, item := range v {
			e.value(item, depth+1)
		}
		e.EndTuple(len(v))
	case List:
		e.List(len(v))
		for i, item := range v {
			e.Item(i)
			e.value(item, depth+1)
		}
		e.EndList(len(v))
	case *Dict:
		e.Dict(len(v.Pairs))
		e.pairs(v.Pairs, depth)
		e.EndDict(len(v.Pairs))
	case *big.Int:
		e.bigInt(v)
	default:
		if e.enc != Pickle {
			e.fail("%s has no form in it (see Plain)", goTypeName(v))
			return
		}
		e.pickleOnly(v, depth)
	}
}

func (e *Encoder) pairs(pairs []Pair, depth int) {
	for i, p := range pairs {
		if e.enc != Pickle {
			// Python writes any key, but its reader takes no others and
			// then never answers.
			switch p.Key.(type) {
			case string, []byte:
			default:
				e.fail("%s as the key of a dict (see Plain)", goTypeName(p.Key))
				return
			}
		}
		e.Pair(i)
		e.value(p.Key, depth+1)
		e.value(p.Val, depth+1)
	}
}

func (e *Encoder) bigInt(v *big.Int) {
	switch {
	case v == nil:
		e.Nil()
	case v.IsInt64():
		e.Int(v.Int64())
	case v.IsUint64():
		e.Uint(v.Uint64())
	case e.enc == Pickle:
		e.Buf = appendPickleBig(e.Buf, v)
	default:
		e.fail("an integer beyond 64 bits")
	}
}

func goTypeName(v Value) string {
	switch v.(type) {
	case nil, bool, int64, uint64, float64, Tuple, List, *Dict, Global, *Object, PersID:
		return typeName(v)
	}
	return fmt.Sprintf("a Go %T", v)
}
