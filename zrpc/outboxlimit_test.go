package zrpc

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestOutboxLimit(t *testing.T) {
	frame, err := Frame(Pickle, "frame", func(e *Encoder) { e.Tuple(1); e.Int(0); e.EndTuple(1) })
	if err != nil {
		t.Fatal(err)
	}
	for name, post := range map[string]func(c *Conn) error{
		"message": func(c *Conn) error { return c.Send(sendOf(c, "frame", 0)) },
		"frame":   func(c *Conn) error { return c.PostFrame(frame) },
		"gated": func(c *Conn) error {
			m := sendOf(c, "frame", 0)
			m.End()
			c.PostIf(m, new(atomic.Uint64), 0)
			return c.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const fits = 5
				c, w := onPipe(t, Pickle, Options{OutboxLimit: fits * len(frame)}, noCalls(t))
				for round := range 3 {
					for i := range fits {
						if err := post(c); err != nil {
							t.Fatalf("round %d, message %d: %v", round, i, err)
						}
					}
					for range fits {
						w.expect("frame0")
					}
					synctest.Wait()
					if c.Queued() != 0 {
						t.Errorf("%d bytes are queued after all was read", c.Queued())
					}
				}
				for range fits {
					_ = post(c)
				}
				if c.Err() != nil {
					t.Fatalf("ended within the limit: %v", c.Err())
				}
				if err := post(c); err != ErrSlowPeer {
					t.Errorf("beyond the limit: %v", err)
				}
				<-c.Done()
				if c.Err() != ErrSlowPeer {
					t.Errorf("ended for %v", c.Err())
				}
			})
		})
	}
	// A single message may be larger than the limit.
	synctest.Test(t, func(t *testing.T) {
		c, w := onPipe(t, Pickle, Options{OutboxLimit: 10}, noCalls(t))
		for range 3 {
			if err := c.PostFrame(frame); err != nil {
				t.Fatal(err)
			}
			w.expect("frame0")
			synctest.Wait()
		}
	})
}

// TestOutboxLimitWithReplies has replies and frames wait together: only the frames
// have a limit.
func TestOutboxLimitWithReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		frame, err := Frame(Pickle, "frame", func(e *Encoder) { e.Tuple(1); e.Int(0); e.EndTuple(1) })
		if err != nil {
			t.Fatal(err)
		}
		const fits = 3
		var calls []*Call
		c, w := onPipe(t, Pickle, Options{OutboxLimit: fits * len(frame)}, handlerFunc(func(call *Call) { calls = append(calls, call) }))
		for round := range 2 {
			for id := range int64(fits) {
				w.write(w.call(id+1, "load"))
			}
			synctest.Wait()
			for i, call := range calls {
				m := call.BeginReply()
				m.BytesBody(Body{Bytes: make([]byte, (2-i)*joinLimit+100)}) // the last is joined with what follows
				call.SendReply(m)
				if err := c.PostFrame(frame); err != nil {
					t.Fatalf("round %d: a frame behind replies: %v", round, err)
				}
			}
			for i := range calls {
				if got := w.next(); got.ID != Value(int64(i+1)) {
					t.Errorf("round %d: reply %d is %v", round, i+1, got.ID)
				}
				w.expect("frame0")
			}
			calls = nil
			synctest.Wait()
			if c.Queued() != 0 || c.out.unasked != 0 {
				t.Errorf("round %d: %d bytes are queued after all was read, %d of them unasked", round, c.Queued(), c.out.unasked)
			}
		}
		for range fits {
			_ = c.PostFrame(frame)
		}
		if c.Err() != nil {
			t.Fatalf("ended within the limit: %v", c.Err())
		}
		if err := c.PostFrame(frame); err != ErrSlowPeer {
			t.Errorf("beyond the limit: %v", err)
		}
	})
}

// holder is a stream that holds memory.
type holder struct{ *script }

func (holder) Held() int { return 100_000 }

func TestWhatStreamsHoldCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := blocked(t, Options{})
		before := c.Queued()
		if err := c.Stream(holder{&script{name: "s", n: 1}}, InTurns); err != nil {
			t.Fatal(err)
		}
		if got := c.Queued() - before; got < 100_000 {
			t.Errorf("the stream counts for %d bytes", got)
		}
		w.expect("blocks0", "s0")
		synctest.Wait()
		if c.Queued() != 0 {
			t.Errorf("%d bytes are queued after all was read", c.Queued())
		}
	})
}
