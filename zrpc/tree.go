package zrpc

import (
	"fmt"
	"unicode/utf8"
)

// tree is a Decoder's cursor over general values, after Fallback.
type tree struct {
	cur   treeLevel
	stack []treeLevel
}

type treeLevel struct {
	items []Value
	next  int // index of the next item
}

func (t *tree) push(items []Value) {
	t.cur.next++
	t.stack = append(t.stack, t.cur)
	t.cur = treeLevel{items: items}
}

func (t *tree) more() bool { return t.cur.next < len(t.cur.items) }

func (t *tree) atEnd() bool { return len(t.stack) == 0 && !t.more() }

// peek returns the next item, or missing{} if there is none.
func (t *tree) peek() Value {
	if !t.more() {
		return missing{}
	}
	return t.cur.items[t.cur.next]
}

// missing stands for an item behind the last one: it is of no type.
type missing struct{}

// position describes the next item for an error.
func (t *tree) position() (index int, what string) {
	index = t.cur.next
	if len(t.stack) == 0 {
		index = -1
	}
	return index, typeName(t.peek())
}

// treeOpen enters a sequence of n items, or of any number if n is negative.
func (d *Decoder) treeOpen(n int) {
	items, ok := Sequence(d.tree.peek())
	switch {
	case !ok:
		d.wrong("a sequence")
	case n >= 0 && len(items) != n:
		d.wrongCount(n, len(items))
	default:
		d.tree.push(items)
	}
}

func (d *Decoder) treeClose() {
	t := d.tree
	switch {
	case len(t.stack) == 0:
		d.wrong("an open container")
	case t.more():
		d.wrongCount(t.cur.next, len(t.cur.items))
	default:
		t.cur = t.stack[len(t.stack)-1]
		t.stack = t.stack[:len(t.stack)-1]
	}
}

func (d *Decoder) treePeekInteger() (v int64, wide, ok bool) {
	switch v := d.tree.peek().(type) {
	case int64:
		return v, false, true
	case uint64:
		return int64(v), true, true
	}
	return 0, false, false
}

func (d *Decoder) treeInteger() (v int64, wide, ok bool) {
	if d.err != nil {
		return 0, false, false
	}
	if v, wide, ok = d.treePeekInteger(); ok {
		d.tree.cur.next++
	}
	return v, wide, ok
}

func (d *Decoder) treeFloat() (float64, bool) {
	if d.err != nil {
		return 0, false
	}
	if v, ok := d.tree.peek().(float64); ok {
		d.tree.cur.next++
		return v, true
	}
	v, wide, ok := d.treeInteger()
	return intFloat(v, wide), ok
}

func (d *Decoder) treeStr() ([]byte, bool) {
	if d.err != nil {
		return nil, false
	}
	s, ok := d.tree.peek().(string)
	if !ok || !utf8.ValidString(s) {
		return nil, false
	}
	d.tree.cur.next++
	return []byte(s), true
}

func (d *Decoder) treeBytes() ([]byte, bool) {
	if d.err != nil {
		return nil, false
	}
	s, ok := d.tree.peek().([]byte)
	if ok {
		d.tree.cur.next++
	}
	return s, ok
}

func (d *Decoder) treeValue() Value {
	if !d.tree.more() {
		d.wrong("a value")
		return nil
	}
	v := d.tree.peek()
	d.tree.cur.next++
	return v
}

// maxRewritten is how many times the length of the payload an item may have when
// it is encoded anew. Without references it has three times that at the most, as a
// pickle of floats in text. With them a small message could hold much memory, that
// nobody counts.
const maxRewritten = 4

func (d *Decoder) treeRaw() []byte {
	v := d.treeValue()
	if d.err != nil {
		return nil
	}
	e := NewEncoder(d.enc, nil)
	e.Value(v)
	if e.err != nil {
		d.fail(&ShapeError{Want: "an item that can be sent back", Got: e.err.Error(), Item: -1})
		return nil
	}
	if len(e.Buf)/maxRewritten > len(d.payload) {
		d.fail(&ShapeError{Want: "an item that can be sent back", Got: "one that repeats its parts too often", Item: -1})
		return nil
	}
	return e.Buf
}

// typeName says in words what kind of value v is.
func typeName(v Value) string {
	switch v := v.(type) {
	case missing:
		return "the end of the sequence"
	case nil:
		return "None"
	case bool:
		return "a bool"
	case string:
		if !utf8.ValidString(v) {
			return "text that is not UTF-8"
		}
		return "text"
	case []byte:
		return fmt.Sprintf("%d bytes", len(v))
	case float64:
		return "a float"
	case Tuple:
		return fmt.Sprintf("a tuple of %d items", len(v))
	case List:
		return fmt.Sprintf("a list of %d items", len(v))
	case *Dict:
		return "a dict"
	case Global:
		return fmt.Sprintf("the class %.100s", v)
	case *Object:
		return "an object"
	case PersID:
		return "a persistent id"
	}
	return "an integer"
}
