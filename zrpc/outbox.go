package zrpc

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
)

// MessageIterator makes the messages of a stream, one at a time: a blob, as a
// rule. Its methods are called by the connection's writing goroutine only; but
// if the connection has ended already, Close by Conn.Stream.
type MessageIterator interface {
	// Next puts the next message into m, which is empty. It is called only
	// when the message before was written, or said JoinNext. io.EOF says that
	// there are no more; ErrNotReady, that the iterator will call its wake
	// function when there is. Any other error ends the connection: what was
	// sent already cannot be taken back.
	Next(m *Message) error

	// Close releases what the iterator holds. It is called exactly once,
	// after the last Next, also if Next was never called.
	Close()
}

// Waker is a MessageIterator whose Next may answer ErrNotReady.
type Waker interface {
	// SetWake is called once, before the first Next. wake may be called
	// from any goroutine, and more often than needed.
	SetWake(wake func())
}

// FileIterator is a MessageIterator whose messages have bodies in files.
type FileIterator interface {
	// Unreadable is told why the body of the last message could not be read. It
	// returns why the connection ends: with this error, in words that say whose
	// file it is.
	Unreadable(err error) error
}

// ErrNotReady is what Next answers when the next message is still being made.
var ErrNotReady = errors.New("zrpc: next message of the stream is not ready")

// Lane says how streams of one connection get along with each other.
type Lane uint8

const (
	// InTurns streams are sent side by side, a message of each in turn.
	// Their messages must say what they belong to.
	InTurns Lane = iota
	// OneByOne streams are sent one after another, in the order in which
	// they were queued.
	OneByOne
)

// maxTurns is how many InTurns streams are under way at once on a connection;
// more wait. It bounds the files and chunks that one client keeps open.
const maxTurns = 8

// streamCost is what a queued stream counts for in the outbox's bytes, with what
// it holds, so that a client cannot queue streams without end.
const streamCost = 1 << 10

// Weighty is a MessageIterator that keeps memory while it is queued, as the call
// that it answers.
type Weighty interface {
	// Held returns how many bytes that are, before the first Next.
	Held() int
}

// joinLimit is the size up to which messages are copied together into one
// buffer for writing; larger ones are written from where they are.
const joinLimit = 24 << 10

// holdLimit is how many bytes wait for a flush at the most.
const holdLimit = 64 << 10

type stream struct {
	it     MessageIterator
	cost   int
	parked bool // Next said ErrNotReady
	woken  bool // wake was called since Next was
}

// outbox holds what a connection has to send. Any goroutine may put into it; the
// writing goroutine takes from it, or one in push (push.go).
type outbox struct {
	sent atomic.Int64 // bytes that were given to the connection
	took atomic.Int64 // bytes that the peer's side took, of batches that are long under way

	mu    sync.Mutex
	more  sync.Cond // for the writer: something to send
	room  sync.Cond // for others: less is queued, or all is over
	ended bool
	// finishing ends the outbox once all that is queued was taken.
	finishing bool
	// writing and flushing say that the writing goroutine, or another one in
	// push, has taken something and writes it: never both.
	writing, flushing bool
	// held leaves ordinary messages waiting for a flush, so that replies to
	// calls that came together leave together.
	held bool

	// Ordinary messages, encoded: joined holds small ones back to back and
	// is the last element of parts while it grows.
	parts  []part
	queued int // bytes of ordinary messages not yet written, and of queued streams
	// unasked are those of queued that are no replies. They have a limit; replies
	// have none here: whoever reads or runs calls waits for room (waitBelow).
	unasked, limit int
	posted         int64
	taken          int64 // the messages that the writer has taken, of those posted

	turns   []*stream // InTurns, under way
	waiting []*stream // InTurns, not yet under way
	series  []*stream // OneByOne; only the first is under way
	next    int       // whose turn it is
}

// part is a piece of the queue: a buffer of joined messages, one message, or
// the bytes of one that several connections share.
type part struct {
	joined  *Buffer
	m       *Message
	shared  []byte
	unasked int // bytes that are no replies
}

func (o *outbox) init(limit int) {
	o.more.L, o.room.L = &o.mu, &o.mu
	o.limit = limit
}

// put queues an ordinary message. It answers the message's number, counted
// from 1; it fails if the outbox has ended or is full. m is consumed anyway.
func (o *outbox) put(m *Message) (int64, error) {
	m.seal()
	o.mu.Lock()
	defer o.mu.Unlock()
	number, err := o.add(m)
	o.signal()
	return number, err
}

var errOutboxEnded = errors.New("outbox has ended")

// add queues an ordinary message, and tells nobody.
func (o *outbox) add(m *Message) (int64, error) {
	n, unasked := m.size(), 0
	if !m.reply {
		unasked = n
	}
	if err := o.admit(n, unasked); err != nil {
		m.free()
		return 0, err
	}
	if n <= joinLimit && m.body.File == nil {
		p := o.joinable(n)
		p.joined.B = append(append(append(p.joined.B, m.head()...), m.body.Bytes...), m.tail()...)
		p.unasked += unasked
		m.free()
	} else {
		o.parts = append(o.parts, part{m: m, unasked: unasked})
	}
	return o.posted, nil
}

// admit counts an ordinary message of n bytes, or refuses it.
func (o *outbox) admit(n, unasked int) error {
	if o.ended {
		return errOutboxEnded
	}
	// One is always taken when no other waits, whatever its size.
	if unasked > 0 && o.unasked > 0 && o.unasked+unasked > o.limit {
		return ErrSlowPeer
	}
	o.queued += n
	o.unasked += unasked
	o.posted++
	return nil
}

// signal tells the writing goroutine that an ordinary message waits. Whoever
// writes looks again before it stops, and needs no telling.
func (o *outbox) signal() {
	if o.writing || o.flushing || o.held && o.queued <= holdLimit {
		return
	}
	o.more.Signal()
}

// putFrame queues a frame that is encoded already and that nobody changes.
func (o *outbox) putFrame(frame []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(frame)
	if err := o.admit(n, n); err != nil {
		return err
	}
	if n <= joinLimit {
		p := o.joinable(n)
		p.joined.B = append(p.joined.B, frame...)
		p.unasked += n
	} else {
		o.parts = append(o.parts, part{shared: frame, unasked: n})
	}
	o.signal()
	return nil
}

// joinable returns the part at the end of the queue, with a buffer that has room
// for n bytes.
func (o *outbox) joinable(n int) *part {
	if k := len(o.parts); k > 0 {
		if last := &o.parts[k-1]; last.joined != nil && len(last.joined.B)+n <= cap(last.joined.B) {
			return last
		}
	}
	// The first buffer is small, since mostly one message waits; those behind it
	// are large, since then a burst is under way.
	size := n
	if len(o.parts) > 0 || o.held {
		size = holdLimit
	}
	b := GetBuffer(size)
	b.B = b.B[:0]
	o.parts = append(o.parts, part{joined: b})
	return &o.parts[len(o.parts)-1]
}

// stream queues a stream. If the outbox has ended the iterator is closed.
func (o *outbox) stream(it MessageIterator, lane Lane) bool {
	st := &stream{it: it, cost: streamCost}
	if w, ok := it.(Weighty); ok {
		st.cost += w.Held()
	}
	if w, ok := it.(Waker); ok {
		w.SetWake(func() { o.wake(st) })
	}
	o.mu.Lock()
	if o.ended {
		o.mu.Unlock()
		it.Close()
		return false
	}
	o.queued += st.cost
	switch {
	case lane == OneByOne:
		o.series = append(o.series, st)
	case len(o.turns) < maxTurns:
		o.turns = append(o.turns, st)
	default:
		o.waiting = append(o.waiting, st)
	}
	o.more.Signal()
	o.mu.Unlock()
	return true
}

func (o *outbox) wake(st *stream) {
	o.mu.Lock()
	st.woken, st.parked = true, false
	o.more.Signal()
	o.mu.Unlock()
}

// take waits for something to send: all ordinary messages that wait, and the
// stream whose turn it is. False means that the outbox has ended.
func (o *outbox) take(parts []part) ([]part, *stream, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writing = false
	for !o.ended {
		if o.flushing {
			o.more.Wait()
			continue
		}
		st := o.nextStream()
		if len(o.parts) > 0 || st != nil {
			parts = append(parts[:0], o.parts...)
			clear(o.parts)
			o.parts = o.parts[:0]
			o.taken = o.posted
			o.writing = true
			return parts, st, true
		}
		if o.finishing && len(o.turns)+len(o.series) == 0 {
			break
		}
		o.more.Wait()
		if len(o.turns)+len(o.series) == 0 && !o.ended {
			// Let others that are ready to run go first: they may have more to
			// post, or push what there is.
			o.mu.Unlock()
			runtime.Gosched()
			o.mu.Lock()
		}
	}
	return parts[:0], nil, false
}

// ready says whether take would find something at once. It is for the writing
// goroutine, since nobody else can make it false.
func (o *outbox) ready() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended || len(o.parts) > 0 {
		return true
	}
	for k := range o.turns {
		if !o.turns[k].parked {
			return true
		}
	}
	return len(o.series) > 0 && !o.series[0].parked
}

// nextStream picks a stream that is ready, taking turns.
func (o *outbox) nextStream() *stream {
	n := len(o.turns)
	if len(o.series) > 0 {
		n++
	}
	for i := range n {
		k := (o.next + i) % n
		st := o.at(k)
		if !st.parked {
			o.next = k + 1
			st.woken = false
			return st
		}
	}
	return nil
}

// at numbers the streams under way: those in turns, then the one in series.
func (o *outbox) at(k int) *stream {
	if k < len(o.turns) {
		return o.turns[k]
	}
	return o.series[0]
}

// park marks a stream as not ready, unless it was woken since.
func (o *outbox) park(st *stream) {
	o.mu.Lock()
	st.parked = !st.woken
	o.mu.Unlock()
}

// remove forgets a stream that has ended and lets the next one start.
func (o *outbox) remove(st *stream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.series) > 0 && o.series[0] == st {
		o.series = append(o.series[:0], o.series[1:]...)
	}
	for i, other := range o.turns {
		if other == st {
			o.turns = append(o.turns[:i], o.turns[i+1:]...)
			if i < o.next {
				o.next-- // or the stream behind it would miss a turn
			}
			if len(o.waiting) > 0 {
				o.turns = append(o.turns, o.waiting[0])
				o.waiting = append(o.waiting[:0], o.waiting[1:]...)
			}
			break
		}
	}
	o.wroteLocked(st.cost, 0)
}

// wrote counts n bytes as sent, some of them unasked.
func (o *outbox) wrote(n, unasked int) {
	o.mu.Lock()
	o.wroteLocked(n, unasked)
	o.mu.Unlock()
}

func (o *outbox) wroteLocked(n, unasked int) {
	o.queued -= n
	o.unasked -= unasked
	o.room.Broadcast()
}

// waitBelow blocks until fewer than n bytes are queued, the context ends, or all
// is over.
func (o *outbox) waitBelow(ctx context.Context, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.queued < n || o.ended {
		return // mostly, and the context need not be told
	}
	defer context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.room.Broadcast()
	})()
	for o.queued >= n && !o.ended && ctx.Err() == nil {
		o.more.Signal() // it may be held
		o.room.Wait()
	}
}

// wasTaken tells whether the writer has taken the message of that number.
func (o *outbox) wasTaken(number int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return number <= o.taken
}

// end makes the outbox refuse everything from now on.
func (o *outbox) end() {
	o.mu.Lock()
	o.ended = true
	o.more.Broadcast()
	o.room.Broadcast()
	o.mu.Unlock()
}

// finish makes the outbox end when it is empty.
func (o *outbox) finish() {
	o.mu.Lock()
	o.finishing = true
	o.more.Broadcast()
	o.mu.Unlock()
}

// drop gives back what is still queued and refuses the rest, so that no stream
// is forgotten. Only the writing goroutine calls it, at its end.
func (o *outbox) drop() {
	o.mu.Lock()
	o.ended = true
	streams := append(append(o.turns, o.series...), o.waiting...)
	parts := o.parts
	o.turns, o.series, o.waiting, o.parts = nil, nil, nil, nil
	o.mu.Unlock()
	for _, p := range parts {
		p.free()
	}
	for _, st := range streams {
		st.it.Close()
	}
}

func (p part) free() {
	if p.m != nil {
		p.m.free()
	}
	p.joined.Release()
}
