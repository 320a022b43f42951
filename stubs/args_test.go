package stubs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

type dispatcher[T any] func(ctx context.Context, srv T, call *zrpc.Call) bool

// TestOptionalArguments leaves out the last arguments, one after another.
func TestOptionalArguments(t *testing.T) {
	for _, enc := range encodings {
		allCases(t, func(name string, mc methodCase, dispatch func(*recorder) handlerFunc) {
			for left := 0; left <= mc.optional; left++ {
				n := len(mc.args) - left
				args := append([]any{}, mc.args[:n]...)
				want := append(append([]any{}, args...), mc.defaults[mc.optional-left:]...)
				rec := &recorder{}
				answers, err := converse(t, enc, dispatch(rec), encode(enc, int64(1), false, name, onWireAll(args)))
				calls := rec.take()
				if err != nil || len(calls) != 1 || calls[0] != name+show(want) || len(answers) != 1 || answers[0].Flag != zrpc.Value(int64(0)) {
					t.Errorf("%v %s without %d arguments: arrived %.200q, want %.200s; answers %v, %v",
						enc, name, left, calls, show(want), answers, err)
				}
			}
		})
	}
}

// TestWrongArguments gives each method arguments that do not fit: too few, too
// many, and one of the wrong type in each place.
func TestWrongArguments(t *testing.T) {
	for _, enc := range encodings {
		allCases(t, func(name string, mc methodCase, dispatch func(*recorder) handlerFunc) {
			good := onWireAll(mc.args)
			bad := map[string]zrpc.Value{
				"too many":    append(append(zrpc.Tuple{}, good...), nil),
				"none at all": nil,
				"a number":    int64(1),
			}
			if required := len(good) - mc.optional; required > 0 {
				bad["too few"] = good[:required-1]
			}
			for i, arg := range mc.args {
				if _, open := arg.(*zrpc.Dict); open {
					continue // takes any value
				}
				wrong := append(zrpc.Tuple{}, good...)
				wrong[i] = zrpc.Value(zrpc.NewDict("a", int64(1)))
				bad[fmt.Sprintf("argument %d a dict", i)] = wrong
				switch arg.(type) {
				case zeolite.OID, zeolite.TID, OptionalTID, OptionalOID:
					wrong = append(zrpc.Tuple{}, good...)
					wrong[i] = []byte("1234567")
					bad[fmt.Sprintf("argument %d of seven bytes", i)] = wrong
				}
			}
			for what, args := range bad {
				for _, oneWay := range []bool{false, true} {
					rec := &recorder{}
					answers, err := converse(t, enc, dispatch(rec), encode(enc, int64(1), oneWay, name, args))
					var failed *zrpc.OneWayError
					var remote *zrpc.RemoteError
					switch {
					case len(rec.take()) > 0:
						t.Errorf("%v %s with %s was run", enc, name, what)
					case oneWay && (!errors.As(err, &failed) || failed.Name != name || !errors.As(err, &remote) ||
						remote.Class != ClassTypeError || len(answers) > 0):
						t.Errorf("%v one-way %s with %s: %v, ended for %v", enc, name, what, answers, err)
					case !oneWay && (err != nil || len(answers) != 1 || answers[0].Flag != zrpc.Value(int64(2)) ||
						!strings.HasPrefix(show(answers[0].Args), `("`+ClassTypeError+`", ("`+name+`: `)):
						t.Errorf("%v %s with %s: %v, ended for %v", enc, name, what, answers, err)
					}
				}
			}
		})
	}
}

// TestOneWayFailures has each method fail that was called one-way: nobody can be
// told, so the connection ends.
func TestOneWayFailures(t *testing.T) {
	for _, enc := range encodings {
		allCases(t, func(name string, mc methodCase, dispatch func(*recorder) handlerFunc) {
			rec := &recorder{err: zeolite.ErrReadOnly}
			payload := encode(enc, int64(0), true, name, onWireAll(mc.args))
			answers, err := converse(t, enc, dispatch(rec), payload)
			var failed *zrpc.OneWayError
			if !errors.As(err, &failed) || failed.Name != name || len(answers) > 0 {
				t.Errorf("%v %s: answers %v, ended for %v", enc, name, answers, err)
			}
			// One that succeeds is not answered.
			rec.err = nil
			if answers, err := converse(t, enc, dispatch(rec), payload); len(answers) > 0 || err != nil {
				t.Errorf("%v %s: answers %v, ended for %v", enc, name, answers, err)
			}
		})
	}
}

func TestUnknownMethods(t *testing.T) {
	names := []string{"", "frobnicate", "new_oid", "Storea", "storea ", "load", "store", "undo", "ruok", "__class__"}
	for _, enc := range encodings {
		for _, name := range names {
			for _, dispatch := range []func(*recorder) handlerFunc{serverSide, clientSide} {
				rec := &recorder{}
				answers, err := converse(t, enc, dispatch(rec), encode(enc, int64(1), false, name, zrpc.Tuple{}))
				if !errors.Is(err, errNoMethod) || len(answers) > 0 || len(rec.take()) > 0 {
					t.Errorf("%v %q: %v, %v", enc, name, answers, err)
				}
			}
			if StorageServerLane([]byte(name)) != LaneUnknown || ClientStorageLane([]byte(name)) != LaneUnknown {
				t.Errorf("%q has a lane", name)
			}
		}
	}
	for _, name := range StorageServerMethods {
		if StorageServerLane([]byte(name)) == LaneUnknown {
			t.Errorf("%s has no lane", name)
		}
	}
	for _, name := range ClientStorageMethods {
		if ClientStorageLane([]byte(name)) != LaneInline {
			t.Errorf("%s: a client handles everything in order", name)
		}
	}
}

// pickler writes messages as other picklers do: any protocol up to 3, memoized
// or not, with lists for tuples.
type pickler struct {
	buf      []byte
	protocol int
	memo     bool
	lists    bool
	puts     int
	seen     map[string]int // text and bytes, by opcode and content
}

func (p *pickler) put() {
	switch {
	case !p.memo:
		return
	case p.protocol == 0:
		p.buf = fmt.Appendf(p.buf, "p%d\n", p.puts)
	case p.puts < 256:
		p.buf = append(p.buf, 'q', byte(p.puts))
	default:
		p.buf = append(p.buf, 'r', byte(p.puts), byte(p.puts>>8), 0, 0)
	}
	p.puts++
}

// shared writes something that is referred to when it comes again.
func (p *pickler) shared(b string) {
	if n, ok := p.seen[b]; ok && p.memo && n < 256 {
		if p.protocol == 0 {
			p.buf = fmt.Appendf(p.buf, "g%d\n", n)
		} else {
			p.buf = append(p.buf, 'h', byte(n))
		}
		return
	}
	p.seen[b] = p.puts
	p.buf = append(p.buf, b...)
	p.put()
}

func (p *pickler) value(v zrpc.Value) {
	le32 := func(n int) string { return string([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}) }
	switch v := v.(type) {
	case nil:
		p.buf = append(p.buf, 'N')
	case bool:
		switch {
		case p.protocol >= 2 && v:
			p.buf = append(p.buf, 0x88)
		case p.protocol >= 2:
			p.buf = append(p.buf, 0x89)
		case v:
			p.buf = append(p.buf, "I01\n"...)
		default:
			p.buf = append(p.buf, "I00\n"...)
		}
	case int64:
		if p.protocol >= 1 && v >= 0 && v < 256 {
			p.buf = append(p.buf, 'K', byte(v))
		} else {
			p.buf = fmt.Appendf(p.buf, "I%d\n", v)
		}
	case uint64:
		p.buf = fmt.Appendf(p.buf, "L%dL\n", v)
	case float64:
		p.buf = fmt.Appendf(p.buf, "F%v\n", v)
	case string:
		if p.protocol == 0 {
			text := ""
			for _, r := range v {
				if r < 256 {
					text += string([]byte{byte(r)}) // raw-unicode-escape
				}
			}
			p.shared("V" + text + "\n")
		} else {
			p.shared("X" + le32(len(v)) + v)
		}
	case []byte:
		// zodbpickle's own opcodes, whatever the protocol.
		if len(v) < 256 {
			p.shared("C" + string([]byte{byte(len(v))}) + string(v))
		} else {
			p.shared("B" + le32(len(v)) + string(v))
		}
	case zrpc.Tuple:
		if p.lists {
			p.value(zrpc.List(v))
			return
		}
		if p.protocol >= 2 && len(v) > 0 && len(v) <= 3 {
			for _, item := range v {
				p.value(item)
			}
			p.buf = append(p.buf, 0x84+byte(len(v)))
		} else {
			p.buf = append(p.buf, '(')
			for _, item := range v {
				p.value(item)
			}
			p.buf = append(p.buf, 't')
		}
		p.put()
	case zrpc.List:
		p.buf = append(p.buf, "(l"...)
		p.put()
		for _, item := range v {
			p.value(item)
			p.buf = append(p.buf, 'a')
		}
	case *zrpc.Dict:
		p.buf = append(p.buf, "(d"...)
		p.put()
		for _, pair := range v.Pairs {
			p.value(pair.Key)
			p.value(pair.Val)
			p.buf = append(p.buf, 's')
		}
	}
}

// TestOtherPicklers sends each method as written by other picklers.
func TestOtherPicklers(t *testing.T) {
	allCases(t, func(name string, mc methodCase, dispatch func(*recorder) handlerFunc) {
		for protocol := range 4 {
			for _, style := range []pickler{{}, {memo: true}, {lists: true}, {memo: true, lists: true}} {
				p := style
				p.protocol, p.seen = protocol, map[string]int{}
				if protocol >= 2 {
					p.buf = append(p.buf, 0x80, byte(protocol))
				}
				p.value(zrpc.Tuple{int64(300), false, name, onWireAll(mc.args)})
				p.buf = append(p.buf, '.')
				rec := &recorder{}
				answers, err := converse(t, zrpc.Pickle, dispatch(rec), p.buf)
				if calls := rec.take(); err != nil || len(calls) != 1 || calls[0] != name+show(mc.args) {
					t.Errorf("%s in protocol %d, memo %v, lists %v: arrived %.200q, %v", name, protocol, p.memo, p.lists, calls, err)
				}
				if len(answers) != 1 || answers[0].ID != zrpc.Value(int64(300)) || answers[0].Flag != zrpc.Value(int64(0)) {
					t.Errorf("%s in protocol %d: answers %v", name, protocol, answers)
				}
			}
		}
	})
}
