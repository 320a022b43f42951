package zrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// script is a MessageIterator whose messages are one-way calls of name with
// their number. It records how it was used.
type script struct {
	name  string
	n     int   // how many messages there are
	err   error // what Next answers after them, instead of io.EOF
	first func()

	made, closed, after atomic.Int64 // after counts calls of Next after Close
	busy                atomic.Bool
}

func (s *script) Next(m *Message) error {
	if s.busy.Swap(true) {
		panic("Next is called by two goroutines")
	}
	defer s.busy.Store(false)
	if s.closed.Load() > 0 {
		s.after.Add(1)
	}
	k := s.made.Load()
	if k == 0 && s.first != nil {
		s.first()
	}
	if int(k) == s.n {
		if s.err != nil {
			return s.err
		}
		return io.EOF
	}
	s.made.Store(k + 1)
	m.BeginSend(s.name)
	m.Tuple(1)
	m.Int(k)
	m.EndTuple(1)
	m.End()
	return nil
}

func (s *script) Close() { s.closed.Add(1) }

// checkClosed makes sure that each was closed once, and not used after it.
func checkClosed(t *testing.T, all ...*script) {
	t.Helper()
	for _, s := range all {
		if s.closed.Load() != 1 || s.after.Load() != 0 {
			t.Errorf("%s was closed %d times and used %d times after that", s.name, s.closed.Load(), s.after.Load())
		}
	}
}

// blocked starts a connection whose writer is busy with a first message until
// that is read.
func blocked(t *testing.T, opt Options) (*Conn, *wire) {
	c, w := onPipe(t, Pickle, opt, noCalls(t))
	if err := c.Send(sendOf(c, "blocks", 0)); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return c, w
}

func TestStreamsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := blocked(t, Options{})
		var all []*script
		for i := range 10 {
			s := &script{name: fmt.Sprintf("s%d.", i), n: 3}
			if i >= maxTurns {
				s.first = func() {
					under := 0
					for _, other := range all {
						if other.made.Load() > 0 && other.closed.Load() == 0 {
							under++
						}
					}
					if under >= maxTurns {
						t.Errorf("%s starts beside %d others", s.name, under)
					}
				}
			}
			all = append(all, s)
			if err := c.Stream(s, InTurns); err != nil {
				t.Fatal(err)
			}
		}
		w.expect("blocks0")
		for k := range 3 {
			for i := range maxTurns {
				w.expect(fmt.Sprintf("s%d.%d", i, k))
			}
		}
		for k := range 3 {
			w.expect(fmt.Sprintf("s8.%d", k), fmt.Sprintf("s9.%d", k))
		}
		synctest.Wait()
		checkClosed(t, all...)
		if c.Queued() != 0 {
			t.Errorf("%d bytes are still queued", c.Queued())
		}
	})
}

// TestTurnsAfterAnEnd has a stream end in the middle of a round.
func TestTurnsAfterAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := blocked(t, Options{})
		for i, n := range []int{1, 3, 3} {
			_ = c.Stream(&script{name: string(rune('a' + i)), n: n}, InTurns)
		}
		_ = c.Stream(&script{name: "z", n: 3}, OneByOne)
		w.expect("blocks0", "a0", "b0", "c0", "z0", "b1", "c1", "z1", "b2", "c2", "z2")
	})
}

func TestOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := blocked(t, Options{})
		up := []*script{{name: "u", n: 3}, {name: "v", n: 2}, {name: "empty"}, {name: "w", n: 1}}
		for i, s := range up {
			if i > 0 {
				s.first = func() { checkClosed(t, up[:i]...) }
			}
			_ = c.Stream(s, OneByOne)
		}
		// A download is sent beside them.
		down := &script{name: "d", n: 4}
		_ = c.Stream(down, InTurns)
		w.expect("blocks0")
		var series, turns []string
		for range 10 {
			if r := w.next(); r.Name == "d" {
				turns = append(turns, r.short())
			} else {
				series = append(series, r.short())
				if len(turns)+1 < len(series) && len(turns) < 4 {
					t.Errorf("the download gets no turn: %v before %v", series, turns)
				}
			}
		}
		if got := strings.Join(series, " "); got != "u0 u1 u2 v0 v1 w0" {
			t.Errorf("uploads arrive as %s", got)
		}
		if got := strings.Join(turns, " "); got != "d0 d1 d2 d3" {
			t.Errorf("the download arrives as %s", got)
		}
		synctest.Wait()
		checkClosed(t, append(up, down)...)
	})
}

// TestMessagesPassStreams counts frames: an ordinary message waits for one
// message of a stream at most, however many streams there are.
func TestMessagesPassStreams(t *testing.T) {
	for _, lane := range []Lane{InTurns, OneByOne} {
		synctest.Test(t, func(t *testing.T) {
			c, w := blocked(t, Options{})
			for range 4 {
				_ = c.Stream(&script{name: "chunk", n: 20}, lane)
			}
			w.expect("blocks0")
			for i := range int64(15) {
				synctest.Wait() // a chunk is being written
				_ = c.Send(sendOf(c, "load", i))
				_ = c.Send(sendOf(c, "more", i))
				if r := w.next(); r.Name != "chunk" {
					t.Fatalf("%v overtakes the message being written", r)
				}
				w.expect(fmt.Sprintf("load%d", i), fmt.Sprintf("more%d", i))
				if r := w.next(); r.Name != "chunk" {
					t.Fatalf("%v instead of the next chunk", r)
				}
			}
		})
	}
}

// TestSlowReaderHoldsUpTheIterator counts steps: the next message is asked for
// only when the one before was written.
func TestSlowReaderHoldsUpTheIterator(t *testing.T) {
	for _, lane := range []Lane{InTurns, OneByOne} {
		synctest.Test(t, func(t *testing.T) {
			c, w := onPipe(t, Msgpack, Options{}, noCalls(t))
			s := &script{name: "chunk", n: 10}
			_ = c.Stream(s, lane)
			for k := range 10 {
				synctest.Wait()
				if made := s.made.Load(); int(made) != k+1 {
					t.Fatalf("%d messages were made when %d had been read", made, k)
				}
				w.expect(fmt.Sprintf("chunk%d", k))
			}
			synctest.Wait()
			checkClosed(t, s)
		})
	}
}

func TestPostBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := blocked(t, Options{})
		post := func(name string) {
			m := sendOf(c, name, 0)
			m.End()
			if err := c.PostBehind(m); err != nil {
				t.Error(err)
			}
		}
		down := &script{name: "d", n: 100}
		_ = c.Stream(down, InTurns)
		post("early")
		_ = c.Stream(&script{name: "u", n: 2}, OneByOne)
		post("vote")
		_ = c.Stream(&script{name: "v", n: 2}, OneByOne)
		post("abort")
		_ = c.Send(sendOf(c, "ordinary", 0))
		var got []string
		for len(got) < 9 {
			if r := w.next(); r.Name != "d" {
				got = append(got, r.short())
			}
		}
		want := "blocks0 ordinary0 early0 u0 u1 vote0 v0 v1 abort0"
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s, want %s", s, want)
		}
		if down.closed.Load() != 0 {
			t.Error("messages behind uploads waited for the download")
		}
	})
}

// sleeper is a script that is not ready until it is told so. Its signal may
// come at the worst moment: while Next answers.
type sleeper struct {
	script
	ready  atomic.Int64 // how many messages are ready
	atOnce bool
	wake   func()
}

func (s *sleeper) SetWake(wake func()) { s.wake = wake }

func (s *sleeper) Next(m *Message) error {
	if s.made.Load() >= s.ready.Load() {
		if s.atOnce {
			s.ready.Add(1)
			s.wake()
		}
		return ErrNotReady
	}
	return s.script.Next(m)
}

func TestStreamsThatAreNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := onPipe(t, Pickle, Options{}, noCalls(t))
		slow := &sleeper{script: script{name: "slow", n: 3}}
		up := &sleeper{script: script{name: "up", n: 1}}
		_ = c.Stream(slow, InTurns)
		_ = c.Stream(up, OneByOne)
		behind := &script{name: "behind", n: 1}
		_ = c.Stream(behind, OneByOne)
		// Others go on meanwhile, in order; only what is in series waits.
		_ = c.Stream(&script{name: "quick", n: 3}, InTurns)
		w.expect("quick0", "quick1", "quick2")
		synctest.Wait()
		if behind.made.Load() > 0 {
			t.Error("an upload overtook one that was not ready")
		}
		slow.ready.Store(1)
		slow.wake()
		slow.wake() // more often than needed
		w.expect("slow0")
		synctest.Wait()
		up.ready.Store(9)
		up.wake()
		w.expect("up0", "behind0")
		slow.ready.Store(9)
		slow.wake()
		w.expect("slow1", "slow2")
		// Woken while it says that it is not ready.
		restless := &sleeper{script: script{name: "restless", n: 4}, atOnce: true}
		_ = c.Stream(restless, InTurns)
		w.expect("restless0", "restless1", "restless2", "restless3")
		synctest.Wait()
		checkClosed(t, &slow.script, &up.script, behind, &restless.script)
		slow.wake() // after its end
	})
}

func TestIteratorErrorEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := blocked(t, Options{})
		var all []*script
		for i := range 12 {
			s := &script{name: fmt.Sprintf("s%d.", i), n: 5}
			lane := InTurns
			if i >= 10 {
				lane = OneByOne
			}
			if i == 2 {
				s.n, s.err = 1, errTest
			}
			all = append(all, s)
			_ = c.Stream(s, lane)
		}
		parked := &sleeper{script: script{name: "parked"}}
		_ = c.Stream(parked, OneByOne)
		for {
			if r, err := w.read(); err != nil {
				break
			} else if r.Name == "s2.1" {
				t.Error("the stream went on after its error")
			}
		}
		c.Close()
		if c.Err() != errTest {
			t.Errorf("ended for %v", c.Err())
		}
		checkClosed(t, append(all, &parked.script)...)
		// A stream that comes too late is closed at once.
		late := &script{name: "late", n: 1}
		if err := c.Stream(late, InTurns); err != errTest {
			t.Errorf("late stream: %v", err)
		}
		m := sendOf(c, "late", 1)
		m.End()
		if err := c.PostBehind(m); err != errTest {
			t.Errorf("late message: %v", err)
		}
		checkClosed(t, late)
		if late.made.Load() != 0 {
			t.Error("a late stream was asked for a message")
		}
	})
}

func TestEndClosesStreams(t *testing.T) {
	for _, end := range []func(*Conn, *wire){
		func(c *Conn, _ *wire) { c.End(errTest) },
		func(_ *Conn, w *wire) { w.nc.Close() },
		func(c *Conn, _ *wire) { c.Close() },
		func(c *Conn, _ *wire) { c.Drain(time.Now().Add(time.Second)) }, // nobody reads
	} {
		for reads := range 4 {
			synctest.Test(t, func(t *testing.T) {
				c, w := blocked(t, Options{})
				var all []*script
				for i := range 10 {
					all = append(all, &script{name: fmt.Sprintf("s%d.", i), n: 2})
					_ = c.Stream(all[i], Lane(i%2))
				}
				for range reads {
					w.next()
				}
				end(c, w)
				c.Close()
				checkClosed(t, all...)
			})
		}
	}
}

// TestStreamsRaceWithTheEnd queues streams while the connection ends: none may
// be forgotten.
func TestStreamsRaceWithTheEnd(t *testing.T) {
	noLeaks(t)
	for i := range 300 {
		a, b := net.Pipe()
		c := NewConn(a, Pickle, Options{})
		c.Start(noCalls(t))
		var wg sync.WaitGroup
		all := make([]*script, 20)
		wg.Go(func() {
			for k := range all {
				all[k] = &script{name: "s", n: 3}
				if i%3 == 0 && k == 5 {
					all[k].err = errTest
				}
				_ = c.Stream(all[k], Lane(k%2))
			}
		})
		wg.Go(func() {
			w := &wire{t, b, Pickle}
			for k := range i % 20 {
				if _, err := w.read(); err != nil && i%3 != 0 {
					t.Errorf("read %d: %v", k, err)
					break
				}
			}
			b.Close()
		})
		wg.Wait()
		c.Close()
		checkClosed(t, all...)
	}
}

func TestWaitRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := blocked(t, Options{})
		if err := c.WaitRoom(context.Background(), c.Queued()+1); err != nil {
			t.Errorf("there is room: %v", err)
		}
		results := make(chan error, 3)
		wait := func(ctx context.Context, n int) { go func() { results <- c.WaitRoom(ctx, n) }() }
		ctx, cancel := context.WithCancel(context.Background())
		wait(ctx, 1)
		wait(context.Background(), 1)
		synctest.Wait()
		cancel()
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		synctest.Wait()
		if len(results) > 0 {
			t.Fatal("there is room before anything was read")
		}
		w.expect("blocks0")
		if err := <-results; err != nil {
			t.Errorf("after all was read: %v", err)
		}
		_ = c.Send(sendOf(c, "blocks", 1))
		wait(context.Background(), 1)
		synctest.Wait()
		c.End(errTest)
		if err := <-results; err != errTest {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestDrain(t *testing.T) {
	everywhere(t, func(t *testing.T, enc Encoding, network string) {
		na, nb := link(t, network)
		c := NewConn(na, enc, Options{})
		c.Start(noCalls(t))
		w := &wire{t, nb, enc}
		var all []*script
		for i := range 10 {
			all = append(all, &script{name: "s", n: 5})
			_ = c.Stream(all[i], Lane(i%2))
		}
		for i := range int64(5) {
			_ = c.Send(sendOf(c, "m", i))
		}
		drained := make(chan struct{})
		go func() {
			c.Drain(time.Now().Add(time.Minute))
			close(drained)
		}()
		count := map[string]int{}
		for {
			r, err := w.read()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("the end looks like %v", err)
				}
				break
			}
			count[r.Name]++
		}
		<-drained
		if count["s"] != 50 || count["m"] != 5 {
			t.Errorf("arrived: %v", count)
		}
		if c.Err() != ErrClosed {
			t.Errorf("ended for %v", c.Err())
		}
		checkClosed(t, all...)
		nb.Close()
	})
}

// TestDrainDeadline drains to a peer that does not read, and a stream that is
// never ready.
func TestDrainDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := blocked(t, Options{})
		start := time.Now()
		c.Drain(start.Add(time.Minute))
		if d := time.Since(start); d != time.Minute {
			t.Errorf("a peer that does not read: ended after %v", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c, _ := onPipe(t, Pickle, Options{}, noCalls(t))
		s := &sleeper{script: script{name: "s", n: 1}}
		_ = c.Stream(s, InTurns)
		start := time.Now()
		c.Drain(start.Add(time.Minute))
		if d := time.Since(start); d != time.Minute {
			t.Errorf("a stream that is not ready: ended after %v", d)
		}
		checkClosed(t, &s.script)
	})
}
