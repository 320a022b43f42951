package zrpc

import "runtime"

// lookAfter is how many bytes of streams are sent before others have their turn.
const lookAfter = 256 << 10

// rest is called when n bytes of a stream were sent, and lets others have the
// processor: threads, and every now and then goroutines. A stream whose peer is
// fast never blocks, and while it runs nothing makes Go's scheduler look at the
// network, not even on an idle processor: a call on another connection was
// noticed after 10 to 20 ms. Gosched wakes a thread that looks.
func (w *writer) rest(n int) {
	if w.flow += n; w.flow >= lookAfter {
		w.flow = 0
		runtime.Gosched()
	}
	yield()
}
