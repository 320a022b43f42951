package zrpc

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func FuzzFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 'Z', '5', 0, 0}, 10)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, 1<<20)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		payload, rest, err := parseFrame(b, limit)
		if err != nil {
			if payload != nil || !bytes.Equal(rest, b) {
				t.Fatalf("%q, %q with %v", payload, rest, err)
			}
			return
		}
		if len(payload) > max(limit, 0) {
			t.Fatalf("%d bytes, limit %d", len(payload), limit)
		}
		again := append(append(AppendFrameHeader(nil, len(payload)), payload...), rest...)
		if !bytes.Equal(again, b) {
			t.Fatalf("%x, want %x", again, b)
		}
	})
}

// fuzzLimits keep single inputs quick.
var fuzzLimits = Limits{MaxValues: 1 << 12, MaxShared: 1 << 16, AllowProto5: true}

// checkValue writes a value that was read, and reads it again.
func checkValue(t *testing.T, enc Encoding, v Value, in []byte) {
	e := NewEncoder(enc, nil)
	e.Start()
	e.Value(v)
	e.Stop()
	if e.Err() != nil {
		if enc == Msgpack || bytes.ContainsAny(in, "ciP\x93") {
			return // keys of dicts, odd class names
		}
		t.Fatalf("%s cannot be written: %v", readable(v), e.Err())
	}
	// A memo makes pickles short: what is written may exceed the limits.
	again, rest, err := parse(enc, e.Buf, Limits{MaxValues: 1 << 24, MaxShared: 1 << 30})
	if err != nil || len(rest) > 0 || readable(again) != readable(v) {
		t.Fatalf("%s becomes %s, %x (%v)", readable(v), readable(again), rest, err)
	}
	for _, enc := range []Encoding{Pickle, Msgpack} {
		p := NewEncoder(enc, nil)
		if p.Value(Plain(v)); p.Err() != nil {
			t.Fatalf("%s is not plain enough: %v", readable(v), p.Err())
		}
	}
}

func FuzzPickleValue(f *testing.F) {
	for _, g := range golden {
		f.Add(append(unhex(f, "8003"+g.pickle), '.'))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, rest, err := ParsePickle(b, fuzzLimits)
		if err == nil {
			checkValue(t, Pickle, v, b[:len(b)-len(rest)])
		}
	})
}

// holdsDict tells whether there is a dict in a value of msgpack.
func holdsDict(v Value) bool {
	switch v := v.(type) {
	case *Dict:
		return true
	case Tuple:
		return slices.ContainsFunc(v, holdsDict)
	}
	return false
}

func FuzzMsgpackValue(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.msgpack))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, rest, err := ParseMsgpack(b, fuzzLimits)
		size, ok := skipMsgpack(b, fuzzLimits.withDefaults().MaxDepth)
		if err != nil {
			// What is skipped is sent back to the peer as it is, so it must
			// be sound; only the number of values is not looked at.
			if ok && !strings.Contains(err.Error(), "MaxValues") {
				t.Fatalf("%d bytes skipped, but: %v", size, err)
			}
			return
		}
		if ok != !holdsDict(v) || ok && size != len(b)-len(rest) {
			t.Fatalf("%d bytes skipped (%v), %d read", size, ok, len(b)-len(rest))
		}
		checkValue(t, Msgpack, v, b)
	})
}

// runScript calls a method of d for each byte of a script and tells what they
// returned. What is opened is closed in the way that belongs to it, or not at all.
func runScript(d *Decoder, script []byte) string {
	var out bytes.Buffer
	const tuple, list = -1, -2
	var open []int // OpenTuple, List, or n of Tuple(n)
	in := func(what int) bool { return len(open) > 0 && open[len(open)-1] == what }
	closes := func(what int) bool {
		ok := in(what)
		if ok {
			open = open[:len(open)-1]
		}
		return ok
	}
	d.Start()
	for _, c := range script {
		n := int(c >> 5)
		switch c & 0x1f {
		case 0:
			d.Tuple(n)
			open = append(open, n)
		case 1:
			if closes(n) {
				d.EndTuple(n)
			}
		case 2:
			d.OpenTuple()
			open = append(open, tuple)
		case 3:
			if closes(tuple) {
				d.CloseTuple()
			}
		case 4:
			d.List()
			open = append(open, list)
		case 5:
			if closes(list) {
				d.CloseList()
			}
		case 6:
			if len(open) == 0 || in(tuple) || in(list) {
				fmt.Fprint(&out, d.More())
			}
		case 7:
			fmt.Fprint(&out, d.Int())
		case 8:
			fmt.Fprint(&out, d.Uint())
		case 9:
			fmt.Fprint(&out, d.Bool())
		case 10:
			d.Nil()
		case 11:
			fmt.Fprint(&out, d.Float())
		case 12:
			fmt.Fprintf(&out, "%q", d.Str())
		case 13:
			fmt.Fprintf(&out, "%x", d.Bytes())
		case 14:
			fmt.Fprint(&out, d.ID())
		case 15:
			fmt.Fprint(&out, readable(d.Value()))
		case 16:
			raw := d.Raw()
			if d.Err() == nil {
				v, _, err := parse(d.enc, append(bytes.Clone(raw), opStop), d.lim)
				fmt.Fprint(&out, readable(v), err)
			}
		case 17:
			fmt.Fprint(&out, len(AppendIDs[uint64](d, nil)))
		case 18: // a message, as a connection reads it
			d.Tuple(4)
			open = append(open, 4)
			fmt.Fprintf(&out, "%v%s", d.Bool(), d.Str())
		default:
			continue
		}
		fmt.Fprint(&out, " ")
	}
	d.Stop()
	return out.String()
}

// FuzzDecoder holds the quick reader against the general one: what both accept
// they understand alike.
func FuzzDecoder(f *testing.F) {
	message := []byte{4 << 5, 16, 9, 12, 15, 4<<5 | 1}
	lists := []byte{2 << 5, 14, 4, 6, 14, 6, 14, 6, 5, 2<<5 | 1}
	optional := []byte{2, 7, 6, 7, 6, 3}
	for _, g := range golden {
		f.Add(append(unhex(f, "8003"+g.pickle), '.'), message, true)
		f.Add(append(unhex(f, "8003"+g.pickle), '.'), optional, true)
		f.Add(unhex(f, g.msgpack), message, false)
		f.Add(unhex(f, g.msgpack), lists, false)
	}
	f.Add([]byte("\x80\x03C\x0812345678](C\x08abcdefghC\x08ABCDEFGHe\x86."), lists, true)
	f.Add([]byte("\x80\x03C\x0812345678](C\x08abcdefghe(C\x08ABCDEFGHe\x86."), lists, true)
	f.Add([]byte("\x80\x03K\x01q\x00h\x00\x86."), []byte{2, 7, 15, 3}, true)
	f.Fuzz(func(t *testing.T, b, script []byte, pickle bool) {
		enc := Msgpack
		if pickle {
			enc = Pickle
		}
		lim := fuzzLimits
		lim.AllowProto5 = false
		quick := NewDecoder(enc, b, lim)
		got := runScript(&quick, script)
		if quick.Err() != nil {
			quick.Fallback()
			runScript(&quick, script)
			return
		}
		general := NewDecoder(enc, b, lim)
		if !general.Fallback() {
			return
		}
		want := runScript(&general, script)
		if e := general.Err(); e != nil && strings.Contains(e.Error(), "cannot encode") {
			return // Raw of what can be read but not written
		}
		if general.Err() != nil || got != want {
			t.Fatalf("%q\nquick:   %s\ngeneral: %s (%v)", b, got, want, general.Err())
		}
	})
}
