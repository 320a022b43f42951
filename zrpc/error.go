package zrpc

import "errors"

var (
	// ErrClosed is the reason of a connection that this side closed.
	ErrClosed = errors.New("zrpc: connection closed")

	// ErrSlowPeer is the reason of a connection whose peer did not read what
	// was sent to it.
	ErrSlowPeer = errors.New("zrpc: the peer does not read: too many bytes wait to be sent to it (outbox limit)")
)

// BadMessageError is the reason of a connection on which something arrived
// that is not a message.
type BadMessageError struct{ Err error }

func (e *BadMessageError) Error() string { return "zrpc: bad message: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *BadMessageError) Unwrap() error { return e.Err }

// ConnError says that a call failed because its connection ended before the
// reply came. If MaybeSent is false the peer cannot have seen the call, and
// repeating it is safe whatever it does.
type ConnError struct {
	Err       error
	MaybeSent bool
}

func (e *ConnError) Error() string { return "connection lost: " + e.Err.Error() }

// Unwrap returns the reason for which the connection ended.
func (e *ConnError) Unwrap() error { return e.Err }

// RemoteError is an exception that the peer raised: its Python class, with
// module, and its state: the arguments (a Tuple), or the attributes (a *Dict)
// if it has any.
type RemoteError struct {
	Class string
	State Value
}

// Error shows the exception as Python would, but oids and tids in hexadecimal:
// logs are read by people who look for them.
func (e *RemoteError) Error() string {
	switch e.State.(type) {
	case Tuple, List:
		return e.Class + label(e.State, 0)
	}
	return e.Class + "(" + label(e.State, 0) + ")"
}
