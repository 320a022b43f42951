package zrpc

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// bodyMessage is a one-way call with a body, some text and a number.
func bodyMessage(c *Conn, text string, b Body, n int64) *Message {
	m := c.BeginSend("store")
	m.Tuple(3)
	m.Str(text)
	m.BytesBody(b)
	m.Int(n)
	m.EndTuple(3)
	return m
}

// pattern is n bytes without a short period.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

func tempFile(t *testing.T, content []byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "body"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestBodies sends bodies of every kind and size, with all messages queued at
// once and each by itself, and compares what arrives byte by byte.
func TestBodies(t *testing.T) {
	content := pattern(200 << 10)
	long := string(bytes.Repeat([]byte("x"), 2*joinLimit))
	everywhere(t, func(t *testing.T, enc Encoding, network string) {
		file := tempFile(t, content)
		na, nb := link(t, network)
		c := NewConn(na, enc, Options{})
		c.Start(noCalls(t))
		defer nb.Close()
		defer c.Close()
		w := &wire{t, nb, enc}

		type sent struct {
			text string
			body Body
			want []byte
		}
		var all []sent
		for _, text := range []string{"", "short", long} {
			for _, n := range []int{0, 1, 255, 256, joinLimit - 10, joinLimit, 70 << 10, len(content)} {
				all = append(all,
					sent{text, Body{Bytes: content[:n]}, content[:n]},
					sent{text, Body{File: file, Off: int64(len(content) - n), N: n}, content[len(content)-n:]})
			}
			all = append(all, sent{text, Body{}, nil}, sent{text, Body{File: file, Off: 1000, N: 2000}, content[1000:3000]})
		}
		check := func(i int) {
			t.Helper()
			r := w.next()
			want := Tuple{all[i].text, all[i].want, int64(i)}
			if got, ok := r.Args.(Tuple); !ok || len(got) != 3 || got[0] != want[0] ||
				!bytes.Equal(got[1].([]byte), all[i].want) || got[2] != want[2] {
				t.Fatalf("message %d: %.200s, want %.200s", i, readable(r.Args), readable(want))
			}
		}
		for i, s := range all {
			if err := c.Send(bodyMessage(c, s.text, s.body, int64(i))); err != nil {
				t.Fatal(err)
			}
		}
		for i := range all {
			check(i)
		}
		for i, s := range all {
			_ = c.Send(bodyMessage(c, s.text, s.body, int64(i)))
			check(i)
		}
		// The same as messages of a stream.
		i := 0
		_ = c.Stream(&funcIterator{next: func(m *Message) error {
			if i == len(all) {
				return io.EOF
			}
			one := bodyMessage(c, all[i].text, all[i].body, int64(i))
			one.End()
			*m, *one = *one, *m
			one.free()
			i++
			return nil
		}}, InTurns)
		for k := range all {
			check(k)
		}
	})
}

// funcIterator is a MessageIterator that is a function.
type funcIterator struct {
	next   func(m *Message) error
	closed int
}

func (f *funcIterator) Next(m *Message) error { return f.next(m) }

func (f *funcIterator) Close() { f.closed++ }

// TestFilesThatAreTooShort promises more bytes than the file has: the other end
// must never see a whole message.
func TestFilesThatAreTooShort(t *testing.T) {
	for _, stream := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			file := tempFile(t, pattern(5000))
			c, w := onPipe(t, Pickle, Options{}, noCalls(t))
			body := Body{File: file, Off: 1000, N: 4001}
			if stream {
				_ = c.Stream(&funcIterator{next: func(m *Message) error {
					m.BeginSend("store")
					m.Tuple(1)
					m.BytesBody(body)
					m.EndTuple(1)
					m.End()
					return nil
				}}, InTurns)
			} else {
				_ = c.Send(sendOf(c, "before", 1))
				_ = c.Send(bodyMessage(c, "", body, 1))
				w.expect("before1")
			}
			w.expectEnd()
			<-c.Done()
			if !errors.Is(c.Err(), io.ErrUnexpectedEOF) {
				t.Errorf("ended for %v", c.Err())
			}
		})
	}
	// A file that cannot be read at all.
	synctest.Test(t, func(t *testing.T) {
		file := tempFile(t, pattern(5000))
		file.Close()
		c, w := onPipe(t, Pickle, Options{}, noCalls(t))
		_ = c.Send(bodyMessage(c, "", Body{File: file, N: 10}, 1))
		w.expectEnd()
		if !errors.Is(c.Err(), os.ErrClosed) {
			t.Errorf("ended for %v", c.Err())
		}
	})
}

func TestSharedFrames(t *testing.T) {
	for _, enc := range []Encoding{Pickle, Msgpack} {
		synctest.Test(t, func(t *testing.T) {
			data := pattern(2 * joinLimit)
			var frames [][]byte
			for _, n := range []int{1, len(data)} {
				frame, err := Frame(enc, "invalidate", func(e *Encoder) {
					e.Tuple(1)
					e.Bytes(data[:n])
					e.EndTuple(1)
				})
				if err != nil {
					t.Fatal(err)
				}
				frames = append(frames, frame)
			}
			before := bytes.Clone(bytes.Join(frames, nil))
			for range 3 {
				c, w := onPipe(t, enc, Options{}, noCalls(t))
				for i, frame := range frames {
					_ = c.Send(sendOf(c, "m", int64(i)))
					if err := c.PostFrame(frame); err != nil {
						t.Fatal(err)
					}
				}
				w.expect("m0", "invalidate{00}", "m1")
				if r := w.next(); !bytes.Equal(r.Args.(Tuple)[0].([]byte), data) {
					t.Errorf("a large frame arrives changed: %.100v", r)
				}
			}
			if !bytes.Equal(bytes.Join(frames, nil), before) {
				t.Error("a shared frame was written to")
			}
		})
	}
}

// TestMessagesAreReleasedOnce has messages end in every way.
func TestMessagesAreReleasedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		released := map[string]int{}
		message := func(c *Conn, name string, n int) *Message {
			m := bodyMessage(c, name, Body{Bytes: make([]byte, n)}, 0)
			m.release = func() { released[name]++ }
			return m
		}
		c, w := onPipe(t, Pickle, Options{OutboxLimit: 40000}, noCalls(t))
		_ = c.Send(message(c, "small", 10))
		w.next()
		synctest.Wait()
		_ = c.Send(message(c, "large", 3*joinLimit))
		w.next()
		m := message(c, "behind", 3*joinLimit)
		m.End()
		_ = c.PostBehind(m)
		w.next()
		synctest.Wait()
		_ = c.Send(sendOf(c, "blocks", 1))
		synctest.Wait()
		_ = c.Send(message(c, "queued", 30000))
		m = message(c, "queued behind", 10)
		m.End()
		_ = c.PostBehind(m)
		if err := c.Send(message(c, "too much", 30000)); err != ErrSlowPeer {
			t.Errorf("too much: %v", err)
		}
		c.Close()
		_ = c.Send(message(c, "late", 10))
		for _, name := range []string{"small", "large", "behind", "queued", "queued behind", "too much", "late"} {
			if released[name] != 1 {
				t.Errorf("%s was released %d times", name, released[name])
			}
		}
	})
}

// TestMessagesLargerThanAFrame claims a body of 4 GiB, which no frame can
// announce: the sender learns it, a caller gets an exception, a stream ends the
// connection, and the other end gets nothing of it.
func TestMessagesLargerThanAFrame(t *testing.T) {
	if math.MaxInt == math.MaxInt32 {
		t.Skip("an int has 32 bits here: no body is that large")
	}
	noLeaks(t)
	file := tempFile(t, nil)
	size := uint64(math.MaxUint32 - 10) // with its envelope, more than fits
	large := func(m *Message) { m.BytesBody(Body{File: file, N: int(size)}) }
	na, nb := link(t, "tcp")
	c := NewConn(na, Msgpack, Options{})
	c.Start(handlerFunc(func(call *Call) {
		m := call.BeginReply()
		large(m)
		call.SendReply(m)
	}))
	defer nb.Close()
	defer c.Close()
	w := &wire{t, nb, Msgpack}
	m := c.BeginSend("tell")
	large(m)
	if err := c.Send(m); !errors.As(err, new(*EncodeError)) {
		t.Errorf("one-way: %v", err)
	}
	w.write(w.call(int64(1), "load"))
	if got := w.next().String(); !strings.Contains(got, "4294967295") {
		t.Errorf("the answer is %s, and does not tell the limit", got)
	}
	_ = c.Stream(&funcIterator{next: func(m *Message) error {
		m.BeginSend("tell")
		large(m)
		m.End()
		return nil
	}}, InTurns)
	w.expectEnd()
	if err := c.Err(); !errors.As(err, new(*EncodeError)) {
		t.Errorf("the connection ended with %v", err)
	}
}

// bodyStream is a stream of messages with bodies, of which only the first few
// are ready. Those without a body say JoinNext.
type bodyStream struct {
	c      *Conn
	bodies []Body
	ready  atomic.Int64
	made   int64
	wake   func()
}

func (b *bodyStream) SetWake(wake func()) { b.wake = wake }

func (b *bodyStream) Close() {}

func (b *bodyStream) Next(m *Message) error {
	switch b.made {
	case int64(len(b.bodies)):
		return io.EOF
	case b.ready.Load():
		return ErrNotReady
	}
	one := bodyMessage(b.c, "", b.bodies[b.made], b.made)
	one.End()
	*m, *one = *one, *m
	one.free()
	if m.body.Len() == 0 {
		m.JoinNext()
	}
	b.made++
	return nil
}

// TestStreamsWaitForNobody sends streams whose messages come a few at a time.
// What leaves with the next message, the end of one with a body and all of one
// that said JoinNext, leaves at once if that is not ready, or if there is none,
// and in front of an ordinary message.
func TestStreamsWaitForNobody(t *testing.T) {
	content := pattern(2 * filePiece)
	everywhere(t, func(t *testing.T, enc Encoding, network string) {
		file := tempFile(t, content)
		na, nb := link(t, network)
		c := NewConn(na, enc, Options{})
		c.Start(noCalls(t))
		defer nb.Close()
		defer c.Close()
		w := &wire{t, nb, enc}
		expect := func(b Body, n int64) {
			t.Helper()
			args, ok := w.next().Args.(Tuple)
			if !ok || len(args) != 3 || !bytes.Equal(args[1].([]byte), content[:b.Len()]) || args[2] != n {
				t.Fatalf("%.200s, want message %d", readable(args), n)
			}
		}
		inFile, inMemory := Body{File: file, N: len(content)}, Body{Bytes: content[:filePiece]}
		for _, bodies := range [][]Body{
			{inFile, inFile, inFile, inFile},
			{{}, {}, inFile, {}, inMemory, {}, {}},
		} {
			for _, step := range []int64{1, 2, 3, 7} {
				s := &bodyStream{c: c, bodies: bodies}
				_ = c.Stream(s, InTurns)
				for sent := int64(0); sent < int64(len(bodies)); {
					upTo := min(sent+step, int64(len(bodies)))
					s.ready.Store(upTo)
					s.wake()
					for ; sent < upTo; sent++ {
						expect(bodies[sent], sent)
					}
					if sent%2 == 0 {
						_ = c.Send(bodyMessage(c, "", inFile, 100+sent))
						expect(inFile, 100+sent)
					}
				}
			}
		}
	})
}
