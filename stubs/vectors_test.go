package stubs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/tests/vectors"
	"github.com/zeolite-go/zeolite/zrpc"
)

// An oddity is a recorded message that the recorded peer was not expected to
// take, and what we do with it.
type oddity int

const (
	typeError oddity = iota + 1 // answered with a TypeError
	unknown                     // there is no such method
	badFrame                    // the connection ends: not a message
)

// oddCalls are all such messages of the recorded clients, as session and call.
var oddCalls = map[string]oddity{
	`errors_filestorage frobnicate(1)`:                          unknown,
	`errors_filestorage frobnicate()`:                           unknown,
	`errors_filestorage new_oid()`:                              unknown,
	`errors_filestorage loadBefore("abc", b7fffffffffffffff)`:   typeError,
	`errors_filestorage loadBefore(b616263, b7fffffffffffffff)`: typeError,
	`errors_filestorage loadBefore(b0000000000000001)`:          typeError,
	`errors_filestorage undoLog("a", "b")`:                      typeError,
	`errors_filestorage getInvalidations(b6162)`:                typeError,
	`errors_filestorage ping(1)`:                                typeError,
	`errors_filestorage set_client_label(5)`:                    typeError,
	`pack pack("x", 1)`:                                         typeError,
	`raw_ruok_and_odd registerNone`:                             typeError,
	`raw_ruok_and_odd not a message`:                            badFrame,
	`raw_ruok_and_odd name is b7265676973746572`:                badFrame,
}

// conversation is one connection of a recorded session.
type conversation struct {
	session string
	enc     zrpc.Encoding
	frames  []vectors.Frame
}

// conversations returns all recorded connections on which the client shook
// hands as we do.
func conversations(t testing.TB) []conversation {
	t.Helper()
	var all []conversation
	for _, session := range vectors.Names() {
		for _, suffix := range vectors.Encodings {
			at := map[int]int{} // connection to index in all
			for _, f := range vectors.Load(t, session+"."+suffix) {
				if f.Kind == vectors.Handshake && f.Dir == vectors.ClientToServer {
					if v := string(f.Payload); v == "Z5" || v == "M5" {
						at[f.Conn] = len(all)
						all = append(all, conversation{session: session, enc: zrpc.Encoding(v[0])})
					}
				}
				if i, ok := at[f.Conn]; ok && f.Kind == vectors.Message {
					all[i].frames = append(all[i].frames, f)
				}
			}
		}
	}
	if len(all) < 100 {
		t.Fatalf("only %d recorded connections", len(all))
	}
	return all
}

// wire is one end of a pipe to a connection under test.
type wire struct {
	t     *testing.T
	nc    net.Conn
	enc   zrpc.Encoding
	where string // for failures
}

func (w *wire) write(payload []byte) {
	w.t.Helper()
	if _, err := w.nc.Write(append(zrpc.AppendFrameHeader(nil, len(payload)), payload...)); err != nil {
		w.t.Fatalf("%s: write: %v", w.where, err)
	}
}

func (w *wire) read() message {
	w.t.Helper()
	_ = w.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	var header [zrpc.FrameHeaderLen]byte
	if _, err := io.ReadFull(w.nc, header[:]); err != nil {
		w.t.Fatalf("%s: read: %v", w.where, err)
	}
	n, err := zrpc.ParseFrameHeader(header[:], 1<<24)
	if err != nil {
		w.t.Fatalf("%s: read: %v", w.where, err)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(w.nc, payload); err != nil {
		w.t.Fatalf("%s: read: %v", w.where, err)
	}
	return decode(w.t, w.enc, payload)
}

// proxy passes what it is asked on by our stubs: its server side dispatches to
// a stub for the real server, and its client side the other way round.
type proxy struct {
	client, server *wire // who talk to each other through it
}

func newProxy(t *testing.T, enc zrpc.Encoding) *proxy {
	front, client := net.Pipe()
	back, server := net.Pipe()
	fc := zrpc.NewConn(front, enc, zrpc.Options{MaxFrame: 1 << 24})
	bc := zrpc.NewConn(back, enc, zrpc.Options{MaxFrame: 1 << 24})
	fc.Start(dispatchOr[StorageServer](NewStorageServerStub(bc), DispatchStorageServer))
	bc.Start(dispatchOr[ClientStorage](NewClientStorageStub(fc), DispatchClientStorage))
	t.Cleanup(func() {
		client.Close()
		server.Close()
		fc.Close()
		bc.Close()
	})
	return &proxy{&wire{t: t, nc: client, enc: enc}, &wire{t: t, nc: server, enc: enc}}
}

// withID returns a message under another id.
func withID(t testing.TB, enc zrpc.Encoding, payload []byte, id zrpc.Value) []byte {
	t.Helper()
	d := zrpc.NewDecoder(enc, payload, zrpc.Limits{})
	d.Start()
	d.Tuple(4)
	raw := d.Raw()
	if d.Err() != nil {
		t.Fatal(d.Err())
	}
	front := 1
	if enc == zrpc.Pickle {
		front = 3
	}
	e := zrpc.NewEncoder(enc, bytes.Clone(payload[:front]))
	e.Value(id)
	e.Raw(payload[front+len(raw):])
	return e.Buf
}

// argumentsBesides are what our stub sends where the recorded client left an
// argument out.
var argumentsBesides = map[string]string{
	"new_oids()": "new_oids(100)",
}

// TestVectorsThroughProxy has the recorded peers talk to each other through our
// dispatchers and stubs. What arrives must be what was sent: one-way calls and
// replies byte for byte.
func TestVectorsThroughProxy(t *testing.T) {
	seen := map[string]bool{}
	messages, differ := 0, 0
	for _, conv := range conversations(t) {
		p := newProxy(t, conv.enc)
		replies := map[string][]vectors.Frame{}
		for _, f := range conv.frames {
			if f.Dir == vectors.ServerToClient {
				if m := decode(t, conv.enc, f.Payload); m.Name == zrpc.Value(".reply") {
					replies[show(m.ID)] = append(replies[show(m.ID)], f)
				}
			}
		}
		for _, f := range conv.frames {
			where := fmt.Sprintf("%s, connection %d, line %d", conv.session, f.Conn, f.Line)
			p.client.where, p.server.where = where, where
			if f.Dir == vectors.ServerToClient {
				m := decode(t, conv.enc, f.Payload)
				if m.Name == zrpc.Value(".reply") {
					continue
				}
				p.server.write(f.Payload)
				if got := p.client.read(); !bytes.Equal(got.Payload, f.Payload) {
					t.Errorf("%s: %s arrives as\n%x, want\n%x", where, m.Name, got.Payload, f.Payload)
				}
				messages++
				continue
			}
			odd := nameOf(conv, f)
			if _, ok := oddCalls[odd]; ok {
				seen[odd] = true
				continue // see TestOddVectors
			}
			m := decode(t, conv.enc, f.Payload)
			if m.Name == zrpc.Value(".reply") {
				p.client.write(f.Payload) // a keep-alive, which goes no further
				continue
			}
			messages++
			p.client.write(f.Payload)
			got := p.server.read()
			want := m.Name.(string) + show(m.Args)
			if other, ok := argumentsBesides[want]; ok {
				want = other
			}
			if s := got.Name.(string) + show(got.Args); s != want {
				t.Errorf("%s: arrives as %.300s, want %.300s", where, s, want)
			}
			if show(m.Flag) == "1" {
				// Our stub waits for pings, which Python sent by hand one-way.
				if show(got.Flag) == "1" && !bytes.Equal(got.Payload, f.Payload) {
					t.Errorf("%s: %s arrives as\n%x, want\n%x", where, m.Name, got.Payload, f.Payload)
				}
				if show(got.Flag) == "0" {
					p.server.write(encode(conv.enc, got.ID, int64(0), ".reply", nil))
				}
				continue
			}
			if show(got.Flag) == "1" {
				// One-way by nature, so the proxy answers by itself.
				if r := p.client.read(); show(r.ID) != show(m.ID) || show(r.Args) != "None" {
					t.Errorf("%s: answered with %v", where, r)
				}
				continue
			}
			queue := replies[show(m.ID)]
			if len(queue) == 0 { // never answered
				p.server.write(encode(conv.enc, got.ID, int64(0), ".reply", nil))
				p.client.read()
				continue
			}
			replies[show(m.ID)] = queue[1:]
			reply := queue[0].Payload
			p.server.write(withID(t, conv.enc, reply, got.ID))
			answer := p.client.read()
			if !bytes.Equal(answer.Payload, reply) {
				differ++
				if !mayDiffer(conv, decode(t, conv.enc, reply), answer) {
					t.Errorf("%s: reply to %s%s comes back as\n%x, want\n%x", where, m.Name, show(m.Args), answer.Payload, reply)
				}
			}
		}
		p.client.nc.Close()
	}
	for odd := range oddCalls {
		if !seen[odd] {
			t.Errorf("listed as odd, but not recorded: %s", odd)
		}
	}
	if messages < 1500 || differ > 20 {
		t.Errorf("%d messages, %d replies in other bytes", messages, differ)
	}
}

// nameOf describes a message of a client as in oddCalls.
func nameOf(conv conversation, f vectors.Frame) string {
	if strings.Contains(string(f.Decoded), "undecodable") {
		return conv.session + " not a message"
	}
	parse := zrpc.ParseMsgpack
	if conv.enc == zrpc.Pickle {
		parse = zrpc.ParsePickle
	}
	v, _, err := parse(f.Payload, zrpc.Limits{})
	items, _ := zrpc.Sequence(v)
	if err != nil || len(items) != 4 {
		return conv.session + " not a message"
	}
	name, ok := items[2].(string)
	if !ok {
		return conv.session + " name is " + show(items[2])
	}
	return conv.session + " " + name + show(items[3])
}

// mayDiffer tells whether a reply may come back in other bytes.
func mayDiffer(conv conversation, was, got message) bool {
	if show(was.Flag) == "2" && show(got.Flag) == "2" {
		// Exceptions inside of exceptions are not passed on as they are.
		before, after := exceptionOf(was), exceptionOf(got)
		var undos *zeolite.MultipleUndoErrors
		if errors.As(FromRemote(before), &undos) {
			return meant(FromRemote(after), undos)
		}
		return before.Class == after.Class && strings.Contains(show(before.State), "object ")
	}
	switch conv.session {
	case "raw_ruok_and_odd":
		// Ids as other picklers write them; the value is the same.
		return show(was.Flag) == show(got.Flag) && show(was.Args) == show(got.Args)
	case "errors_every_class":
		// Its server returns all sorts of things from loadSerial; what are
		// no bytes is an error to us.
		return show(was.Flag) == "0" && show(got.Flag) == "2"
	}
	return false
}

// exceptionOf is the exception in a reply.
func exceptionOf(m message) *zrpc.RemoteError {
	pair, _ := zrpc.Sequence(m.Args)
	class, _ := pair[0].(string)
	return &zrpc.RemoteError{Class: class, State: pair[1]}
}

// TestOddVectors gives the recorded messages that are wrong on purpose to our
// dispatcher.
func TestOddVectors(t *testing.T) {
	for _, conv := range conversations(t) {
		for _, f := range conv.frames {
			if f.Dir == vectors.ServerToClient {
				continue
			}
			name := nameOf(conv, f)
			want, ok := oddCalls[name]
			if !ok {
				continue
			}
			rec := &recorder{}
			answers, err := converse(t, conv.enc, serverSide(rec), f.Payload)
			good := false
			switch want {
			case typeError:
				good = len(answers) == 1 && show(answers[0].Flag) == "2" && strings.Contains(show(answers[0].Args), ClassTypeError)
			case unknown:
				good = errors.Is(err, errNoMethod) && len(answers) == 0
			case badFrame:
				good = errors.As(err, new(*zrpc.BadMessageError)) && len(answers) == 0
			}
			if calls := rec.take(); !good || len(calls) > 0 {
				t.Errorf("%s, line %d: calls %v, answers %v, ended for %v", name, f.Line, calls, answers, err)
			}
		}
	}
}

// samples returns the first recorded messages of each method and encoding in
// one direction, replies by the method that they answer.
func samples(t testing.TB, dir vectors.Direction, each int) (all []sample) {
	t.Helper()
	count := map[string]int{}
	for _, conv := range conversations(t) {
		names := map[string]string{}
		for _, f := range conv.frames {
			if _, odd := oddCalls[nameOf(conv, f)]; odd && f.Dir == vectors.ClientToServer {
				continue
			}
			m := decode(t, conv.enc, f.Payload)
			name := m.Name.(string)
			if f.Dir == vectors.ClientToServer {
				names[show(m.ID)] = name
			} else if name == ".reply" {
				name = "reply to " + names[show(m.ID)] + " " + show(m.Flag)
			}
			key := fmt.Sprintf("%v %s", conv.enc, name)
			if f.Dir == dir && count[key] < each {
				count[key]++
				all = append(all, sample{conv.enc, name, m})
			}
		}
	}
	return all
}

type sample struct {
	enc  zrpc.Encoding
	name string
	message
}

// TestTruncatedVectors gives every proper prefix of recorded messages to the
// side that would receive them. None may be taken for a message.
func TestTruncatedVectors(t *testing.T) {
	for _, side := range []struct {
		dir      vectors.Direction
		dispatch func(*recorder) handlerFunc
	}{{vectors.ClientToServer, serverSide}, {vectors.ServerToClient, clientSide}} {
		for _, s := range samples(t, side.dir, 1) {
			step := 1 + len(s.Payload)/200
			for n := 0; n < len(s.Payload); n += step {
				rec := &recorder{}
				answers, err := converse(t, s.enc, side.dispatch(rec), s.Payload[:n:n])
				isReply := s.Name == zrpc.Value(".reply")
				if calls := rec.take(); len(calls) > 0 || len(answers) > 0 ||
					!errors.As(err, new(*zrpc.BadMessageError)) && !isReply {
					t.Errorf("%v %s cut after %d of %d bytes: calls %v, answers %v, ended for %v",
						s.enc, s.name, n, len(s.Payload), calls, answers, err)
				}
			}
		}
	}
}

// TestTruncatedReplies gives every proper prefix of recorded replies to the stub
// of the method that they answer.
func TestTruncatedReplies(t *testing.T) {
	all := samples(t, vectors.ServerToClient, 1)
	for _, enc := range encodings {
		none := encode(enc, int64(1), int64(0), ".reply", nil)
		all = append(all, sample{enc, "reply to loadBefore 0", decode(t, enc, none)})
	}
	for _, s := range all {
		name, ok := strings.CutPrefix(s.name, "reply to ")
		if !ok {
			continue
		}
		mc, ok := storageServerCases[strings.Fields(name)[0]]
		if !ok || mc.oneWay {
			continue
		}
		whole := withID(t, s.enc, s.Payload, int64(1))
		step := 1 + len(whole)/50
		for n := 0; n < len(whole); n += step {
			near, far := net.Pipe()
			c := zrpc.NewConn(near, s.enc, zrpc.Options{MaxFrame: 1 << 24})
			c.Start(clientSide(&recorder{}))
			go func() {
				request := make([]byte, 1<<20)
				_, _ = far.Read(request) // it comes in one write
				_, _ = far.Write(append(zrpc.AppendFrameHeader(nil, n), whole[:n]...))
			}()
			if got, err := mc.call(NewStorageServerStub(c), mc.args); err == nil || errors.Is(err, zeolite.ErrNotYet) {
				t.Errorf("%v %s cut after %d of %d bytes: %v", s.enc, s.name, n, len(whole), show(got))
			}
			far.Close()
			c.Close()
		}
	}
}
