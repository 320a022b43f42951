package zrpc

import (
	"bytes"
	"sync"
	"testing"
	"testing/synctest"
)

// TestHold answers calls by a handler that holds, while others post messages.
// The peer reads nothing until many calls were sent, so that writes of the
// reading goroutine come to nothing or to a part, and the writing goroutine
// takes over. All replies must arrive, whole and in order.
func TestHold(t *testing.T) {
	const calls = 300
	content := pattern(30 << 10)
	size := func(id int64) int { return int(id*7919) % len(content) }
	everywhere(t, func(t *testing.T, enc Encoding, network string) {
		na, nb := link(t, network)
		c := NewConn(na, enc, Options{PauseReads: 20 << 10})
		flushed := 0
		c.Start(handlerFunc(func(call *Call) {
			c.Hold()
			if flushed++; flushed%17 == 0 {
				c.Flush() // as a handler does that may block
			}
			m := call.BeginReply()
			m.Bytes(content[:size(call.ID.num)])
			call.SendReply(m)
		}))
		w := &wire{t, nb, enc}
		var others sync.WaitGroup
		defer others.Wait()
		defer c.Close()
		defer nb.Close()
		done := make(chan struct{})
		defer close(done)
		others.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				m := c.BeginSend("news")
				m.Bytes(content[:1000])
				_ = c.Send(m)
				_ = c.WaitRoom(t.Context(), 10<<10)
			}
		})
		var batch []byte
		for i := range int64(calls) {
			payload := w.call(i, "load")
			batch = append(AppendFrameHeader(batch, len(payload)), payload...)
		}
		others.Go(func() {
			_, _ = nb.Write(batch)
		})
		for i := int64(0); i < calls; {
			r := w.next()
			got, _ := r.Args.([]byte)
			if r.Name == "news" {
				if !bytes.Equal(got, content[:1000]) {
					t.Fatalf("news of %d bytes, want 1000", len(got))
				}
				continue
			}
			if r.ID != Value(i) || !bytes.Equal(got, content[:size(i)]) {
				t.Fatalf("reply %v of %d bytes, want %d of %d", r.ID, len(got), i, size(i))
			}
			i++
		}
	})
}

// TestFlushIsAlone has the writing goroutine come to its first message while
// the reading one still writes what it flushed: it must wait.
func TestFlushIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o outbox
		o.init(1 << 20)
		o.flushing = true // as flush does while it writes
		if err := o.putFrame([]byte("later")); err != nil {
			t.Fatal(err)
		}
		taken := false
		go func() {
			o.take(nil)
			taken = true
		}()
		synctest.Wait()
		if taken {
			t.Error("a message was taken while another was being written")
		}
		o.mu.Lock()
		o.flushing = false
		o.more.Signal()
		o.mu.Unlock()
		synctest.Wait()
		if !taken {
			t.Error("the message was not taken")
		}
	})
}
