package zrpc

import (
	"bytes"
	"sync"
	"testing"
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
		defer c.Close()
		defer nb.Close()
		w := &wire{t, nb, enc}
		var others sync.WaitGroup
		defer others.Wait()
		others.Go(func() {
			for range calls {
				m := c.BeginSend("news")
				m.Tuple(0)
				m.EndTuple(0)
				if err := c.Send(m); err != nil {
					t.Error(err)
				}
			}
		})
		var batch []byte
		for i := range int64(calls) {
			payload := w.call(i, "load")
			batch = append(AppendFrameHeader(batch, len(payload)), payload...)
		}
		others.Go(func() {
			if _, err := nb.Write(batch); err != nil {
				t.Error(err)
			}
		})
		news := 0
		for i := int64(0); i < calls || news < calls; {
			r := w.next()
			if r.Name == "news" {
				news++
				continue
			}
			got, _ := r.Args.([]byte)
			if r.ID != Value(i) || !bytes.Equal(got, content[:size(i)]) {
				t.Fatalf("reply %v of %d bytes, want %d of %d", r.ID, len(got), i, size(i))
			}
			i++
		}
	})
}
