package zrpc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// handlerFunc is a Handler that is a function.
type handlerFunc func(*Call)

func (f handlerFunc) HandleCall(call *Call) { f(call) }

// noCalls is a Handler for connections that must not be called.
func noCalls(t *testing.T) handlerFunc {
	return func(call *Call) {
		t.Errorf("unexpected call of %q", call.Name)
		call.Release()
	}
}

// echo is a Handler that answers calls with their arguments. The method
// "raise" raises a KeyError with them.
func echo(call *Call) {
	var v Value
	for {
		v = call.Args.Value()
		if !call.EndArgs() {
			break
		}
	}
	switch {
	case call.Args.Err() != nil:
		call.SendError("builtins.TypeError", Tuple{call.Args.Err().Error()})
	case string(call.Name) == "raise":
		call.SendError("builtins.KeyError", v)
	default:
		m := call.BeginReply()
		m.Value(v)
		call.SendReply(m)
	}
}

// noLeaks makes the test fail if goroutines of connections outlive it.
func noLeaks(t *testing.T) {
	t.Cleanup(func() {
		buf := make([]byte, 1<<20)
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			var left []string
			for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
				if strings.Contains(g, "zrpc.(*Conn)") {
					left = append(left, g)
				}
			}
			if len(left) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("goroutines left:\n%s", strings.Join(left, "\n\n"))
				return
			}
		}
	})
}

// wire is the other end of a connection under test: it writes frames and reads
// them one by one, never a byte ahead.
type wire struct {
	t   *testing.T
	nc  net.Conn
	enc Encoding
}

// received is a message as it was read from the wire.
type received struct {
	ID, Flag Value
	Name     string
	Args     Value
}

func (r received) String() string {
	return fmt.Sprintf("%s %s %s %s", readable(r.ID), readable(r.Flag), r.Name, readable(r.Args))
}

// short is the name with the first argument: what most tests compare.
func (r received) short() string {
	if args, ok := Sequence(r.Args); ok && len(args) > 0 {
		return r.Name + readable(args[0])
	}
	return r.Name
}

// encoded is a payload that is any one value.
func encoded(enc Encoding, v Value) []byte {
	e := NewEncoder(enc, nil)
	e.Start()
	e.Value(v)
	e.Stop()
	return e.Buf
}

// payload encodes a message.
func payload(enc Encoding, id, flag Value, name string, args Value) []byte {
	return encoded(enc, Tuple{id, flag, name, args})
}

func (w *wire) write(payloads ...[]byte) {
	w.t.Helper()
	var b []byte
	for _, p := range payloads {
		b = append(AppendFrameHeader(b, len(p)), p...)
	}
	if _, err := w.nc.Write(b); err != nil {
		w.t.Errorf("write: %v", err)
	}
}

func (w *wire) call(id Value, name string, args ...Value) []byte {
	return payload(w.enc, id, false, name, Tuple(args))
}

func (w *wire) oneWay(name string, args ...Value) []byte {
	return payload(w.enc, int64(0), true, name, Tuple(args))
}

func (w *wire) reply(id, v Value) []byte {
	return payload(w.enc, id, int64(flagReply), replyName, v)
}

func (w *wire) exception(id Value, class string, state Value) []byte {
	return payload(w.enc, id, int64(flagError), replyName, Tuple{class, state})
}

// read returns the next message, or why there is none.
func (w *wire) read() (received, error) {
	_ = w.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := readFrameExactly(w.nc, 1<<30)
	if err != nil {
		return received{}, err
	}
	v, rest, err := parse(w.enc, b, Limits{})
	if err != nil || len(rest) > 0 {
		return received{}, fmt.Errorf("frame %x: %w, %d bytes left", b, err, len(rest))
	}
	items, _ := Sequence(v)
	if len(items) != 4 {
		return received{}, fmt.Errorf("not a message: %s", readable(v))
	}
	name, _ := items[2].(string)
	return received{items[0], items[1], name, items[3]}, nil
}

// next is read for goroutines of all kinds: a failure is an empty message.
func (w *wire) next() received {
	w.t.Helper()
	r, err := w.read()
	if err != nil {
		w.t.Errorf("read: %v", err)
	}
	return r
}

// expect reads messages and compares them in short.
func (w *wire) expect(want ...string) {
	w.t.Helper()
	for i, s := range want {
		if got := w.next().short(); got != s {
			w.t.Fatalf("message %d is %q, want %q of %q", i, got, s, want)
		}
	}
}

// expectEnd makes sure that the connection ends before any further message.
func (w *wire) expectEnd() {
	w.t.Helper()
	if r, err := w.read(); err == nil {
		w.t.Errorf("a message before the end: %v", r)
	} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		w.t.Error("the connection does not end")
	}
}

// onPipe starts a connection over net.Pipe, where a write lasts until the other
// end has read it, and returns that end too. Both are closed with the test.
func onPipe(t *testing.T, enc Encoding, opt Options, h Handler) (*Conn, *wire) {
	a, b := net.Pipe()
	c := NewConn(a, enc, opt)
	c.Start(h)
	t.Cleanup(func() {
		b.Close()
		c.Close()
	})
	return c, &wire{t, b, enc}
}

// networks are the transports that real connections use, and net.Pipe.
var networks = []string{"pipe", "tcp", "unix", "tls"}

// link makes two connected net.Conns.
func link(t *testing.T, network string) (a, b net.Conn) {
	t.Helper()
	switch network {
	case "pipe":
		return net.Pipe()
	case "tls":
		a, b = link(t, "tcp")
		return overTLS(t, BelowTLS(a), BelowTLS(b))
	}
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed := make(chan error, 1)
	go func() {
		var err error
		a, err = net.Dial(network, l.Addr().String())
		dialed <- err
	}()
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	if err := <-dialed; err != nil {
		t.Fatal(err)
	}
	return a, b
}

// everywhere runs a test in both encodings over every transport.
func everywhere(t *testing.T, f func(t *testing.T, enc Encoding, network string)) {
	for _, enc := range []Encoding{Pickle, Msgpack} {
		for _, network := range networks {
			t.Run(fmt.Sprintf("%v/%s", enc, network), func(t *testing.T) {
				noLeaks(t)
				f(t, enc, network)
			})
		}
	}
}

// connected starts two connections with each other.
func connected(t *testing.T, enc Encoding, network string, ha, hb Handler) (a, b *Conn) {
	na, nb := link(t, network)
	a, b = NewConn(na, enc, Options{}), NewConn(nb, enc, Options{})
	a.Start(ha)
	b.Start(hb)
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	return a, b
}

func TestBadMessagesEndTheConnection(t *testing.T) {
	for _, enc := range []Encoding{Pickle, Msgpack} {
		w := &wire{enc: enc}
		bad := map[string][]byte{
			"empty":         {},
			"garbage":       []byte("\xc1garbage"),
			"three items":   encoded(enc, Tuple{int64(1), false, "register"}),
			"name is bytes": encoded(enc, Tuple{int64(1), false, []byte("ping"), Tuple{}}),
			"half":          w.call(int64(1), "ping")[:5],
			"not a tuple":   encoded(enc, "ping"),
		}
		for name, b := range bad {
			t.Run(fmt.Sprintf("%v/%s", enc, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, w := onPipe(t, enc, Options{}, noCalls(t))
					w.write(b)
					<-c.Done()
					if err := c.Err(); !errors.As(err, new(*BadMessageError)) {
						t.Errorf("ended for %v", err)
					}
					w.expectEnd()
				})
			})
		}
	}
}

func TestKeepAlive(t *testing.T) {
	for _, enc := range []Encoding{Pickle, Msgpack} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			c, w := onPipe(t, enc, Options{KeepAlive: time.Minute}, handlerFunc(echo))
			for i := range 3 {
				_ = w.nc.SetReadDeadline(time.Time{})
				b, err := readFrameExactly(w.nc, 100)
				want := payload(enc, int64(-1), int64(0), ".reply", nil)
				if err != nil || !bytes.Equal(b, want) {
					t.Fatalf("%x (%v), want %x", b, err, want)
				}
				if at := time.Since(start); at != time.Duration(i+1)*time.Minute {
					t.Errorf("keep-alive %d comes after %v", i, at)
				}
			}
			// One that arrives is no reply to anything, and no call.
			w.write(w.reply(int64(-1), nil), w.call(int64(-1), "ping"), w.call(int64(5), "ping"))
			if got := w.next(); got.ID != Value(int64(5)) {
				t.Errorf("keep-alives were answered: %v", got)
			}
			if c.Err() != nil {
				t.Errorf("ended: %v", c.Err())
			}
		})
	}
}

// slowToClose is a net.Conn that takes its time to close.
type slowToClose struct {
	net.Conn
	closing chan struct{}
}

func (s *slowToClose) Close() error {
	<-s.closing
	return s.Conn.Close()
}

// TestEndDoesNotWait ends a connection that does not close: whoever depends on it
// must not wait for that, but Close does.
func TestEndDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		slow := &slowToClose{a, make(chan struct{})}
		ended := make(chan struct{})
		c := NewConn(slow, Pickle, Options{Ended: func() { close(ended) }})
		c.Start(noCalls(t))
		called := make(chan error)
		go func() {
			_, err := call(c, "ping", nil)
			called <- err
		}()
		_, _ = (&wire{t, b, Pickle}).read()
		synctest.Wait()
		c.End(ErrClosed)
		<-c.Done()
		<-ended
		if err := <-called; !errors.As(err, new(*ConnError)) {
			t.Errorf("the call that was under way: %v", err)
		}
		closed := make(chan struct{})
		go func() {
			c.Close()
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close did not wait")
		default:
		}
		close(slow.closing)
		<-closed
	})
}

// TestHeard looks at what says that the peer is there while a large message is
// under way, in either direction.
func TestHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := onPipe(t, Pickle, Options{}, handlerFunc(echo))
		grew := func(what string, want bool) func() {
			before := c.Heard()
			return func() {
				synctest.Wait()
				if got := c.Heard() > before; got != want {
					t.Errorf("%s: heard of the peer: %v", what, got)
				}
			}
		}
		message := w.oneWay("large", make([]byte, 1000))
		check := grew("half a message came", true)
		_, _ = w.nc.Write(append(AppendFrameHeader(nil, len(message)), message[:500]...))
		check()
		check = grew("nothing happens", false)
		if err := c.Send(sendOf(c, "small", 0)); err != nil {
			t.Fatal(err)
		}
		check()
		check = grew("a small message was taken", false)
		w.expect("small0")
		check()
		m := c.BeginSend("large")
		m.Tuple(1)
		m.BytesBody(Body{Bytes: make([]byte, 3*writeAtOnce)})
		m.EndTuple(1)
		if err := c.Send(m); err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			check = grew(fmt.Sprintf("part %d of a large message was taken", i), true)
			if _, err := io.CopyN(io.Discard, w.nc, writeAtOnce+1000); err != nil {
				t.Fatal(err)
			}
			check()
		}
	})
}

func TestLargeFramesArriveWhole(t *testing.T) {
	everywhere(t, func(t *testing.T, enc Encoding, network string) {
		na, nb := link(t, network)
		got := make(chan []byte, 1)
		c := NewConn(na, enc, Options{MaxFrame: 32 << 20})
		c.Start(handlerFunc(func(call *Call) {
			v := call.Args.Value()
			b, _ := v.(Tuple)[0].([]byte)
			got <- bytes.Clone(b)
			call.Release()
		}))
		defer c.Close()
		w := &wire{t, nb, enc}
		for _, n := range []int{0, 511, 1<<20 - 40, 1 << 20, 5 << 20} {
			data := bytes.Repeat([]byte("0123456789abcde"), n/15+1)[:n]
			w.write(w.oneWay("store", data))
			select {
			case b := <-got:
				if !bytes.Equal(b, data) {
					t.Fatalf("%d bytes arrive as %d others", n, len(b))
				}
			case <-c.Done():
				t.Fatalf("%d bytes: %v", n, c.Err())
			}
		}
		nb.Close()
	})
}

func TestIncompleteFrames(t *testing.T) {
	w := &wire{enc: Pickle}
	frame := append(AppendFrameHeader(nil, len(w.call(int64(1), "ping"))), w.call(int64(1), "ping")...)
	for n := range frame {
		synctest.Test(t, func(t *testing.T) {
			c, w := onPipe(t, Pickle, Options{}, noCalls(t))
			if n > 0 {
				_, _ = w.nc.Write(frame[:n])
			}
			w.nc.Close()
			<-c.Done()
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if c.Err() != want {
				t.Errorf("cut after %d bytes: %v, want %v", n, c.Err(), want)
			}
		})
	}
}

func TestEndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := onPipe(t, Msgpack, Options{}, noCalls(t))
		if c.Err() != nil {
			t.Errorf("ended from the beginning: %v", c.Err())
		}
		first := errors.New("first")
		c.End(first)
		c.End(errors.New("second"))
		<-c.Done()
		if c.Err() != first {
			t.Errorf("ended for %v", c.Err())
		}
		w.expectEnd()
		if err := c.Close(); err != nil || c.Err() != first {
			t.Errorf("closed: %v, %v", err, c.Err())
		}
		c.Close()
		if err := c.Send(sendOf(c, "late", 1)); err != first {
			t.Errorf("sent after the end: %v", err)
		}
		if err := c.PostFrame([]byte{0, 0, 0, 0}); err != first {
			t.Errorf("posted after the end: %v", err)
		}
	})
}

func TestPauseReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 50
		var handled atomic.Int64
		_, w := onPipe(t, Pickle, Options{PauseReads: 1000}, handlerFunc(func(call *Call) {
			handled.Add(1)
			m := call.BeginReply()
			m.Bytes(make([]byte, 300))
			call.SendReply(m)
		}))
		go func() {
			for i := range calls {
				w.write(w.call(int64(i), "load"))
			}
		}()
		synctest.Wait()
		// Some 350 bytes each: three are enough to reach the mark.
		if n := handled.Load(); n < 1 || n > 5 {
			t.Errorf("%d calls were handled for a peer that takes no replies", n)
		}
		for i := range calls {
			if r := w.next(); r.ID != Value(int64(i)) {
				t.Fatalf("reply %v, want %d", r.ID, i)
			}
		}
	})
}
