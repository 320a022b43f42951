package load

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCalls compares calls with the examples of protocol.md, which Python made.
func TestCalls(t *testing.T) {
	for _, c := range []struct {
		name, m5, z5 string
		id           any
		oneWay       bool
		method       string
		args         []any
	}{
		{
			name: "register", id: 1, method: "register", args: []any{"1", 0},
			z5: "8003284b 01895808 00000072 65676973 74657258 01000000 314b0086 742e",
			m5: "9401c2a8 72656769 73746572 92a13100",
		},
		{
			name: "one-way", id: 0, oneWay: true, method: "set_client_label", args: []any{"label-1"},
			z5: "8003284b 00885810 00000073 65745f63 6c69656e 745f6c61 62656c58 07000000 6c616265 6c2d3185 742e",
			m5: "9400c3b0 7365745f 636c6965 6e745f6c 6162656c 91a76c61 62656c2d 31",
		},
		{
			name: "load", id: pair{0, 1}, method: "loadBefore", args: []any{uint64(0), uint64(1)},
			z5: "80032843 08000000 00000000 00430800 00000000 00000186 89580a00 00006c6f 61644265 666f7265 43080000 00000000 00004308 00000000 00000001 86742e",
			m5: "9492c408 00000000 00000000 c4080000 00000000 0001c2aa 6c6f6164 4265666f 726592c4 08000000 00000000 00c40800 00000000 000001",
		},
	} {
		for e, want := range map[encoding]string{msgpack{}: c.m5, pickle{}: c.z5} {
			got := appendCall(nil, e, c.id, c.oneWay, c.method, c.args...)
			payload := unhex(t, want)
			if !bytes.Equal(got[4:], payload) || int(got[3]) != len(payload) {
				t.Errorf("%s, %c: %x", c.name, e.letter(), got)
			}
		}
	}
}

// large needs more than 32 bits, where an int has them.
var large int64 = 1 << 40

// values are arguments of all kinds, and the scalars they are read as.
var values = []struct {
	v    any
	want []scalar
}{
	{nil, []scalar{{kind: null}}},
	{true, []scalar{{kind: boolean, n: 1}}},
	{false, []scalar{{kind: boolean}}},
	{0, []scalar{{kind: integer}}},
	{127, []scalar{{kind: integer, n: 127}}},
	{128, []scalar{{kind: integer, n: 128}}},
	{int(large), []scalar{{kind: integer, n: int64(int(large))}}},
	{-5, []scalar{{kind: integer, n: -5}}},
	{uint64(7), []scalar{{kind: bytesKind, b: []byte{0, 0, 0, 0, 0, 0, 0, 7}}}},
	{pair{1, 2}, []scalar{{kind: bytesKind, b: []byte{0, 0, 0, 0, 0, 0, 0, 1}}, {kind: bytesKind, b: []byte{0, 0, 0, 0, 0, 0, 0, 2}}}},
	{make([]byte, 255), []scalar{{kind: bytesKind, b: make([]byte, 255)}}},
	{make([]byte, 256), []scalar{{kind: bytesKind, b: make([]byte, 256)}}},
	{make([]byte, 70_000), []scalar{{kind: bytesKind, b: make([]byte, 70_000)}}},
	{"text", []scalar{{kind: text, b: []byte("text")}}},
	{strings.Repeat("x", 40), []scalar{{kind: text, b: []byte(strings.Repeat("x", 40))}}},
	{emptyMap{}, nil},
}

func TestValues(t *testing.T) {
	for _, e := range []encoding{msgpack{}, pickle{}} {
		for _, c := range values {
			rest := e.appendValue(nil, c.v)
			if e == (pickle{}) {
				rest = append(rest, '.')
			}
			for _, want := range append(c.want, scalar{kind: end}) {
				var got scalar
				var err error
				if got, rest, err = e.next(rest); err != nil || got.kind != want.kind || got.n != want.n || !bytes.Equal(got.b, want.b) {
					t.Errorf("%c, %.20v: %v %v, want %v", e.letter(), c.v, got, err, want)
				}
			}
		}
	}
}

// replies are of protocol.md, from Python's server.
var replies = []struct {
	name, m5, z5 string
	want         message
	args         []kind
	class        string // of an error
}{
	{
		name: "register", want: message{id: 1, method: []byte(".reply")}, args: []kind{bytesKind},
		z5: "8003284b 014b0058 06000000 2e726570 6c794308 00000000 00000000 742e",
		m5: "940100a6 2e726570 6c79c408 00000000 00000000",
	},
	{
		name: "unknown object", want: message{pair: pair{0, 1}, method: []byte(".reply"), failed: true}, args: []kind{text, bytesKind},
		class: "ZODB.POSException.POSKeyError",
		z5:    "80032843 08000000 00000000 00430800 00000000 00000186 4b025806 0000002e 7265706c 79581d00 00005a4f 44422e50 4f534578 63657074 696f6e2e 504f534b 65794572 726f7243 08000000 00000000 00858674 2e",
		m5:    "9492c408 00000000 00000000 c4080000 00000000 000102a6 2e726570 6c7992bd 5a4f4442 2e504f53 45786365 7074696f 6e2e504f 534b6579 4572726f 7291c408 00000000 00000000",
	},
	{
		name: "info", want: message{oneWay: true, method: []byte("info")}, args: []kind{text, integer, text, integer},
		z5: "8003284b 00885804 00000069 6e666f7d 28580600 00006c65 6e677468 4b025804 00000073 697a654b f2758574 2e",
		m5: "9400c3a4 696e666f 9182a66c 656e6774 6802a473 697a65cc f2",
	},
	{
		name: "vote", want: message{id: 4, method: []byte(".reply")},
		z5: "8003284b 044b0058 06000000 2e726570 6c795d74 2e",
		m5: "940400a6 2e726570 6c7990",
	},
}

func TestParse(t *testing.T) {
	for _, c := range replies {
		for e, text := range map[encoding]string{msgpack{}: c.m5, pickle{}: c.z5} {
			m, err := parse(e, unhex(t, text))
			if err != nil || m.id != c.want.id || m.pair != c.want.pair || m.oneWay != c.want.oneWay || m.failed != c.want.failed ||
				!bytes.Equal(m.method, c.want.method) {
				t.Errorf("%s, %c: %+v %v", c.name, e.letter(), m, err)
				continue
			}
			rest := m.args
			for _, want := range append(c.args, end) {
				var s scalar
				if s, rest, err = e.next(rest); err != nil || s.kind != want {
					t.Errorf("%s, %c: a scalar %v, %v, want kind %d", c.name, e.letter(), s, err, want)
				}
			}
			if c.class != "" && m.failure(e).Error() != "the server answers "+c.class {
				t.Errorf("%s, %c: %v", c.name, e.letter(), m.failure(e))
			}
		}
	}
}

// TestParseShort cuts messages everywhere: none may be taken for a whole one.
func TestParseShort(t *testing.T) {
	for _, c := range replies {
		for e, text := range map[encoding]string{msgpack{}: c.m5, pickle{}: c.z5} {
			whole := unhex(t, text)
			for n := range whole {
				m, err := parse(e, whole[:n])
				for i := 0; err == nil && i < len(c.args); i++ {
					var s scalar
					if s, m.args, err = e.next(m.args); err == nil && s.kind == end {
						err = errShort
					}
				}
				if err == nil && len(c.args) > 0 && e == (msgpack{}) {
					t.Errorf("%s, %c: %d of %d bytes are taken for all", c.name, e.letter(), n, len(whole))
				}
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range replies {
		for _, s := range []string{c.m5, c.z5} {
			b, _ := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, e := range []encoding{msgpack{}, pickle{}} {
			m, err := parse(e, b)
			for err == nil {
				var s scalar
				before := len(m.args)
				if s, m.args, err = e.next(m.args); s.kind == end {
					break
				}
				if err == nil && len(m.args) >= before {
					t.Fatalf("%c: no progress", e.letter())
				}
			}
		}
	})
}

func TestLoadCall(t *testing.T) {
	for _, e := range []encoding{msgpack{}, pickle{}} {
		l := newLoadCall(e, 5)
		l.set(77)
		want := appendCall(nil, e, pair{77, maxTID}, false, "loadBefore", uint64(77), uint64(maxTID))
		if !bytes.Equal(l.frame, want) {
			t.Errorf("%c: %x, want %x", e.letter(), l.frame, want)
		}
	}
}

func TestRecord(t *testing.T) {
	for _, size := range []int{MinRecord, 1024, 16 << 10} {
		b := Record(nil, size, 7, 3)
		if version, err := checkRecord(b, size, 7); len(b) != size || version != 3 || err != nil {
			t.Errorf("%d bytes: %d bytes, version %d, %v", size, len(b), version, err)
		}
		if _, err := checkRecord(b, size, 8); err == nil {
			t.Error("the record of another object passes")
		}
		for i := range b {
			if i >= len(recordHead) && i < len(recordHead)+4 || i >= len(recordHead)+12 && i < len(recordHead)+20 {
				continue // its length, and the version
			}
			b[i] ^= 1
			if _, err := checkRecord(b, size, 7); err == nil {
				t.Fatalf("a record of %d bytes passes though byte %d is wrong", size, i)
			}
			b[i] ^= 1
		}
	}
}
