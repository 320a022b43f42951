package zrpc

import (
	"context"
	"sync"
	"sync/atomic"
)

// Call is one received call. It belongs to the handler that received it, and
// after that to whoever the handler passes it to; one goroutine at a time. A
// Call is released exactly once, by Release or by sending its reply.
type Call struct {
	ID MsgID
	// Async calls are one-way: nobody waits for a reply.
	Async bool
	// Name is the method's name and aliases the received bytes.
	Name []byte
	// Args is placed at the arguments: the fourth item of the message.
	// After them, EndArgs checks that the message ends there.
	Args Decoder

	conn *Conn
	buf  *Buffer
}

var callPool = sync.Pool{New: func() any { return &Call{} }}

func newCall(c *Conn, buf *Buffer) *Call {
	call := callPool.Get().(*Call)
	call.conn, call.buf = c, buf
	return call
}

// Conn returns the connection that the call came from.
func (call *Call) Conn() *Conn { return call.conn }

// Size returns the number of bytes of the call's message.
func (call *Call) Size() int { return len(call.buf.B) }

// Release gives the call's memory back. Nothing decoded from it may be used
// any more.
func (call *Call) Release() {
	call.buf.Release()
	*call = Call{}
	callPool.Put(call)
}

// BeginReply returns a message to which the result is to be added.
func (call *Call) BeginReply() *Message {
	m := call.conn.NewMessage()
	m.beginReply(call.ID, flagReply)
	return m
}

// FillReply makes m, which is empty, the whole reply with the given value, and
// releases the call.
func (call *Call) FillReply(m *Message, v Value) {
	m.beginReply(call.ID, flagReply)
	m.Value(v)
	m.End()
	call.Release()
}

// SendReply completes and sends a reply, and releases the call. What the
// message refers to may be reused at once, but not its body. A one-way call
// gets no reply. It does not block; but it may write to the socket, so it is not
// to be called with a lock that others need.
func (call *Call) SendReply(m *Message) {
	if !call.replyReady(m) {
		return
	}
	_ = call.conn.postNow(m)
	call.Release()
}

// QueueReply is SendReply that only queues the reply, as Conn.Queue does.
func (call *Call) QueueReply(m *Message) {
	if !call.replyReady(m) {
		return
	}
	_ = call.conn.posted(call.conn.out.queue(m))
	call.Release()
}

// replyReady completes a reply. If there is nothing to send it answers false
// and the call is done with.
func (call *Call) replyReady(m *Message) bool {
	m.End()
	switch err := m.Err(); {
	case call.Async:
		m.free()
		call.Release()
		return false
	case err != nil:
		m.free()
		call.SendError("builtins.ValueError", Tuple{"Couldn't encode the response: " + err.Error()})
		return false
	}
	return true
}

// SendReplyIf is SendReply by PostIf. If it answers false, nothing was sent
// and the call is still to be answered.
func (call *Call) SendReplyIf(m *Message, gate *atomic.Uint64, want uint64) bool {
	if !call.replyReady(m) {
		return true
	}
	if !call.conn.PostIf(m, gate, want) {
		return false
	}
	call.Release()
	return true
}

// SendError raises an exception at the caller, and releases the call. An
// exception in a one-way call cannot be told; the connection ends with it,
// as in ZEO, since the caller's idea of its transaction is wrong from now on.
func (call *Call) SendError(class string, state Value) {
	if f := call.conn.opt.Excepted; f != nil {
		f(call)
	}
	if call.Async {
		call.conn.End(&OneWayError{Name: string(call.Name), Err: &RemoteError{Class: class, State: state}})
		call.Release()
		return
	}
	m := call.conn.NewMessage()
	m.beginReply(call.ID, flagError)
	m.Tuple(2)
	m.Str(class)
	m.Value(Plain(state)) // what the caller could not decode would leave it waiting for ever
	m.EndTuple(2)
	m.End()
	_ = call.conn.postNow(m)
	call.Release()
}

// Reply is what came back for a call: a value, or an exception. It belongs to
// the caller, who releases it once.
type Reply struct {
	// Exception says that the value describes an exception.
	Exception bool
	// Value is placed at the value: the fourth item of the message.
	Value Decoder
	buf   *Buffer
}

// Release gives the reply's memory back; nothing decoded from it may be used
// any more. Releasing is not required: what is kept instead goes to the
// garbage collector, with what was decoded from it.
func (r *Reply) Release() {
	r.buf.Release()
	r.buf = nil
}

// Err decodes an exception reply; nil if it is none.
func (r *Reply) Err() error {
	if !r.Exception {
		return nil
	}
	var v Value
	for {
		v = r.Value.Value()
		if !r.EndValue() {
			break
		}
	}
	if err := r.Value.Err(); err != nil {
		return &BadMessageError{Err: err}
	}
	if pair, _ := Sequence(v); len(pair) == 2 {
		if class, ok := pair[0].(string); ok {
			return &RemoteError{Class: class, State: pair[1]}
		}
	}
	return &RemoteError{Class: "unknown exception", State: Tuple{v}}
}

// Pending is a call on its way: made by BeginCall, ended by Await.
type Pending struct {
	// Hook, if set, is called with the reply by the reading goroutine, in
	// the order in which messages arrived, before AwaitHooked returns. It must be
	// quick; it may read the Value, of which nothing is left for others then.
	Hook func(*Reply)

	id    int64
	reply chan *Reply // capacity 1; nil means that the connection ended
}

// BeginCall returns a message to which the arguments are to be added, as one
// tuple, and the call it begins. Await must follow.
func (c *Conn) BeginCall(name string) (*Message, *Pending) {
	p, ok := c.spare.Get().(*Pending)
	if !ok {
		p = &Pending{reply: make(chan *Reply, 1)}
	}
	c.mu.Lock()
	c.lastID++
	p.id = c.lastID
	c.mu.Unlock()
	m := c.NewMessage()
	m.beginCall(MsgID{num: p.id}, false, name)
	return m, p
}

// Await sends the call and waits for its reply. An exception is returned as
// the error, a *RemoteError. If the connection ends first the error is a
// *ConnError. If the context ends first the late reply is dropped.
func (c *Conn) Await(ctx context.Context, m *Message, p *Pending) (*Reply, error) {
	r, err := c.await(ctx, m, p, false)
	return raised(r, err)
}

// AwaitHooked is Await for a call with a Hook, which looks at exceptions too:
// they are not returned as errors.
func (c *Conn) AwaitHooked(ctx context.Context, m *Message, p *Pending) (*Reply, error) {
	return c.await(ctx, m, p, false)
}

// AwaitBehind is Await for a call that must arrive behind the OneByOne streams
// that were queued before it.
func (c *Conn) AwaitBehind(ctx context.Context, m *Message, p *Pending) (*Reply, error) {
	r, err := c.await(ctx, m, p, true)
	return raised(r, err)
}

// raised turns an exception reply into an error.
func raised(r *Reply, err error) (*Reply, error) {
	if err != nil {
		return nil, err
	}
	if err := r.Err(); err != nil {
		// What the error holds aliases the reply, which is left to it.
		return nil, err
	}
	return r, nil
}

func (c *Conn) await(ctx context.Context, m *Message, p *Pending, behind bool) (*Reply, error) {
	m.End()
	if err := m.Err(); err != nil {
		m.free()
		return nil, err
	}
	c.mu.Lock()
	if c.err != nil {
		err := c.err
		c.mu.Unlock()
		m.free()
		return nil, &ConnError{Err: err}
	}
	c.pending[p.id] = p
	c.mu.Unlock()

	var number int64
	if behind {
		_ = c.PostBehind(m)
	} else {
		var err error
		number, err = c.out.put(m)
		_ = c.posted(err)
	}
	select {
	case r := <-p.reply:
		p.Hook = nil
		c.spare.Put(p)
		if r == nil {
			// number is 0 if the message was not even queued; a message
			// behind streams may have been sent, to be careful.
			return nil, &ConnError{Err: c.Err(), MaybeSent: behind || number > 0 && c.out.wasTaken(number)}
		}
		return r, nil
	case <-ctx.Done():
		// The entry stays, so that the late reply finds it and its hook.
		return nil, ctx.Err()
	}
}

// complete gives a reply to the call that waits for it.
func (c *Conn) complete(call *Call) {
	c.mu.Lock()
	p := c.pending[call.ID.num]
	if !call.ID.isInt() {
		p = nil
	}
	delete(c.pending, call.ID.num)
	c.mu.Unlock()
	if p == nil {
		call.Release()
		return
	}
	r := &Reply{Exception: call.Async, Value: call.Args, buf: call.buf}
	call.buf = nil
	call.Release()
	if p.Hook != nil {
		p.Hook(r)
	}
	p.reply <- r
}

// BeginSend returns a message for a one-way call, to which the arguments are
// to be added, as one tuple.
func (c *Conn) BeginSend(name string) *Message {
	m := c.NewMessage()
	m.BeginSend(name)
	return m
}

// BeginSend makes m, which is empty, a one-way call, to which the arguments are
// to be added, as one tuple. End follows.
func (m *Message) BeginSend(name string) { m.beginCall(MsgID{}, true, name) }

// Send completes and queues a one-way call.
func (c *Conn) Send(m *Message) error {
	m.End()
	if err := m.Err(); err != nil {
		m.free()
		return err
	}
	return c.Post(m)
}

// Queue is Send that only queues the call, to be sent by Push or with what is
// sent next.
func (c *Conn) Queue(m *Message) error {
	m.End()
	if err := m.Err(); err != nil {
		m.free()
		return err
	}
	return c.posted(c.out.queue(m))
}
