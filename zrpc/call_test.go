package zrpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// begin begins a call of one argument.
func begin(c *Conn, name string, arg Value) (*Message, *Pending) {
	m, p := c.BeginCall(name)
	m.Tuple(1)
	m.Value(arg)
	m.EndTuple(1)
	return m, p
}

// sendOf makes a one-way call of one integer.
func sendOf(c *Conn, name string, arg int64) *Message {
	m := c.BeginSend(name)
	m.Tuple(1)
	m.Int(arg)
	m.EndTuple(1)
	return m
}

// call calls a method of one argument and returns the first item of what is
// returned.
func call(c *Conn, name string, arg Value) (Value, error) {
	m, p := begin(c, name, arg)
	r, err := c.Await(context.Background(), m, p)
	if err != nil {
		return nil, err
	}
	defer r.Release()
	v := valueOf(r)
	if items, ok := Sequence(v); ok && len(items) == 1 {
		v = items[0]
	}
	if b, ok := v.([]byte); ok {
		v = bytes.Clone(b)
	}
	return v, r.Value.Err()
}

func valueOf(r *Reply) (v Value) {
	for {
		v = r.Value.Value()
		if !r.EndValue() {
			return v
		}
	}
}

func TestCalls(t *testing.T) {
	everywhere(t, func(t *testing.T, enc Encoding, network string) {
		sent := make(chan Value, 10)
		a, b := connected(t, enc, network, handlerFunc(echo), handlerFunc(func(call *Call) {
			if !call.Async {
				echo(call)
				return
			}
			sent <- call.Args.Value().(Tuple)[0]
			call.Release()
		}))
		for _, arg := range []Value{nil, int64(7), "text", []byte("bytes"), bytes.Repeat([]byte{7}, 100000)} {
			v, err := call(a, "load", arg)
			if err != nil || readable(v) != readable(arg) {
				t.Errorf("%.50s returns %.50s, %v", readable(arg), readable(v), err)
			}
		}
		// The other end calls in the same way.
		if v, err := call(b, "load", "x"); err != nil || v != Value("x") {
			t.Errorf("the other way: %v, %v", v, err)
		}
		_, err := call(a, "raise", "key")
		var remote *RemoteError
		if !errors.As(err, &remote) || remote.Class != "builtins.KeyError" || readable(remote.State) != `["key" ]` {
			t.Errorf("exception: %v", err)
		}
		for i := range int64(5) {
			if err := a.Send(sendOf(a, "tell", i)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range int64(5) {
			if v := <-sent; v != Value(i) {
				t.Errorf("one-way call %v, want %d", v, i)
			}
		}
	})
}

func TestConcurrentCallers(t *testing.T) {
	everywhere(t, func(t *testing.T, enc Encoding, network string) {
		a, _ := connected(t, enc, network, noCalls(t), handlerFunc(func(call *Call) { go echo(call) }))
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range 50 {
					arg := int64(g*1000 + i)
					name := "load"
					if i%7 == 0 {
						name = "raise"
					}
					v, err := call(a, name, arg)
					var remote *RemoteError
					switch {
					case name == "load" && (err != nil || v != Value(arg)):
						t.Errorf("%d returns %v, %v", arg, v, err)
					case name == "raise" && (!errors.As(err, &remote) || readable(remote.State) != fmt.Sprintf("[%d ]", arg)):
						t.Errorf("%d raises %v", arg, err)
					}
				}
			})
		}
		wg.Wait()
		if n := len(a.pending); n != 0 {
			t.Errorf("%d calls are still pending", n)
		}
	})
}

func TestRepliesKeepOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, w := onPipe(t, Msgpack, Options{}, handlerFunc(echo))
		var all [][]byte
		for i := range 20 {
			all = append(all, w.call(int64(i), "load", int64(i)))
		}
		w.write(all...)
		for i := range 20 {
			want := fmt.Sprintf("%d 0 .reply [%d ]", i, i)
			if got := w.next().String(); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
	})
}

// TestForeignIDs calls as other peers may: any message id, any flag, and
// pickles with a memo.
func TestForeignIDs(t *testing.T) {
	for _, enc := range []Encoding{Pickle, Msgpack} {
		for _, id := range []Value{
			int64(0), int64(1 << 40), uint64(1 << 63), "abc", []byte("\x00x"), nil, 1.5,
			Tuple{[]byte("12345678"), []byte("abcdefgh")},
			Tuple{int64(1), true, "ping"}, Tuple{int64(1), true}, Tuple{}, List{int64(1)},
		} {
			for _, flag := range []Value{false, int64(0)} {
				synctest.Test(t, func(t *testing.T) {
					c, w := onPipe(t, enc, Options{}, handlerFunc(echo))
					_ = c
					w.write(payload(enc, id, flag, "ping", Tuple{}))
					if got, err := w.read(); err != nil || readable(got.ID) != readable(id) || got.Flag != Value(int64(0)) {
						t.Errorf("%v: id %s returns as %v, %v; ended for %v", enc, readable(id), got, err, c.Err())
					}
				})
			}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		_, w := onPipe(t, Pickle, Options{}, handlerFunc(echo))
		// What pickle.dumps((['x'], False, 'ping', ('x',)), 2) may look like.
		w.write([]byte("\x80\x02(]q\x00X\x01\x00\x00\x00xq\x01a\x89X\x04\x00\x00\x00pingq\x02h\x01\x85q\x03tq\x04."))
		if got := w.next().String(); got != `["x" ] 0 .reply ["x" ]` {
			t.Errorf("reply %s", got)
		}
		// Protocol 0.
		w.write([]byte("(I7\nI00\nVping\np0\n(tp1\ntp2\n."))
		if got := w.next().String(); got != `7 0 .reply []` {
			t.Errorf("reply %s", got)
		}
	})
}

// TestRewrittenIDs has the id of a message written anew, because its flag is of a
// form that only the general reader knows. What few bytes make large with the memo
// is no id: the reply would be as large, and the call that waits.
func TestRewrittenIDs(t *testing.T) {
	const rest = "I00\nX\x04\x00\x00\x00ping)t."
	oid, tid := "C\x0812345678", "C\x08abcdefgh"
	for name, c := range map[string]struct{ id, want string }{
		"a pair with a memo":         {oid + "q\x00" + tid + "q\x01\x86q\x02", `[{3132333435363738} {6162636465666768} ]`},
		"the same twice":             {oid + "q\x00h\x00\x86q\x02", `[{3132333435363738} {3132333435363738} ]`},
		"as long as it can become":   {"(" + strings.Repeat("F1\n", 1000) + "t", "[" + strings.Repeat("1 ", 1000) + "]"},
		"much of little":             {"(X\x00\x02\x00\x00" + strings.Repeat("x", 512) + "q\x00" + strings.Repeat("h\x00", 512) + "t", ""},
		"more than the limits allow": {"(X\x00\x80\x00\x00" + strings.Repeat("x", 32<<10) + "q\x00" + strings.Repeat("h\x00", 600) + "t", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, w := onPipe(t, Pickle, Options{}, handlerFunc(func(call *Call) {
					if c.want == "" {
						t.Errorf("a call of %d bytes has an id of %d", call.Size(), len(call.ID.raw))
					}
					echo(call)
				}))
				w.write([]byte("\x80\x02(" + c.id + rest))
				if c.want != "" {
					if got := readable(w.next().ID); got != c.want {
						t.Errorf("the id comes back as %.100s, want %.100s", got, c.want)
					}
					return
				}
				<-conn.Done()
				if err := conn.Err(); !errors.As(err, new(*BadMessageError)) {
					t.Errorf("ended for %v", err)
				}
			})
		})
	}
}

// TestStrangeReplies gets replies that nobody waits for.
func TestStrangeReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := onPipe(t, Pickle, Options{}, noCalls(t))
		go func() {
			w.next()
			w.write(w.reply(int64(99), nil), w.reply("1", nil), w.reply(Tuple{int64(1)}, nil), w.reply(int64(0), nil),
				w.reply(nil, nil), w.exception(int64(98), "builtins.KeyError", nil), w.reply(int64(1), int64(5)), w.reply(int64(1), int64(6)))
		}()
		if v, err := call(c, "load", nil); err != nil || v != Value(int64(5)) {
			t.Errorf("returns %v, %v", v, err)
		}
		synctest.Wait()
		if c.Err() != nil {
			t.Errorf("ended for %v", c.Err())
		}
	})
}

func TestExceptionForms(t *testing.T) {
	for _, tc := range []struct {
		v     Value
		class string
		state string
	}{
		{Tuple{"m.C", Tuple{int64(1)}}, "m.C", "[1 ]"},
		{List{"m.C", List{}}, "m.C", "[]"},
		{Tuple{"m.C", NewDict("a", int64(1))}, "m.C", `dict[["a" 1 ]]`},
		{"text", "unknown exception", `["text" ]`},
		{Tuple{int64(1), nil}, "unknown exception", "[[1 null ] ]"},
		{nil, "unknown exception", "[null ]"},
	} {
		for _, flag := range []Value{int64(2), int64(1), true} {
			synctest.Test(t, func(t *testing.T) {
				c, w := onPipe(t, Pickle, Options{}, noCalls(t))
				go func() {
					w.next()
					w.write(payload(Pickle, int64(1), flag, ".reply", tc.v))
				}()
				_, err := call(c, "load", nil)
				var remote *RemoteError
				if !errors.As(err, &remote) || remote.Class != tc.class || readable(remote.State) != tc.state {
					t.Errorf("%s: %#v", readable(tc.v), err)
				}
			})
		}
	}
	// One that cannot be decoded fails the call, and nothing else.
	synctest.Test(t, func(t *testing.T) {
		c, w := onPipe(t, Msgpack, Options{}, handlerFunc(echo))
		go func() {
			w.next()
			w.write(append(payload(Msgpack, int64(1), int64(2), ".reply", nil)[:10], 0xc1))
			w.next()
			w.write(w.reply(int64(2), "fine"))
		}()
		if _, err := call(c, "load", nil); !errors.As(err, new(*BadMessageError)) {
			t.Errorf("undecodable exception: %v", err)
		}
		if v, err := call(c, "load", nil); v != Value("fine") {
			t.Errorf("next call: %v, %v", v, err)
		}
	})
}

func TestHooksRunInWireOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var events []string
		event := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, s)
		}
		c, w := onPipe(t, Pickle, Options{}, handlerFunc(func(call *Call) {
			event(string(call.Name))
			call.Release()
		}))
		var wg sync.WaitGroup
		for i := range 3 {
			m, p := begin(c, "load", int64(i))
			hooked := false // not atomic: the race detector looks at it too
			p.Hook = func(r *Reply) {
				hooked = true
				copied := r.Value
				event(fmt.Sprintf("hook %s exception %v", readable(copied.Value()), r.Exception))
			}
			wg.Go(func() {
				r, err := c.AwaitHooked(context.Background(), m, p)
				if err != nil {
					t.Errorf("call %d: %v", i, err)
					return
				}
				if !hooked {
					t.Errorf("call %d returned before its hook ran", i)
				}
				// The hook read a copy: the value is still there.
				if v := valueOf(r); v == nil || r.Value.Err() != nil {
					t.Errorf("call %d: value %v, %v", i, v, r.Value.Err())
				}
				r.Release()
			})
			w.next()
		}
		w.write(w.oneWay("first"), w.reply(int64(2), int64(20)), w.oneWay("second"), w.reply(int64(1), int64(10)),
			w.exception(int64(3), "E", Tuple{}), w.oneWay("third"))
		wg.Wait()
		synctest.Wait()
		want := `first, hook 20 exception false, second, hook 10 exception false, hook ["E" [] ] exception true, third`
		if got := strings.Join(events, ", "); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

func TestCancelThenLateReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := onPipe(t, Msgpack, Options{}, noCalls(t))
		ctx, cancel := context.WithCancel(context.Background())
		hooked := false
		m, p := begin(c, "load", int64(1))
		p.Hook = func(*Reply) { hooked = true }
		go func() {
			w.next()
			cancel()
		}()
		if _, err := c.Await(ctx, m, p); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled call: %v", err)
		}
		// The reply that comes too late runs its hook and disturbs nobody.
		go func() {
			w.next()
			w.write(w.reply(int64(1), "late"), w.reply(int64(2), "in time"))
		}()
		if v, err := call(c, "load", int64(2)); err != nil || v != Value("in time") {
			t.Errorf("next call: %v, %v", v, err)
		}
		if !hooked {
			t.Error("the hook did not see the late reply")
		}
		if n := len(c.pending); n != 0 {
			t.Errorf("%d calls are still pending", n)
		}
	})
}

func TestEndWakesEveryCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := onPipe(t, Pickle, Options{}, noCalls(t))
		var wg sync.WaitGroup
		try := func(name string, maybeSent bool, await func(context.Context, *Message, *Pending) (*Reply, error)) {
			m, p := begin(c, name, nil)
			wg.Go(func() {
				_, err := await(context.Background(), m, p)
				var ce *ConnError
				if !errors.As(err, &ce) || ce.MaybeSent != maybeSent || !errors.Is(err, errTest) {
					t.Errorf("%s: %#v", name, err)
				}
			})
			synctest.Wait()
		}
		try("answered never", true, c.Await)
		w.next()
		try("being written", true, c.Await)
		try("queued", false, c.Await)
		try("queued with a hook", false, c.AwaitHooked)
		try("behind streams", true, c.AwaitBehind)
		c.End(errTest)
		wg.Wait()
		try("after the end", false, c.Await)
		wg.Wait()
	})
}

var errTest = errors.New("end of the test")

func TestSlowPeerFailsTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := onPipe(t, Pickle, Options{OutboxLimit: 100}, noCalls(t))
		_ = c.Send(sendOf(c, "blocks", 1))
		_, err := call(c, "load", make([]byte, 200))
		var ce *ConnError
		if !errors.As(err, &ce) || ce.MaybeSent || !errors.Is(err, ErrSlowPeer) {
			t.Errorf("%#v", err)
		}
	})
}

// TestUnencodable gives values that an encoding cannot express.
func TestUnencodable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := onPipe(t, Msgpack, Options{}, handlerFunc(func(call *Call) {
			switch string(call.Name) {
			case "result":
				m := call.BeginReply()
				m.Value(NewDict(int64(1), nil))
				call.SendReply(m)
			case "gated":
				m := call.BeginReply()
				m.Value(NewDict(int64(1), nil))
				if !call.SendReplyIf(m, new(atomic.Uint64), 0) {
					t.Error("SendReplyIf wants another attempt")
				}
			case "state":
				call.SendError("m.C", NewDict(int64(1), nil))
			}
		}))
		if _, err := call(c, "load", NewDict(int64(1), nil)); !errors.As(err, new(*EncodeError)) {
			t.Errorf("argument: %v", err)
		}
		if m := c.BeginSend("tell"); true {
			m.Value(NewDict(int64(1), nil))
			if err := c.Send(m); !errors.As(err, new(*EncodeError)) {
				t.Errorf("one-way: %v", err)
			}
		}
		if _, err := Frame(Msgpack, "x", func(e *Encoder) { e.Value(NewDict(int64(1), nil)) }); !errors.As(err, new(*EncodeError)) {
			t.Errorf("frame: %v", err)
		}
		for method, want := range map[string]string{"result": `2 .reply ["builtins.ValueError"`,
			"gated": `2 .reply ["builtins.ValueError"`, "state": `2 .reply ["m.C" dict[["1" null ]] ]`} {
			w.write(w.call(int64(1), method))
			if got := w.next().String(); !strings.Contains(got, want) {
				t.Errorf("%s: %s", method, got)
			}
		}
		if c.Err() != nil {
			t.Errorf("ended for %v", c.Err())
		}
	})
}

// TestOneWayCallsGetNoReply answers one-way calls in every way.
func TestOneWayCallsGetNoReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := atomic.Uint64{}
		c, w := onPipe(t, Pickle, Options{}, handlerFunc(func(call *Call) {
			switch string(call.Name) {
			case "gated":
				m := call.BeginReply()
				m.Nil()
				if !call.SendReplyIf(m, &gate, 5) {
					t.Error("SendReplyIf wants another attempt")
				}
			default:
				echo(call)
			}
		}))
		w.write(w.oneWay("echo", int64(1)), w.oneWay("gated"), w.call(int64(9), "echo", "x"))
		if got := w.next().String(); got != `9 0 .reply ["x" ]` {
			t.Errorf("answered: %s", got)
		}
		// What cannot be told ends the connection.
		w.write(w.oneWay("raise", "why"))
		<-c.Done()
		var oneWay *OneWayError
		var remote *RemoteError
		if !errors.As(c.Err(), &oneWay) || oneWay.Name != "raise" || !errors.As(c.Err(), &remote) || remote.Class != "builtins.KeyError" {
			t.Errorf("ended for %v", c.Err())
		}
		w.expectEnd()
	})
}

func TestPostIf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := atomic.Uint64{}
		gate.Store(7)
		var waiting *Call
		c, w := onPipe(t, Pickle, Options{}, handlerFunc(func(call *Call) { waiting = call }))
		message := func(n int64) *Message {
			m := sendOf(c, "tell", n)
			m.End()
			return m
		}
		if c.PostIf(message(1), &gate, 6) {
			t.Error("posted with another value in the gate")
		}
		if !c.PostIf(message(2), &gate, 7) {
			t.Error("not posted")
		}
		w.expect("tell2")
		w.write(w.call(int64(1), "load"))
		synctest.Wait()
		for _, want := range []uint64{6, 7} {
			m := waiting.BeginReply()
			m.Int(int64(want))
			if waiting.SendReplyIf(m, &gate, want) != (want == 7) {
				t.Errorf("reply if %d", want)
			}
		}
		if got := w.next().String(); got != "1 0 .reply 7" {
			t.Errorf("reply %s", got)
		}
		// Closing the gate and posting puts the post behind all that passed.
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for c.PostIf(message(1), &gate, 7) {
				}
			})
		}
		wg.Go(func() {
			gate.Store(8)
			_ = c.Send(sendOf(c, "closed", 0))
		})
		for name := "tell"; name == "tell"; {
			name = w.next().Name
		}
		wg.Wait()
		_ = c.Send(sendOf(c, "last", 0))
		w.expect("last0")
		c.End(errTest)
		if !c.PostIf(message(1), &gate, 8) {
			t.Error("PostIf tells of the end by its gate")
		}
	})
}

func TestFillReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, w := onPipe(t, Pickle, Options{}, handlerFunc(func(call *Call) {
			if call.Size() != len(payload(Pickle, "id", false, "load", Tuple{})) {
				t.Errorf("size %d", call.Size())
			}
			m := call.Conn().NewMessage()
			conn := call.Conn()
			call.FillReply(m, "value")
			_ = conn.PostBehind(m)
		}))
		w.write(w.call("id", "load"))
		if got := w.next().String(); got != `"id" 0 .reply "value"` {
			t.Errorf("reply %s", got)
		}
	})
}

// TestCallsAfterPeerVanishes has both halves of a call meet the end: no caller
// may hang, whenever it comes.
func TestCallsAfterPeerVanishes(t *testing.T) {
	noLeaks(t)
	for i := range 100 {
		a, b := net.Pipe()
		c := NewConn(a, Msgpack, Options{})
		c.Start(noCalls(t))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					if _, err := call(c, "load", nil); err != nil {
						if !errors.As(err, new(*ConnError)) {
							t.Errorf("%v", err)
						}
						return
					}
				}
			})
		}
		w := &wire{t, b, Msgpack}
		for range i % 5 {
			w.write(w.reply(w.next().ID, nil))
		}
		b.Close()
		wg.Wait()
		c.Close()
	}
}
