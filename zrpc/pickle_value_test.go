package zrpc

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

// TestPickleProtocols reads what Python 3 writes for one value in every
// protocol: with a memo, a shared list and all kinds of integers.
func TestPickleProtocols(t *testing.T) {
	pickles := []string{
		"286470300a56746578740a70310a566772fc6e5c75323061635c75303030615c75303035630a70320a7356620a70330a635f636f646563730a656e636f64650a70340a28565c7530303030ff0a70350a566c6174696e310a70360a7470370a5270380a7356690a70390a286c7031300a49300a6149310a61493235350a61492d310a614937303030300a614c313039393531313632373737364c0a614c2d313138303539313632303731373431313330333432344c0a614930310a614930300a614e617356660a7031310a46312e350a7356740a7031320a2828742849310a747031330a2849310a49320a747031340a2849310a49320a49330a747031350a2849310a49320a49330a49340a747031360a747031370a7356730a7031380a286c7031390a286c7032300a49310a61616732300a61732e",
		"7d7100285804000000746578747101580a0000006772c3bc6ee282ac0a5c71025801000000627103635f636f646563730a656e636f64650a710428580300000000c3bf710558060000006c6174696e31710674710752710858010000006971095d710a284b004b014bff4affffffff4a701101004c313039393531313632373737364c0a4c2d313138303539313632303731373431313330333432344c0a4930310a4930300a4e65580100000066710b473ff8000000000000580100000074710c2829284b0174710d284b014b0274710e284b014b024b0374710f284b014b024b034b0474711074711158010000007371125d7113285d71144b0161681465752e",
		"80027d7100285804000000746578747101580a0000006772c3bc6ee282ac0a5c71025801000000627103635f636f646563730a656e636f64650a7104580300000000c3bf710558060000006c6174696e31710686710752710858010000006971095d710a284b004b014bff4affffffff4a701101008a060000000000018a090000000000000000c088894e65580100000066710b473ff8000000000000580100000074710c28294b0185710d4b014b0286710e4b014b024b0387710f284b014b024b034b0474711074711158010000007371125d7113285d71144b0161681465752e",
		"80037d7100285804000000746578747101580a0000006772c3bc6ee282ac0a5c71025801000000627103430200ff710458010000006971055d7106284b004b014bff4affffffff4a701101008a060000000000018a090000000000000000c088894e655801000000667107473ff8000000000000580100000074710828294b018571094b014b0286710a4b014b024b0387710b284b014b024b034b0474710c74710d580100000073710e5d710f285d71104b0161681065752e",
		"80049591000000000000007d94288c0474657874948c0a6772c3bc6ee282ac0a5c948c016294430200ff948c0169945d94284b004b014bff4affffffff4a701101008a060000000000018a090000000000000000c088894e658c016694473ff80000000000008c01749428294b0185944b014b0286944b014b024b038794284b014b024b034b04749474948c0173945d94285d944b0161681065752e",
		"80059591000000000000007d94288c0474657874948c0a6772c3bc6ee282ac0a5c948c016294430200ff948c0169945d94284b004b014bff4affffffff4a701101008a060000000000018a090000000000000000c088894e658c016694473ff80000000000008c01749428294b0185944b014b0286944b014b024b038794284b014b024b034b04749474948c0173945d94285d944b0161681065752e",
	}
	one := int64(1)
	for proto, text := range pickles {
		// Before protocol 3, bytes were a call.
		data := Value([]byte{0, 0xff})
		if proto < 3 {
			data = &Object{Class: Global{"_codecs", "encode"}, Args: Tuple{"\x00ÿ", "latin1"}}
		}
		want := NewDict("text", "grün€\n\\", "b", data,
			"i", List{int64(0), one, int64(255), int64(-1), int64(70000), int64(1 << 40), bigInt("-0x400000000000000000"), true, false, nil},
			"f", 1.5,
			"t", Tuple{Tuple{}, Tuple{one}, Tuple{one, int64(2)}, Tuple{one, int64(2), int64(3)}, Tuple{one, int64(2), int64(3), int64(4)}},
			"s", List{List{one}, List{one}})
		in := unhex(t, text)
		got, rest, err := ParsePickle(in, Limits{AllowProto5: true})
		if err != nil || len(rest) > 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("protocol %d: %v (%v)", proto, readable(got), err)
		}
		for n := range in {
			if _, _, err := ParsePickle(in[:n:n], Limits{AllowProto5: true}); err == nil {
				t.Errorf("protocol %d: read from %d bytes of %d", proto, n, len(in))
			}
		}
		_, _, err = ParsePickle(in, Limits{})
		if refused := err != nil; refused != (proto > 3) {
			t.Errorf("protocol %d by default: %v", proto, err)
		} else if refused && !strings.Contains(err.Error(), "protocol") {
			t.Errorf("unclear: %v", err)
		}
	}
}

// TestPickleOpcodes reads short pickles, opcode by opcode.
func TestPickleOpcodes(t *testing.T) {
	obj := func(class Value, args ...Value) *Object {
		return &Object{Class: class, Args: append(Tuple{}, args...)}
	}
	c := Global{"m", "C"}
	one, two := int64(1), int64(2)
	for _, test := range []struct {
		in   string
		want Value
	}{
		{"I00\n.", false}, {"I01\n.", true}, {"I1\n.", one}, {"I-5\n.", int64(-5)},
		{"I18446744073709551615\n.", uint64(math.MaxUint64)}, {"L18446744073709551616L\n.", bigInt("18446744073709551616")},
		{"L1\n.", one}, {"\x8a\x00.", int64(0)}, {"\x8a\x0a\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00.", one},
		{"\x8a\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff.", int64(-1)}, {"\x8b\x02\x00\x00\x00\x00\x80.", int64(-32768)},
		{"\x8a\x0a\x00\x00\x00\x00\x00\x00\x00\x80\x00\x00.", uint64(1 << 63)},
		{"F1.5\n.", 1.5}, {"F-inf\n.", math.Inf(-1)}, {"F1e999\n.", math.Inf(1)},
		{`S'a\x41\n\'\\\101\q'` + "\n.", "aA\n'\\A\\q"}, {"S\"it's\"\n.", "it's"},
		{"U\x02ab.", "ab"}, {"U\x01\xe4.", []byte{0xe4}}, {"S'\xe4'\n.", []byte{0xe4}}, {"T\x02\x00\x00\x00ab.", "ab"},
		{"Va\xe4\\u20ac\\U0001f600\\n\\\\u0041\n.", "aä€😀\\n\\\\u0041"}, {"V\\ud800\n.", "\xed\xa0\x80"},
		{"X\x03\x00\x00\x00\xed\xa0\x80.", "\xed\xa0\x80"},
		{"(I1\nI2\nt.", Tuple{one, two}}, {"(I1\nl.", List{one}}, {"(l.", List{}}, {"(d.", NewDict()},
		{"(U\x01aK\x01U\x01bK\x02d.", NewDict("a", one, "b", two)},
		{"}U\x01aK\x01sU\x01aK\x02s.", NewDict("a", two)},
		{"K\x01K\x020.", one}, {"K\x01(K\x02K\x021.", one}, {"K\x01(0.", one}, {"K\x012\x86.", Tuple{one, one}},
		{"](K\x01eK\x02a(e.", List{one, two}},
		{"]q\x00K\x01ah\x00\x86.", Tuple{List{one}, List{one}}},
		{"]q\x00K\x01r\x00\x00\x01\x00aj\x00\x00\x01\x00\x86.", Tuple{List{one}, one}},
		{"]p7\nK\x01ag7\nK\x02a\x86.", Tuple{List{one, two}, List{one, two}}},
		{"cm\nC\n.", c}, {"cm\nC\n).", nil}, {"cm\nC\n)R.", obj(c)}, {"cm\nC\nK\x01\x85\x81.", &Object{Class: c, Args: Tuple{one}, New: true}},
		{"(im\nC\n.", obj(c)}, {"(K\x01K\x02im\nC\n.", obj(c, one, two)}, {"(cm\nC\nK\x01o.", obj(c, one)},
		{"cm\nC\n)R}U\x01aK\x01sb.", &Object{Class: c, Args: Tuple{}, State: NewDict("a", one)}},
		{"cm\nC\n)RK\x01a(K\x02e.", &Object{Class: c, Args: Tuple{}, Items: []Value{one, two}}},
		{"cm\nC\n)RK\x01K\x02s.", &Object{Class: c, Args: Tuple{}, Pairs: []Pair{{one, two}}}},
		{"Pabc\n.", PersID{"abc"}}, {"C\x02\x00\x01Q.", PersID{[]byte{0, 1}}}, {"C\x01ocm\nC\n\x86Q.", PersID{Tuple{[]byte("o"), c}}},
		{"C\x01ocm\nC\nQ.", nil},
		{"\x8f(K\x01\x90.", obj(Global{"builtins", "set"}, List{one})},
		{"(K\x01\x91.", obj(Global{"builtins", "frozenset"}, List{one})},
		{"\x96\x02\x00\x00\x00\x00\x00\x00\x00ab.", obj(Global{"builtins", "bytearray"}, []byte("ab"))},
		{"\x8c\x01m\x8c\x01C\x93.", c}, {"cm\nC\n)}\x92.", obj(Global{"copyreg", "__newobj_ex__"}, c, Tuple{}, NewDict())},
		{"\x8d\x01\x00\x00\x00\x00\x00\x00\x00m\x94h\x00\x86.", Tuple{"m", "m"}},
		{"\x8e\x01\x00\x00\x00\x00\x00\x00\x00m.", []byte("m")},
	} {
		got, rest, err := ParsePickle([]byte(test.in), Limits{AllowProto5: true})
		if test.want == nil {
			if err == nil {
				t.Errorf("%q: read as %v", test.in, readable(got))
			}
			continue
		}
		if err != nil || len(rest) > 0 || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q: %#v (%v), want %#v", test.in, got, err, test.want)
			continue
		}
		// What is read can be written, and read again.
		out, err := AppendPickle(nil, got)
		if err != nil {
			t.Errorf("%q: %v", test.in, err)
		} else if again, _, err := ParsePickle(out, Limits{}); err != nil || !reflect.DeepEqual(again, test.want) {
			t.Errorf("%q: written as %q: %v (%v)", test.in, out, again, err)
		}
	}
}

func TestPickleRefuses(t *testing.T) {
	for _, in := range []string{
		"", ".", "N", "NN.", "(N.", "(.", "N(.", "0.", "1.", "2.", "t.", "\x85.", "N\x86.", "(N\x86.", "N(\x85.",
		"a.", "Na.", "NNa.", "(e.", "N(Ne.", "](Na.", "}Ns.", "}NNNs.", "}(Nu.", "NNNs.", "(Nd.", "}]Ns.", "}}Ns.",
		"h\x00.", "g0\n.", "j\x00\x00\x00\x00.", "q\x00N.", "Np-1\n.", "Npx\n.", "(q\x00t.",
		"c\n\n.", "cm\n\n.", "cm\n", "c\xff\nC\n.", "N)R.", "cm\nC\nNR.", "cm\nC\n]\x81.", "im\nC\n.", "(o.", "(No.", "]Nb.", "cm\nC\nNb.",
		"cm\nC\n)R}b}b.",
		"\x82\x01.", "\x83\x01\x00.", "\x84\x01\x00\x00\x00.", "\xff.", "\x00", "\x97.", "\x98.",
		"Ix\n.", "I\n.", "L\n.", "I1_0\n.", "Fx\n.", "Sx\n.", "S'\n.", "S'a\\'\n.", "S'\\x4'\n.",
		"V\\u12\n.", "V\\uzzzz\n.", "V\\U00110000\n.", "V\\u+123\n.", "X\x01\x00\x00\x00\xff.", "X\x03\x00\x00\x00\xed\xa0\x20.",
		"X\xff\xff\xff\xffab.", "B\xff\xff\xff\xffab.", "T\xff\xff\xff\xffab.", "C\x05ab.", "\x8b\xff\xff\xff\xff\x01.",
		"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.", "\x8e\x00\x00\x00\x00\x00\x00\x00\x80ab.", "\x96\xff\xff\xff\xff\xff\xff\xff\x7fab.",
		"\x95\xff\xff\xff\xff\xff\xff\xff\xffN.", "\x80\x06N.", "\x80", "(N\x90.", "](N\x90.", "NN\x93.",
		"L" + strings.Repeat("9", maxLongDigits+1) + "\n.", "\x8b\x01\x20\x00\x00" + strings.Repeat("\x01", 0x2001) + ".",
	} {
		v, rest, err := ParsePickle([]byte(in), Limits{AllowProto5: true})
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || v != nil || string(rest) != in || err.Error() == "" {
			t.Errorf("%.40q: read as %v, %q (%v)", in, readable(v), rest, err)
		}
	}
}

// TestPickleBombs reads small pickles that stand for much, or that contain
// themselves.
func TestPickleBombs(t *testing.T) {
	double := func(n int) string {
		return ")q\x000" + strings.Repeat("h\x00h\x00\x86q\x000", n) + "h\x00."
	}
	text := "X\x00\x10\x00\x00" + strings.Repeat("x", 4096) + "q\x000(" + strings.Repeat("h\x00", 1<<14) + "t."
	for name, in := range map[string]string{
		"doubling":         double(40),
		"doubling lists":   "]q\x000" + strings.Repeat("](h\x00h\x00eq\x000", 40) + "h\x00.",
		"itself":           "]q\x00h\x00a.",
		"itself, deeper":   "]q\x00(h\x00)h\x00\x86e.",
		"dict itself":      "}q\x00Nh\x00s.",
		"tuple itself":     "]q\x00h\x00\x85q\x01ah\x01\x86.",
		"object itself":    "cm\nC\n)Rq\x00h\x00b.",
		"object's items":   "cm\nC\n)Rq\x00h\x00a.",
		"shared text":      text,
		"deep tuples":      ")" + strings.Repeat("\x85", 101) + ".",
		"deep lists":       strings.Repeat("]", 101) + strings.Repeat("a", 100) + ".",
		"deep marks":       strings.Repeat("(", 1000) + strings.Repeat("t", 1000) + ".",
		"deep ids":         "N" + strings.Repeat("Q", 101) + ".",
		"deep in two ways": ")" + strings.Repeat("\x85", 60) + "q\x00" + strings.Repeat("\x85", 60) + ".",
		"too many":         "(" + strings.Repeat("N", 1<<20) + "t.",
		"too many memos":   "N" + strings.Repeat("q\x00", 1<<20) + ".",
		"too many marks":   strings.Repeat("(", 1<<20+1) + ".",
	} {
		if _, _, err := ParsePickle([]byte(in), Limits{}); err == nil || !strings.Contains(err.Error(), "Limits.") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is just allowed.
	for name, in := range map[string]string{
		"nested":      ")" + strings.Repeat("\x85", 99) + ".",
		"list nested": strings.Repeat("]", 100) + strings.Repeat("a", 99) + ".",
		"many":        "(" + strings.Repeat("N", 1<<20-2) + "t.",
		"sharing":     double(18),
	} {
		if _, _, err := ParsePickle([]byte(in), Limits{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := ParsePickle([]byte(text), Limits{MaxShared: 1 << 27}); err != nil {
		t.Errorf("shared text with a higher limit: %v", err)
	}
}

// TestPickleKeyBombs reads pickles that use what is in the memo as a key, or a
// name, again and again, of which the value shows nothing.
func TestPickleKeyBombs(t *testing.T) {
	const long, times = 4096, 1 << 13
	length := "\x00\x10\x00\x00"
	text := "X" + length + strings.Repeat("x", long) + "q\x000"
	data := "B" + length + strings.Repeat("x", long) + "q\x000"
	for name, in := range map[string]string{
		"text key":    text + "}" + strings.Repeat("h\x00Ns", times) + ".",
		"bytes key":   data + "}" + strings.Repeat("h\x00Ns", times) + ".",
		"many dicts":  data + strings.Repeat("}h\x00Ns0", times) + "N.",
		"all at once": data + "}(" + strings.Repeat("h\x00N", times) + "u.",
		"a mark":      data + "(" + strings.Repeat("h\x00N", times) + "d.",
		"class":       text + strings.Repeat("h\x00h\x00\x930", times/2) + "N.",
	} {
		if _, _, err := ParsePickle([]byte(in), Limits{AllowProto5: true}); err == nil || !strings.Contains(err.Error(), "Limits.MaxShared") {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := ParsePickle([]byte(in), Limits{AllowProto5: true, MaxShared: 2 * long * times}); err != nil {
			t.Errorf("%s, with a higher limit: %v", name, err)
		}
	}
	// The items of a message count together.
	list := "](" + strings.Repeat("("+data+"}"+strings.Repeat("h\x00Ns", 1000)+"t", 10) + "e."
	d := NewDecoder(Pickle, []byte(list), Limits{})
	for d.List(); d.More(); {
		d.Value()
	}
	if err := d.Err(); err == nil || !strings.Contains(err.Error(), "Limits.MaxShared") {
		t.Errorf("ten items: %v", err)
	}
}

// TestDictCopiesNoKeys: to look for a key costs no copies of those that are there.
func TestDictCopiesNoKeys(t *testing.T) {
	d := &Dict{}
	for i := range dictScan - 2 {
		d.Set(make([]byte, 1000+i), nil)
	}
	// It is added when it is set first, which is not counted.
	if n := testing.AllocsPerRun(10, func() { d.Set(nil, nil) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMsgpackRefuses(t *testing.T) {
	for _, in := range []string{
		"", "\xc1", "\x91", "\x81\x01", "\x81\x90\x01", "\x81\x80\x01", "\xa1", "\xa1\xff", "\xd9\x02a", "\xc4\x01", "\xc6\xff\xff\xff\xffab",
		"\xdb\xff\xff\xff\xffab", "\xdd\xff\xff\xff\xff\x01", "\xdf\xff\xff\xff\xff\x01", "\xdf\x80\x00\x00\x00", "\xdc\x00\x02\x01",
		"\xcc", "\xcd\x01", "\xcf\x01", "\xd0", "\xca\x01", "\xcb\x01", "\xc7\x01\x01a", "\xd4\x01\x01", "\xd8",
		strings.Repeat("\x91", 101) + "\x01",
		"\xdd\x00\x10\x00\x00" + strings.Repeat("\xc0", 1<<20),
	} {
		v, rest, err := ParseMsgpack([]byte(in), Limits{})
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || v != nil || string(rest) != in || err.Error() == "" {
			t.Errorf("%.40q: read as %v, %.40q (%v)", in, readable(v), rest, err)
		}
	}
	for _, in := range []string{
		strings.Repeat("\x91", 100) + "\x01",
		"\xdd\x00\x0f\xff\xff" + strings.Repeat("\xc0", 1<<20-1),
	} {
		if _, _, err := ParseMsgpack([]byte(in), Limits{}); err != nil {
			t.Errorf("%.40q: %v", in, err)
		}
	}
	if v, _, err := ParseMsgpack([]byte("\x82\x01\xca\x3f\x80\x00\x00\x01\x02"), Limits{}); err != nil || readable(v) != "dict[[1 2 ]]" {
		t.Errorf("int keys: %v (%v)", readable(v), err)
	}
}

func TestDict(t *testing.T) {
	d := &Dict{}
	keys := []Value{"a", []byte("a"), int64(1), uint64(1 << 63), 1.5, math.NaN(), true, nil}
	for round := range 3 {
		for i, k := range keys {
			d.Set(k, int64(i+round))
		}
		for i := range dictScan {
			d.Set(strings.Repeat("k", i+2), int64(i+round))
		}
	}
	if want := len(keys) + dictScan; d.Len() != want {
		t.Errorf("%d pairs, want %d", d.Len(), want)
	}
	if v, ok := d.Get("a"); !ok || v != int64(2) {
		t.Errorf("a is %v", v)
	}
	if v, ok := d.Get("kkk"); !ok || v != int64(3) {
		t.Errorf("kkk is %v", v)
	}
	if _, ok := d.Get("none"); ok {
		t.Error("a key that is not there")
	}
	short := NewDict([]byte("a"), nil, "a", int64(1))
	if v, ok := short.Get("a"); !ok || v != int64(1) || short.Len() != 2 {
		t.Errorf("a is %v", v)
	}
}

func TestPlain(t *testing.T) {
	g := Global{"m", "C"}
	v := Tuple{g, &Object{Class: g, Args: Tuple{}}, &Object{Class: &Object{}}, PersID{[]byte{0, 1}}, PersID{Tuple{int64(1), g}},
		bigInt("0x10000000000000000"), "a\xed\xa0\x80", List{[]byte{0xff}}, 5,
		NewDict(int64(1), g, true, nil, Tuple{nil, 1.5}, "x", []byte("b"), int64(2))}
	want := Tuple{"<m.C>", "<m.C>", "<object>", "<persistent id 0x0001>", "<persistent id (1, <m.C>)>",
		"18446744073709551616", "a\ufffd", List{[]byte{0xff}}, "<int>",
		NewDict("1", "<m.C>", "True", nil, "(None, 1.5)", "x", []byte("b"), int64(2))}
	if got := Plain(v); !reflect.DeepEqual(got, want) {
		t.Errorf("%s, want %s", readable(got), readable(want))
	}
	loop := &Dict{}
	loop.Set("self", loop)
	if _, err := AppendMsgpack(nil, Plain(Tuple{loop, v})); err == nil {
		t.Error("an endless value was written")
	}
}
