package zrpc

import "fmt"

// A message is a tuple of four: id, flag, name, arguments.
const (
	replyName = ".reply"

	// flagReply and flagError are what replies carry for a flag; calls carry
	// a bool that says whether they are one-way.
	flagReply = 0
	flagError = 2

	keepAliveID = -1
)

// MsgID identifies a call on its connection. It is an integer in our own
// calls, but a peer may choose any value (Python clients use the pair of oid
// and tid for loadBefore), which its reply echoes.
type MsgID struct {
	num int64
	raw []byte // the encoded value, if it is not an integer
}

func (id *MsgID) isInt() bool { return id.raw == nil }

func (id *MsgID) isKeepAlive() bool { return id.isInt() && id.num == keepAliveID }

func (id *MsgID) encode(e *Encoder) {
	if id.isInt() {
		e.Int(id.num)
	} else {
		e.Raw(id.raw)
	}
}

// beginReply starts a reply. A keep-alive is one, too: nobody need ask for it, but
// it does not count as unasked.
func (m *Message) beginReply(id MsgID, flag int64) {
	m.reply = true
	m.Start()
	m.Tuple(4)
	id.encode(&m.Encoder)
	m.Int(flag)
	m.Str(replyName)
}

// beginCall starts a call.
func (m *Message) beginCall(id MsgID, async bool, name string) {
	m.Start()
	m.Tuple(4)
	id.encode(&m.Encoder)
	m.Bool(async)
	m.Str(name)
}

// End completes a message. One that is longer than a frame can announce is an
// error.
func (m *Message) End() {
	m.EndTuple(4)
	m.Stop()
	if n := uint64(m.size()) - FrameHeaderLen; n > MaxFrame {
		m.fail("the message has %d bytes; a frame holds at most %d", n, uint64(MaxFrame))
	}
}

// OneWayError is the reason of a connection on which a one-way call failed:
// ZEO has no way to tell the caller.
type OneWayError struct {
	Name string
	Err  error
}

func (e *OneWayError) Error() string {
	return "one-way call " + e.Name + " failed: " + e.Err.Error()
}

// Unwrap returns the failure.
func (e *OneWayError) Unwrap() error { return e.Err }

// decodeHeader reads the first three items of the message and leaves Args at
// the fourth.
func (call *Call) decodeHeader(lim Limits) error {
	call.Args = NewDecoder(call.conn.enc, call.buf.B, lim)
	if call.readHeader(); call.Args.Err() != nil && call.Args.Fallback() {
		call.readHeader()
	}
	return call.Args.Err()
}

// peekHeader is decodeHeader for the beginning of a message.
func (call *Call) peekHeader(lim Limits) error {
	call.Args = NewDecoder(call.conn.enc, call.buf.B, lim)
	call.readHeader()
	return call.Args.Err()
}

func (call *Call) readHeader() {
	d := &call.Args
	d.Start()
	d.Tuple(4)
	if d.IsInt() {
		call.ID = MsgID{num: d.Int()}
	} else {
		call.ID = MsgID{raw: d.Raw()}
	}
	call.Async = d.Bool()
	call.Name = d.Str()
	d.SetRetryPoint()
}

// endMessage reads what follows the fourth item. It answers whether the item
// is to be read again: the first attempt failed, but another may succeed.
func endMessage(d *Decoder) (again bool) {
	d.EndTuple(4)
	d.Stop()
	if d.Err() == nil || !d.Fallback() {
		return false
	}
	if n := len(d.tree.cur.items); d.hasRetry && n != 4 {
		// Not arguments that are wrong: no message.
		d.fail(&SyntaxError{d.enc, 0, fmt.Sprintf("a message has 4 items, not %d", n)})
		return false
	}
	return true
}

// EndArgs is called when the arguments were read. If it answers true they must
// be read again, from the first: the message was written in an unusual way.
// Then Args.Err tells whether they were understood.
func (call *Call) EndArgs() (again bool) { return endMessage(&call.Args) }

// EndValue is called when the value was read. If it answers true it must be
// read again. Then Value.Err tells whether it was understood.
func (r *Reply) EndValue() (again bool) { return endMessage(&r.Value) }

// Fail makes err the decoder's error, if it has none and err is not nil: what
// was read is of the right type, but not a possible value.
func (d *Decoder) Fail(err error) {
	if err != nil {
		d.fail(err)
	}
}
