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
	if args, ok := sequence(r.Args); ok && len(args) > 0 {
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
	items, _ := sequence(v)
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
var networks = []string{"pipe", "tcp", "unix"}

// link makes two connected net.Conns.
func link(t *testing.T, network string) (a, b net.Conn) {
	t.Helper()
	if network == "pipe" {
		return net.Pipe()
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

func TestFrameLimits(t *testing.T) {
	for _, enc := range []Encoding{Pickle, Msgpack} {
		registered := atomic.Bool{}
		opt := Options{
			MaxFrame: 100,
			FrameLimit: func(name []byte) int {
				if string(name) == "store" && registered.Load() {
					return 2000
				}
				return 0
			},
		}
		for _, tc := range []struct {
			name       string
			registered bool
			method     string
			bytes      int
			ok         bool
			limit      int
		}{
			{"small, before", false, "ping", 30, true, 0},
			{"above the first limit, before", false, "ping", 150, false, 100},
			{"bulk, before", false, "store", 150, false, 100},
			{"above the first limit, after", true, "ping", 150, true, 0},
			{"above the second limit, after", true, "ping", 600, false, 500},
			{"bulk, after", true, "store", 1800, true, 0},
			{"too much bulk, after", true, "store", 2500, false, 2000},
		} {
			t.Run(fmt.Sprintf("%v/%s", enc, tc.name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, w := onPipe(t, enc, opt, handlerFunc(func(call *Call) {
						if string(call.Name) == "register" {
							call.Conn().SetMaxFrame(500, 0)
							registered.Store(true)
						}
						echo(call)
					}))
					registered.Store(false)
					if tc.registered {
						w.write(w.call(int64(1), "register"))
						w.next()
					}
					go func() { // the pipe may end in the middle
						b := w.call(int64(2), tc.method, make([]byte, tc.bytes))
						_, _ = w.nc.Write(append(AppendFrameHeader(nil, len(b)), b...))
					}()
					if tc.ok {
						w.next()
						return
					}
					<-c.Done()
					var tooLarge *FrameTooLargeError
					if !errors.As(c.Err(), &tooLarge) || tooLarge.Limit != tc.limit || !strings.Contains(c.Err().Error(), tc.method) {
						t.Errorf("ended for %v, want limit %d of %s", c.Err(), tc.limit, tc.method)
					}
					w.expectEnd()
				})
			})
		}
	}
}

// TestFrameLimitAnywhere sends a frame that only its name allows behind a small
// one, in one write, so that its header is anywhere in what has been received.
func TestFrameLimitAnywhere(t *testing.T) {
	opt := Options{MaxFrame: 2 * readBuffer, FrameLimit: func([]byte) int { return 4 * readBuffer }}
	for _, enc := range []Encoding{Pickle, Msgpack} {
		for before := range readBuffer + 10 {
			c, w := onPipe(t, enc, opt, handlerFunc(echo))
			go func() {
				var b []byte
				for _, payload := range [][]byte{w.call(int64(1), "ping", make([]byte, before)), w.call(int64(2), "store", bytes.Repeat([]byte{'a'}, 3*readBuffer))} {
					b = append(AppendFrameHeader(b, len(payload)), payload...)
				}
				_, _ = w.nc.Write(b)
			}()
			for id := int64(1); id <= 2; id++ {
				if got, err := w.read(); err != nil || got.ID != Value(id) {
					t.Fatalf("%v, %d bytes before it: reply %d is %v, %v; ended for %v", enc, before, id, got.ID, err, c.Err())
				}
			}
			c.Close()
		}
	}
}

// TestFrameLimitSmallerThanTheLook announces a frame that is too large, and
// sends no more than that frame.
func TestFrameLimitSmallerThanTheLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := onPipe(t, Pickle, Options{MaxFrame: 10, FrameLimit: func([]byte) int { return 0 }}, noCalls(t))
		w.write(w.call(int64(1), "ping"))
		<-c.Done()
		if !errors.As(c.Err(), new(*FrameTooLargeError)) {
			t.Errorf("ended for %v", c.Err())
		}
	})
}

// allocated measures the heap bytes that f costs, whichever goroutine asks.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestAnnouncedFramesCostNothing(t *testing.T) {
	noLeaks(t)
	for _, tc := range []struct {
		name  string
		limit int
		size  uint32
		want  error
		bytes uint64
	}{
		{"beyond the limit", 1 << 20, 0xffffffff, new(FrameTooLargeError), 64 << 10},
		{"by its name too", 1 << 20, 0xfffffff0, new(FrameTooLargeError), 64 << 10},
		// What is within the limit is not allocated before it arrives.
		{"within the limit", 1 << 30, 1 << 29, io.ErrUnexpectedEOF, 3 << 20},
	} {
		a, b := net.Pipe()
		c := NewConn(a, Msgpack, Options{MaxFrame: tc.limit, FrameLimit: func([]byte) int { return tc.limit }})
		cost := allocated(func() {
			c.Start(noCalls(t))
			w := &wire{t, b, Msgpack}
			frame := []byte{byte(tc.size >> 24), byte(tc.size >> 16), byte(tc.size >> 8), byte(tc.size)}
			frame = append(frame, w.call(int64(1), "store", make([]byte, 300))...)
			_, _ = b.Write(frame)
			b.Close()
			<-c.Done()
		})
		c.Close()
		if want := new(FrameTooLargeError); errors.As(tc.want, &want) != errors.As(c.Err(), &want) ||
			tc.want == io.ErrUnexpectedEOF && !errors.Is(c.Err(), io.ErrUnexpectedEOF) {
			t.Errorf("%s: ended for %v", tc.name, c.Err())
		}
		if cost > tc.bytes {
			t.Errorf("%s: %d bytes allocated", tc.name, cost)
		}
	}
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
