package stubs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

var bg = context.Background()

var encodings = []zrpc.Encoding{zrpc.Pickle, zrpc.Msgpack}

// feed is a net.Conn whose peer has said all that it will say. It keeps what is
// written to it, and tells when everything was read and handled.
type feed struct {
	net.Conn
	in           *bytes.Reader
	idle, closed chan struct{}
	atEnd, close sync.Once

	mu  sync.Mutex
	out bytes.Buffer
}

func (f *feed) Read(p []byte) (int, error) {
	if f.in.Len() > 0 {
		return f.in.Read(p)
	}
	f.atEnd.Do(func() { close(f.idle) })
	<-f.closed
	return 0, io.EOF
}

func (f *feed) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.Write(p)
}

func (f *feed) Close() error {
	f.close.Do(func() { close(f.closed) })
	return nil
}

type handlerFunc func(*zrpc.Call)

func (f handlerFunc) HandleCall(call *zrpc.Call) { f(call) }

// converse gives frames with these payloads to a connection and returns what
// it answers, and why it ended: nil if it did not by itself.
func converse(t testing.TB, enc zrpc.Encoding, h handlerFunc, payloads ...[]byte) ([]message, error) {
	t.Helper()
	var in []byte
	for _, p := range payloads {
		in = append(zrpc.AppendFrameHeader(in, len(p)), p...)
	}
	f := &feed{in: bytes.NewReader(in), idle: make(chan struct{}), closed: make(chan struct{})}
	c := zrpc.NewConn(f, enc, zrpc.Options{MaxFrame: 1 << 24})
	c.Start(h)
	var reason error
	select {
	case <-f.idle:
		if reason = c.Err(); reason == nil {
			c.Drain(time.Now().Add(time.Minute))
		}
	case <-c.Done():
		reason = c.Err()
	}
	c.Close()
	var answers []message
	for rest := f.out.Bytes(); len(rest) > 0; {
		n, err := zrpc.ParseFrameHeader(rest, 64<<20)
		rest = rest[min(zrpc.FrameHeaderLen, len(rest)):]
		if err != nil || n > len(rest) {
			t.Fatalf("answer of %d bytes, %d left: %v", n, len(rest), err)
		}
		answers = append(answers, decode(t, enc, rest[:n]))
		rest = rest[n:]
	}
	return answers, reason
}

// message is one that was read as a general value.
type message struct {
	ID, Flag, Name, Args zrpc.Value
	Payload              []byte
}

func decode(t testing.TB, enc zrpc.Encoding, payload []byte) message {
	t.Helper()
	parse := zrpc.ParseMsgpack
	if enc == zrpc.Pickle {
		parse = zrpc.ParsePickle
	}
	v, rest, err := parse(payload, zrpc.Limits{})
	items, _ := zrpc.Sequence(v)
	if err != nil || len(rest) > 0 || len(items) != 4 {
		t.Fatalf("not a message: %x: %v", payload, err)
	}
	return message{items[0], items[1], items[2], items[3], payload}
}

// encode makes the payload of a message.
func encode(enc zrpc.Encoding, id, flag zrpc.Value, name string, args zrpc.Value) []byte {
	e := zrpc.NewEncoder(enc, nil)
	e.Start()
	e.Value(zrpc.Tuple{id, flag, name, args})
	e.Stop()
	return e.Buf
}

// show writes anything that crosses a stub in a form in which two values are
// equal if they are the same to a peer: msgpack has one kind of sequence, and a
// flag may be an integer.
func show(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "1"
		}
		return "0"
	case []byte:
		return fmt.Sprintf("b%x", v)
	case OptionalBytes:
		if v == nil {
			return "None"
		}
		return fmt.Sprintf("b%x", []byte(v))
	case zeolite.OID:
		return show(v.Bytes())
	case zeolite.TID:
		return show(v.Bytes())
	case OptionalTID:
		if !v.Set {
			return "None"
		}
		return show(v.TID)
	case OptionalOID:
		if !v.Set {
			return "None"
		}
		return show(v.OID)
	case []zeolite.OID:
		return showAll(v)
	case []int64:
		return showAll(v)
	case zrpc.Tuple:
		return showAll(v)
	case zrpc.List:
		return showAll(v)
	case []any:
		return showAll(v)
	case string:
		return fmt.Sprintf("%q", v)
	case *zrpc.Dict:
		var pairs []string
		for _, p := range v.Pairs {
			pairs = append(pairs, show(p.Key)+": "+show(p.Val))
		}
		sort.Strings(pairs)
		return "{" + strings.Join(pairs, ", ") + "}"
	case *zrpc.Object:
		return fmt.Sprintf("object %s%s%s", show(v.Class), show(v.Args), show(v.State))
	case *Invalidations:
		if v == nil {
			return "None"
		}
		return show([]any{v.TID, v.OIDs})
	case *TransactionEntry:
		if v == nil {
			return "None"
		}
		return show([]any{v.TID, string(rune(v.Status)), v.User, v.Description, v.Extension})
	case *zeolite.DataRecord:
		if v == nil {
			return "None"
		}
		return show([]any{v.OID, v.TID, OptionalBytes(v.Data), OptionalTID{v.DataTID, v.DataTID != 0}})
	}
	return fmt.Sprint(v)
}

func showAll[T any](items []T) string {
	parts := make([]string, len(items))
	for i, item := range items {
		parts[i] = show(item)
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// onWire turns an argument as the stubs take it into the value that they send.
func onWire(arg any) zrpc.Value {
	switch v := arg.(type) {
	case zeolite.OID:
		return v.Bytes()
	case zeolite.TID:
		return v.Bytes()
	case TxnID:
		return uint64(v)
	case OptionalTID:
		if !v.Set {
			return nil
		}
		return v.TID.Bytes()
	case OptionalOID:
		if !v.Set {
			return nil
		}
		return v.OID.Bytes()
	case OptionalBytes:
		if v == nil {
			return nil
		}
		return []byte(v)
	case []zeolite.OID:
		list := zrpc.List{}
		for _, oid := range v {
			list = append(list, oid.Bytes())
		}
		return list
	case []int64:
		list := zrpc.List{}
		for _, n := range v {
			list = append(list, n)
		}
		return list
	}
	return arg
}

func onWireAll(args []any) zrpc.Tuple {
	values := make(zrpc.Tuple, len(args))
	for i, arg := range args {
		values[i] = onWire(arg)
	}
	return values
}
