package zrpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of Options.
const (
	DefaultMaxFrame    = 1 << 20
	DefaultOutboxLimit = 64 << 20
	DefaultNotSent     = 64 << 10
)

// Options are the settings of a connection. The zero value means defaults.
type Options struct {
	// MaxFrame is the largest payload in bytes that is accepted, of messages
	// for which FrameLimit does not say otherwise.
	MaxFrame int
	// FrameLimit, if set, gives the largest payload of messages that carry
	// bulk data, by name; 0 means MaxFrame. Replies are named ".reply".
	FrameLimit func(name []byte) int
	// MaxBulk, if not 0, is the largest payload that FrameLimit may allow: a
	// larger one is refused before its name has arrived.
	MaxBulk int
	// Limits bound the general values in messages.
	Limits Limits
	// OutboxLimit is how many bytes of ordinary messages that are no replies may
	// wait for a peer that does not read; one more ends the connection with
	// ErrSlowPeer. What bounds replies is PauseReads, and that a handler which
	// keeps calls for later waits for room before it runs one (WaitRoom).
	OutboxLimit int
	// PauseReads, if not 0, stops reading while at least so many bytes wait
	// to be sent: the peer gets no more work done than it takes results. A
	// client must not set it, since both ends would wait for each other.
	PauseReads int
	// Excepted, if set, is called for each call that is answered with an
	// exception, or would be, if it is one-way.
	Excepted func(call *Call)
	// Ended, if set, is called in a goroutine of its own when the connection
	// has ended. It saves one that waits for Done.
	Ended func()
	// KeepAlive, if not 0, is how often a keep-alive message is sent.
	KeepAlive time.Duration
	// NotSent is how many unsent bytes the kernel may hold for a TCP
	// connection (TCP_NOTSENT_LOWAT, where there is one); negative: no limit,
	// nor one of what is under way to a peer that is near.
	NotSent int
}

// readBuffer is the size in bytes of what every connection has to read into, so
// it counts with many that are idle. A burst of calls fits, and what is larger
// than it is read to where it belongs.
const readBuffer = 2 << 10

func (opt Options) withDefaults() Options {
	if opt.MaxFrame == 0 {
		opt.MaxFrame = DefaultMaxFrame
	}
	if opt.OutboxLimit == 0 {
		opt.OutboxLimit = DefaultOutboxLimit
	}
	if opt.NotSent == 0 {
		opt.NotSent = DefaultNotSent
	}
	return opt
}

// Handler receives the calls of a connection. HandleCall is called by the
// reading goroutine, for one call after another; nothing else is read until it
// returns. The Call becomes the handler's. A handler that answers before it
// returns may call Conn.Hold first; one that may have to wait calls Conn.MayBlock.
type Handler interface {
	HandleCall(call *Call)
}

// Conn is one ZEO connection after its handshake. It is safe for concurrent
// use. It ends once, for one reason, which Err tells from then on.
type Conn struct {
	nc  net.Conn
	enc Encoding
	opt Options
	out outbox
	in  *bufio.Reader
	h   Handler

	near    bool          // boundSendBuffer says so
	holding bool          // belongs to the reading goroutine: out is held
	relief  relief        // of the reading goroutine
	direct  *directWriter // belongs to out; nil if only the writing goroutine can write
	below   *belowTLS     // nil without TLS

	done       chan struct{} // closed when the connection ends
	goroutines sync.WaitGroup

	// spare has calls to be used again, *Pending. It is the connection's own
	// for the sake of package synctest: channels do not leave their bubble.
	spare sync.Pool

	mu      sync.Mutex
	err     error
	lastID  int64
	pending map[int64]*Pending
	frame   atomic.Int64 // MaxFrame and MaxBulk, which may change
	bulk    atomic.Int64

	arrived atomic.Int64 // bytes
}

// arrivals is what arrives on a connection, counted.
type arrivals Conn

func (a *arrivals) Read(b []byte) (int, error) {
	n, err := a.nc.Read(b)
	a.arrived.Add(int64(n))
	return n, err
}

// NewConn makes a connection of one whose handshake is done. Start starts it.
func NewConn(nc net.Conn, enc Encoding, opt Options) *Conn {
	opt = opt.withDefaults()
	c := &Conn{
		nc:      nc,
		enc:     enc,
		opt:     opt,
		done:    make(chan struct{}),
		pending: map[int64]*Pending{},
		below:   under(nc),
	}
	c.in = bufio.NewReaderSize((*arrivals)(c), readBuffer)
	c.SetMaxFrame(opt.MaxFrame, opt.MaxBulk)
	c.out.init(opt.OutboxLimit)
	c.direct = newDirectWriter(nc)
	if opt.NotSent > 0 {
		setNotSentLowat(nc, opt.NotSent)
		c.near = boundSendBuffer(nc)
	}
	return c
}

// Start begins to read and write. It is called once.
func (c *Conn) Start(h Handler) {
	c.h = h
	c.goroutines.Go(func() {
		w := &writer{nc: c.nc, out: &c.out, enc: c.enc, files: newFileSender(c.nc), below: c.below}
		w.near = c.near && w.files != nil
		err := w.run()
		if err == nil {
			err = ErrClosed
		}
		c.End(err)
		c.out.drop()
	})
	c.goroutines.Go(func() { c.read(0) })
	if c.opt.KeepAlive > 0 {
		c.goroutines.Go(c.keepAlive)
	}
}

// Encoding returns the encoding that the handshake chose.
func (c *Conn) Encoding() Encoding { return c.enc }

// RemoteAddr returns the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Heard returns a number that grows while the peer is there: with what arrives,
// also of a message that is not complete yet, and with what it takes of a batch
// of messages that is long under way.
func (c *Conn) Heard() int64 { return c.arrived.Load() + c.out.took.Load() }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended, nil while it has not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// SetMaxFrame changes Options.MaxFrame and MaxBulk: a server allows little
// before a client has registered.
func (c *Conn) SetMaxFrame(frame, bulk int) {
	c.frame.Store(int64(frame))
	c.bulk.Store(int64(bulk))
}

// End ends the connection for the given reason, at once: what is queued is not
// sent any more. Only the first call has an effect. It does not wait.
func (c *Conn) End(reason error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = reason
	pending := c.pending
	c.pending = nil
	c.mu.Unlock()

	c.out.end()
	close(c.done)
	for _, p := range pending {
		p.reply <- nil
	}
	if c.opt.Ended != nil {
		go c.opt.Ended()
	}
	// It may wait: for the disk that sendfile reads from, or until TLS has said
	// goodbye. Who reads the connection comes back when it is closed.
	go func() {
		c.below.abandon()
		c.nc.Close()
	}()
}

// Close ends the connection and waits until its goroutines are gone. It must
// not be called from a handler.
func (c *Conn) Close() error {
	c.End(ErrClosed)
	c.goroutines.Wait()
	return nil
}

// Drain sends what is queued, streams included, and then ends the connection;
// at the deadline it ends at once. It waits until the connection has ended.
func (c *Conn) Drain(deadline time.Time) {
	// A timer, since a stream that is not ready writes nothing.
	late := time.AfterFunc(time.Until(deadline), func() { c.End(ErrClosed) })
	defer late.Stop()
	c.out.finish()
	<-c.done
	c.goroutines.Wait()
}

// NewMessage returns an empty message of this connection's encoding. It must
// be passed to Post, or one of the other methods that send.
func (c *Conn) NewMessage() *Message { return newMessage(c.enc) }

// Post queues an ordinary message; it never waits. It fails if the connection
// has ended, or ends because the peer does not read.
func (c *Conn) Post(m *Message) error {
	_, err := c.out.put(m)
	return c.posted(err)
}

// PostFrame is Post for a frame that Frame made, in this connection's encoding.
func (c *Conn) PostFrame(frame []byte) error {
	return c.posted(c.out.putFrame(frame))
}

// PostIf is Post on the condition that gate still holds the value want. If it
// does not, the message is dropped and the result false. The condition is
// tested when the message takes its place in the queue, so whoever changes
// gate before it posts a message of its own knows that a message posted with
// the old value is in front.
func (c *Conn) PostIf(m *Message, gate *atomic.Uint64, want uint64) bool {
	posted, err := c.out.putIf(m, gate, want, c.direct)
	_ = c.posted(err)
	return posted
}

// postNow is Post that sends the message in the calling goroutine, if the
// socket takes it at once. It must not be called with a lock that others need.
func (c *Conn) postNow(m *Message) error { return c.posted(c.out.putNow(m, c.direct)) }

// Push sends what waits, as far as the socket takes it at once, in the calling
// goroutine. It follows Queue and Call.QueueReply, soon.
func (c *Conn) Push() { _ = c.posted(c.out.push(c.direct)) }

// Hold lets what is posted from now on wait until no further call is at hand,
// so that several replies leave in one write. Only a handler may call it, and
// must not block before Flush or its return.
func (c *Conn) Hold() {
	if !c.holding {
		c.holding = true
		c.out.hold()
	}
}

// Flush ends Hold. A handler that held before calls it when it may block.
func (c *Conn) Flush() {
	if c.holding {
		c.holding = false
		_ = c.posted(c.out.flush(c.direct))
	}
}

func (c *Conn) posted(err error) error {
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, errOutboxEnded): // the peer is slow, or the socket broken
		c.End(err)
		return err
	}
	if reason := c.Err(); reason != nil {
		return reason
	}
	return ErrClosed
}

// PostBehind queues a message behind all OneByOne streams that are queued
// already.
func (c *Conn) PostBehind(m *Message) error {
	if !c.out.stream(&single{m: m}, OneByOne) {
		return c.posted(errOutboxEnded)
	}
	return nil
}

// Stream queues a stream. The iterator is closed in any case, in the end.
func (c *Conn) Stream(it MessageIterator, lane Lane) error {
	if !c.out.stream(it, lane) {
		return c.posted(errOutboxEnded)
	}
	return nil
}

// WaitRoom blocks while n or more bytes wait to be sent, until the context or
// the connection ends.
func (c *Conn) WaitRoom(ctx context.Context, n int) error {
	c.out.waitBelow(ctx, n)
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.Err()
}

// Queued returns the bytes that wait to be sent.
func (c *Conn) Queued() int {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.queued
}

// Sent returns the bytes that were sent so far.
func (c *Conn) Sent() int64 { return c.out.sent.Load() }

// single is a stream of one message that exists already.
type single struct{ m *Message }

func (s *single) Next(m *Message) error {
	if s.m == nil {
		return io.EOF
	}
	*m, *s.m = *s.m, *m
	s.Close()
	return nil
}

func (s *single) Close() {
	if s.m != nil {
		s.m.free()
		s.m = nil
	}
}

// readAll reads messages until the connection ends, or another goroutine reads.
func (c *Conn) readAll(reader int64) error {
	for {
		if c.holding && !c.frameAtHand() {
			c.Flush()
		}
		if c.opt.PauseReads > 0 {
			c.out.waitBelow(context.Background(), c.opt.PauseReads)
		}
		buf, err := c.readFrame()
		if err != nil {
			return err
		}
		call := newCall(c, buf)
		if err := call.decodeHeader(c.opt.Limits); err != nil {
			call.Release()
			return &BadMessageError{Err: err}
		}
		switch {
		case call.ID.isKeepAlive():
			call.Release()
		case string(call.Name) == replyName:
			c.complete(call)
		default:
			c.h.HandleCall(call)
			if c.relief.reader.Load() != reader {
				return errRelieved
			}
		}
	}
}

// frameAtHand says whether readFrame would not block.
func (c *Conn) frameAtHand() bool {
	n := c.in.Buffered()
	if n < FrameHeaderLen {
		return false
	}
	header, _ := c.in.Peek(FrameHeaderLen)
	size, err := ParseFrameHeader(header, n-FrameHeaderLen)
	return err == nil && size <= n-FrameHeaderLen
}

// readFrame reads one payload. Nothing is allocated for one that is too large,
// and for a large one not before its bytes arrive.
func (c *Conn) readFrame() (*Buffer, error) {
	header, err := c.in.Peek(FrameHeaderLen)
	if err != nil {
		if len(header) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	n, err := c.frameSize(header)
	if err != nil {
		return nil, err
	}
	_, _ = c.in.Discard(FrameHeaderLen)
	const atOnce = 1 << 20
	buf := GetBuffer(min(n, atOnce))
	if _, err := io.ReadFull(c.in, buf.B); err != nil {
		buf.Release()
		return nil, unexpected(err)
	}
	for len(buf.B) < n {
		larger := GetBuffer(min(n, 4*len(buf.B)))
		k := copy(larger.B, buf.B)
		buf.Release()
		buf = larger
		if _, err := io.ReadFull(c.in, buf.B[k:]); err != nil {
			buf.Release()
			return nil, unexpected(err)
		}
	}
	return buf, nil
}

// frameSize checks the announced length against the limit of its message.
func (c *Conn) frameSize(header []byte) (int, error) {
	limit := int(c.frame.Load())
	n, err := ParseFrameHeader(header, limit)
	if err == nil {
		return n, nil
	}
	var tooLarge *FrameTooLargeError
	if !errors.As(err, &tooLarge) || c.opt.FrameLimit == nil {
		return 0, err
	}
	if bulk := c.bulk.Load(); bulk > 0 && int64(tooLarge.Size) > bulk {
		tooLarge.Limit = int(bulk)
		return 0, tooLarge
	}
	// The message's name, near its start, may allow more.
	size := FrameHeaderLen + min(int64(tooLarge.Size), 200)
	start, _ := c.in.Peek(int(size))
	call := Call{conn: c, buf: &Buffer{B: start[FrameHeaderLen:], class: -1}}
	if call.peekHeader(c.opt.Limits) != nil {
		return 0, err
	}
	if more := c.opt.FrameLimit(call.Name); more > limit {
		limit = more
	}
	// start begins with the header, which may lie elsewhere by now.
	n, err = ParseFrameHeader(start, limit)
	if errors.As(err, &tooLarge) {
		err = fmt.Errorf("message %q: %w", call.Name, err)
	}
	return n, err
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *Conn) keepAlive() {
	ticker := time.NewTicker(c.opt.KeepAlive)
	defer ticker.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-ticker.C:
			m := c.NewMessage()
			m.beginReply(MsgID{num: keepAliveID}, flagReply)
			m.Nil()
			m.End()
			_ = c.Post(m)
		}
	}
}
