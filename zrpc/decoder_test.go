package zrpc

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// store is what a server reads of storea(oid, serial, data, id): the header as
// a connection reads it, then the arguments as a dispatcher does.
type store struct {
	id          int64
	name        string
	oid, serial uint64
	data        string
	txn         uint64
}

func readStore(d *Decoder) (s store, err error) {
	header := func() {
		d.Start()
		d.Tuple(4)
		s.id = d.Int()
		d.Bool()
		s.name = string(d.Str())
		d.SetRetryPoint()
	}
	args := func() {
		d.OpenTuple()
		s.oid, s.serial, s.data, s.txn = d.ID(), d.ID(), string(d.Bytes()), d.Uint()
		d.CloseTuple()
		d.EndTuple(4)
		d.Stop()
	}
	if header(); d.Err() != nil && d.Fallback() {
		header()
	}
	if args(); d.Err() != nil && d.Fallback() {
		args()
	}
	return s, d.Err()
}

// TestFallback reads one message in all the ways in which a pickle can say it.
func TestFallback(t *testing.T) {
	const oid, tid = "C\x08\x00\x00\x00\x00\x00\x00\x00\x01", "C\x08\x03\x00\x00\x00\x00\x00\x00\x02"
	const name = "X\x06\x00\x00\x00storea"
	want := store{5, "storea", 1, 0x0300000000000002, "data", 1 << 40}
	for what, in := range map[string]struct {
		payload string
		tree    bool
	}{
		"as ZEO writes it":     {"\x80\x03(K\x05\x88" + name + "(" + oid + tid + "C\x04data\x8a\x06\x00\x00\x00\x00\x00\x01tt.", false},
		"memo puts":            {"\x80\x03(K\x05\x88" + name + "q\x00(" + oid + "q\x01" + tid + "r\x02\x00\x00\x00C\x04dataq\x03\x8a\x06\x00\x00\x00\x00\x00\x01tp4\ntq\x05.", false},
		"a long byte string":   {"\x80\x03(K\x05\x88" + name + "(" + oid + tid + "B\x04\x00\x00\x00data\x8a\x06\x00\x00\x00\x00\x00\x01tt.", false},
		"flag as a number":     {"\x80\x03(K\x05K\x00" + name + "(" + oid + tid + "C\x04data\x8a\x06\x00\x00\x00\x00\x00\x01tt.", false},
		"no protocol":          {"(K\x05\x88" + name + "(" + oid + tid + "C\x04data\x8a\x06\x00\x00\x00\x00\x00\x01tt.", false},
		"protocol 0":           {"(I5\nI01\nVstorea\n(" + oid + tid + "C\x04dataL1099511627776L\ntt.", true},
		"id read from memo":    {"\x80\x03" + oid + "q\x000(K\x05\x88" + name + "(h\x00" + tid + "C\x04data\x8a\x06\x00\x00\x00\x00\x00\x01tt.", true},
		"list of arguments":    {"\x80\x03(K\x05\x88" + name + "](" + oid + tid + "C\x04data\x8a\x06\x00\x00\x00\x00\x00\x01et.", true},
		"lists throughout":     {"\x80\x03](K\x05\x88" + name + "](" + oid + tid + "C\x04data\x8a\x06\x00\x00\x00\x00\x00\x01ee.", true},
		"long integers":        {"\x80\x03(\x8b\x01\x00\x00\x00\x05\x88" + name + "(" + oid + tid + "C\x04dataI1099511627776\ntt.", true},
		"name as Python 2 str": {"\x80\x02(K\x05\x88U\x06storea(" + oid + tid + "C\x04data\x8a\x06\x00\x00\x00\x00\x00\x01tt.", true},
		"ids as Python 2 str":  {"\x80\x02(K\x05\x88" + name + "(U" + oid[1:] + "U" + tid[1:] + "C\x04data\x8a\x06\x00\x00\x00\x00\x00\x01tt.", true},
		"something popped":     {"\x80\x03(K\x05\x88" + name + "(" + oid + tid + "N0C\x04data\x8a\x06\x00\x00\x00\x00\x00\x01tt.", true},
	} {
		d := NewDecoder(Pickle, []byte(in.payload), Limits{})
		got, err := readStore(&d)
		if err != nil || got != want {
			t.Errorf("%s: %+v (%v), want %+v", what, got, err, want)
		}
		if (d.tree != nil) != in.tree {
			t.Errorf("%s: tree mode is %v", what, d.tree != nil)
		}
		for n := range in.payload {
			d := NewDecoder(Pickle, []byte(in.payload[:n]), Limits{})
			var syntax *SyntaxError
			if _, err := readStore(&d); !errors.As(err, &syntax) {
				t.Errorf("%s: %d of %d bytes: %v, want *SyntaxError", what, n, len(in.payload), err)
			}
		}
	}
}

func TestFallbackErrors(t *testing.T) {
	write := func(enc Encoding, args Value, end string) []byte {
		e := NewEncoder(enc, nil)
		e.Start()
		e.Value(Tuple{int64(5), true, "storea", args})
		e.Stop()
		return append(e.Buf, end...)
	}
	id := make([]byte, 8)
	for _, enc := range []Encoding{Pickle, Msgpack} {
		for what, payload := range map[string][]byte{
			"too few arguments":    write(enc, Tuple{id, id, []byte("data")}, ""),
			"no arguments":         write(enc, Tuple{}, ""),
			"too many arguments":   write(enc, Tuple{id, id, []byte("data"), int64(1), nil}, ""),
			"short id":             write(enc, Tuple{id[:7], id, []byte("data"), int64(1)}, ""),
			"negative number":      write(enc, Tuple{id, id, []byte("data"), int64(-1)}, ""),
			"text for bytes":       write(enc, Tuple{id, id, "data", int64(1)}, ""),
			"nothing to iterate":   write(enc, int64(7), ""),
			"arguments by name":    write(enc, NewDict("oid", id), ""),
			"missing instead of 4": write(enc, nil, ""),
		} {
			d := NewDecoder(enc, payload, Limits{})
			_, err := readStore(&d)
			var shape *ShapeError
			if !errors.As(err, &shape) || shape.Error() == "" {
				t.Errorf("%v: %s: %v, want *ShapeError", enc, what, err)
			}
			if d.Fallback() {
				t.Errorf("%v: %s: a second Fallback", enc, what)
			}
			// Everything is harmless after an error.
			d.Tuple(2)
			d.List()
			if d.More() || d.IsNil() || d.IsInt() || d.Bool() || d.Int() != 0 || d.Uint() != 0 || d.Float() != 0 ||
				d.Str() != nil || d.Bytes() != nil || d.ID() != 0 || d.Raw() != nil || d.Value() != nil {
				t.Errorf("%v: %s: a value after an error", enc, what)
			}
			d.CloseList()
			d.EndTuple(2)
			d.Stop()
			if d.Err() != err {
				t.Errorf("%v: %s: the error became %v", enc, what, d.Err())
			}
		}
		var syntax *SyntaxError
		d := NewDecoder(enc, write(enc, Tuple{id, id, []byte("data"), int64(1)}, "x"), Limits{})
		if _, err := readStore(&d); !errors.As(err, &syntax) {
			t.Errorf("%v: trailing byte: %v, want *SyntaxError", enc, err)
		}
	}
}

// TestOptionalArguments reads calls whose last arguments may be left out.
func TestOptionalArguments(t *testing.T) {
	for _, enc := range []Encoding{Pickle, Msgpack} {
		for n := range 6 {
			args := Tuple{}
			for i := range n {
				args = append(args, int64(i))
			}
			for _, args := range []Value{args, List(args)} {
				e := NewEncoder(enc, nil)
				e.Start()
				e.Value(Tuple{args, "x"})
				e.Stop()
				d := NewDecoder(enc, e.Buf, Limits{})
				var got []Value
				read := func() {
					got = Tuple{}
					d.Start()
					d.Tuple(2)
					d.OpenTuple()
					for d.More() {
						got = append(got, d.Int())
					}
					d.CloseTuple()
					d.Str()
					d.EndTuple(2)
					d.Stop()
				}
				if read(); d.Err() != nil && d.Fallback() {
					read()
				}
				if d.Err() != nil || len(got) != n {
					t.Errorf("%v: %d items: %v (%v)", enc, n, got, d.Err())
				}
				if _, isTuple := args.(Tuple); isTuple && d.tree != nil {
					t.Errorf("%v: %d items needed the tree", enc, n)
				}
			}
		}
	}
}

// TestLists reads lists in every place of a tuple: straight, if the encoding
// says clearly where they end, and right in any case.
func TestLists(t *testing.T) {
	for _, items := range []List{{}, {int64(1)}, {int64(1), int64(2)}, make(List, 2500)} {
		for i, v := range items {
			if v == nil {
				items[i] = int64(i)
			}
		}
		for place := range 4 {
			for _, enc := range []Encoding{Pickle, Msgpack} {
				msg := Tuple{}
				for i := range 4 {
					if i == place {
						msg = append(msg, items)
					} else {
						msg = append(msg, Tuple{int64(1), int64(2), int64(3), int64(4)})
					}
				}
				e := NewEncoder(enc, nil)
				e.Start()
				e.Value(msg)
				e.Stop()
				d := NewDecoder(enc, e.Buf, Limits{})
				var got List
				read := func() {
					got = List{}
					d.Start()
					d.Tuple(4)
					for i := range 4 {
						if i != place {
							d.Tuple(4)
							for range 4 {
								d.Int()
							}
							d.EndTuple(4)
							continue
						}
						d.List()
						for d.More() {
							got = append(got, d.Int())
						}
						d.CloseList()
					}
					d.EndTuple(4)
					d.Stop()
				}
				if read(); d.Err() != nil && d.Fallback() {
					read()
				}
				if d.Err() != nil || !reflect.DeepEqual(got, items) {
					t.Errorf("%v: list of %d at %d: %v (%v)", enc, len(items), place, got, d.Err())
				}
				if place == 3 && d.tree != nil {
					t.Errorf("%v: list of %d at the end needed the tree", enc, len(items))
				}
			}
		}
	}
}

// TestRawAndValue takes any kind of item out of the middle of a message.
func TestRawAndValue(t *testing.T) {
	for _, enc := range []Encoding{Pickle, Msgpack} {
		for _, g := range golden {
			if enc == Msgpack && g.msgpack == "" {
				continue
			}
			want := g.v
			if enc == Msgpack {
				want = listless(want)
			}
			item := NewEncoder(enc, nil)
			item.Value(g.v)
			for after, follows := range map[string]func(e *Encoder){
				"text":  func(e *Encoder) { e.Str("x") },
				"tuple": func(e *Encoder) { e.Value(Tuple{int64(1), Tuple{nil}, int64(1), nil}) },
				"pair":  func(e *Encoder) { e.Value(Tuple{int64(1), []byte("x")}) },
				"list":  func(e *Encoder) { e.Value(List{nil, nil}) },
				"dict":  func(e *Encoder) { e.Value(NewDict("k", "v")) },
			} {
				e := NewEncoder(enc, nil)
				e.Start()
				e.Tuple(3)
				e.Nil()
				e.Raw(item.Buf)
				follows(&e)
				e.EndTuple(3)
				e.Stop()
				for _, tree := range []bool{false, true} {
					d := NewDecoder(enc, e.Buf, Limits{})
					if tree && !d.Fallback() {
						t.Fatal(d.Err())
					}
					d.Start()
					d.Tuple(3)
					d.Nil()
					r := d // a copy reads on its own, unless it walks a tree
					if !tree {
						if v := r.Value(); r.Err() != nil || !reflect.DeepEqual(v, want) {
							t.Errorf("%v: %s before %s: %s (%v)", enc, readable(g.v), after, readable(v), r.Err())
						}
					}
					raw := d.Raw()
					d.Value()
					d.EndTuple(3)
					d.Stop()
					if d.Err() != nil || string(raw) != string(item.Buf) {
						t.Errorf("%v (tree %v): %s before %s: %x (%v), want %x", enc, tree, readable(g.v), after, raw, d.Err(), item.Buf)
					}
				}
			}
		}
	}
}

// TestManyValues reads a long list by Value: in pickle that cannot be done
// straight from the bytes in any reasonable time.
func TestManyValues(t *testing.T) {
	const n = 1 << 17
	for _, enc := range []Encoding{Pickle, Msgpack} {
		e := NewEncoder(enc, nil)
		e.Start()
		e.List(n)
		for i := range n {
			e.Item(i)
			e.Value(Tuple{int64(i), "x"})
		}
		e.EndList(n)
		e.Stop()
		d := NewDecoder(enc, e.Buf, Limits{})
		count := 0
		read := func() {
			count = 0
			d.Start()
			for d.List(); d.More(); count++ {
				d.Value()
			}
			d.CloseList()
			d.Stop()
		}
		if read(); d.Err() != nil && d.Fallback() {
			read()
		}
		if d.Err() != nil || count != n || (d.tree != nil) != (enc == Pickle) {
			t.Errorf("%v: %d values (%v)", enc, count, d.Err())
		}
	}
}

// TestRawWithMemo makes sure that no memo reference leaves its message.
func TestRawWithMemo(t *testing.T) {
	for in, want := range map[string]string{
		"(C\x01aq\x00h\x00\x86NNNt.":   "C\x01aq\x00h\x00\x86", // refers to itself only
		"C\x01aq\x000(h\x00NNNt.":      "C\x01a",
		"C\x01aq\x000(h\x00N\x86NNNt.": "C\x01aN\x86",
	} {
		d := NewDecoder(Pickle, []byte(in), Limits{})
		var raw []byte
		read := func() {
			d.Start()
			d.Tuple(4)
			raw = d.Raw()
			d.Nil()
			d.Nil()
			d.Nil()
			d.EndTuple(4)
			d.Stop()
		}
		if read(); d.Err() != nil && d.Fallback() {
			read()
		}
		if d.Err() != nil || string(raw) != want {
			t.Errorf("%q: %q (%v), want %q", in, raw, d.Err(), want)
		}
	}
}

// TestRetryPointInsideAnItem has an id that looks like a whole header.
func TestRetryPointInsideAnItem(t *testing.T) {
	for _, enc := range []Encoding{Pickle, Msgpack} {
		e := NewEncoder(enc, nil)
		e.Start()
		e.Value(Tuple{Tuple{int64(1), true, "vote"}, false, "ping", Tuple{}})
		e.Stop()
		d := NewDecoder(enc, e.Buf, Limits{})
		var id, name []byte
		header := func() {
			d.Start()
			d.Tuple(4)
			if id = nil; d.IsInt() {
				d.Int()
			} else {
				id = d.Raw()
			}
			d.Bool()
			name = d.Str()
			d.SetRetryPoint()
		}
		if header(); d.Err() != nil && d.Fallback() {
			header()
		}
		d.Tuple(0)
		d.EndTuple(0)
		d.EndTuple(4)
		d.Stop()
		if d.Err() != nil || string(name) != "ping" || len(id) < 8 {
			t.Errorf("%v: id %x, name %q (%v)", enc, id, name, d.Err())
		}
	}
}

func TestIsInt(t *testing.T) {
	for _, g := range golden {
		for _, enc := range []Encoding{Pickle, Msgpack} {
			e := NewEncoder(enc, nil)
			if e.Value(g.v); e.Err() != nil || enc == Pickle && len(e.Buf) > 0 && e.Buf[0] != 'K' && e.Buf[0] != opLong1 {
				continue
			}
			_, isSequence := Sequence(g.v) // may begin like an integer in pickle
			_, want := g.v.(int64)
			d := NewDecoder(enc, e.Buf, Limits{})
			if got := d.IsInt(); got != want && !(isSequence && enc == Pickle) {
				t.Errorf("%v: IsInt of %v is %v", enc, g.v, got)
			}
		}
	}
}

func TestDecoderMisuse(t *testing.T) {
	for _, enc := range []Encoding{Pickle, Msgpack} {
		e := NewEncoder(enc, nil)
		e.Start()
		e.Value(Tuple{int64(1), int64(2)})
		e.Stop()
		for name, use := range map[string]func(d *Decoder){
			"close too often": func(d *Decoder) { d.Tuple(2); d.Int(); d.Int(); d.EndTuple(2); d.EndTuple(2) },
			"close nothing":   func(d *Decoder) { d.CloseTuple() },
			"close no list":   func(d *Decoder) { d.CloseList() },
			"leave items":     func(d *Decoder) { d.Tuple(2); d.Int(); d.EndTuple(2) },
			"leave a list":    func(d *Decoder) { d.OpenTuple(); d.Int(); d.CloseTuple(); d.Stop() },
			"stop inside":     func(d *Decoder) { d.Tuple(2); d.Int(); d.Int(); d.Stop() },
			"read behind":     func(d *Decoder) { d.OpenTuple(); d.Int(); d.Int(); d.Int(); d.CloseTuple() },
			"too deep": func(d *Decoder) {
				for range maxOpen + 1 {
					d.OpenTuple()
				}
			},
		} {
			for _, tree := range []bool{false, true} {
				d := NewDecoder(enc, e.Buf, Limits{})
				if tree {
					d.Fallback()
				}
				d.Start()
				if use(&d); d.Err() == nil {
					t.Errorf("%v (tree %v): %s: no error", enc, tree, name)
				}
			}
		}
	}
	if s := Encoding('x').String() + Pickle.String() + Msgpack.String(); !strings.HasSuffix(s, "picklemsgpack") {
		t.Error(s)
	}
}
