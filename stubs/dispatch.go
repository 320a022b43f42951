package stubs

import (
	"errors"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// Lane says how a server may run a method.
type Lane uint8

const (
	// LaneUnknown is the lane of a method that does not exist.
	LaneUnknown Lane = iota
	// LaneInline methods never block: the reading goroutine runs them.
	LaneInline
	// LaneOrdered methods concern the client's transaction or its upload: one
	// at a time for each connection, in the order in which they arrived.
	LaneOrdered
	// LaneFree methods only read: any number at a time, in any order.
	LaneFree
)

// badArguments answers a call whose arguments do not fit the method. A payload
// that cannot be decoded at all ends the connection.
func badArguments(call *zrpc.Call, err error) {
	if errors.As(err, new(*zrpc.SyntaxError)) {
		call.Conn().End(&zrpc.BadMessageError{Err: err})
		call.Release()
		return
	}
	call.SendError("builtins.TypeError", zrpc.Tuple{string(call.Name) + ": " + err.Error()})
}

// replyNone answers a call that has no result.
func replyNone(call *zrpc.Call, err error) {
	switch {
	case err != nil:
		ReplyError(call, err)
	case call.Async:
		call.Release()
	default:
		m := call.BeginReply()
		m.Nil()
		call.SendReply(m)
	}
}

// resultNone reads the reply to a call without a result, and releases it. Any
// value will do: peers answer None, or what their storage happened to return.
func resultNone(r *zrpc.Reply) error {
	defer r.Release()
	for {
		r.Value.Value()
		if !r.EndValue() {
			return r.Value.Err()
		}
	}
}

// ReplyError answers a call with the exception that err stands for, or, for
// ErrNotYet, with None. It releases the call.
func ReplyError(call *zrpc.Call, err error) {
	if errors.Is(err, zeolite.ErrNotYet) {
		replyNone(call, nil)
		return
	}
	class, state := ToRemote(err)
	call.SendError(class, state)
}
