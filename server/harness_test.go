package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/zrpc"
)

// patience bounds every wait of these tests. Nothing takes that long unless it
// is broken.
const patience = 20 * time.Second

// encodings are what most tests run in, one after the other.
var encodings = []zrpc.Encoding{zrpc.Pickle, zrpc.Msgpack}

// eachEncoding runs a test once in each encoding.
func eachEncoding(t *testing.T, test func(t *testing.T, enc zrpc.Encoding)) {
	for _, enc := range encodings {
		t.Run(enc.String(), func(t *testing.T) { test(t, enc) })
	}
}

// backends make the storages that what depends on the storage is tested with.
var backends = map[string]func(testing.TB) zeolite.Storage{
	"memory":      newMemory,
	"filestorage": newFileStorage,
}

// eachBackend runs a test once with each back end.
func eachBackend(t *testing.T, test func(t *testing.T, open func(testing.TB) zeolite.Storage)) {
	for name, open := range backends {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

func newMemory(t testing.TB) zeolite.Storage {
	s := memory.New(memory.Options{BlobDir: t.TempDir()})
	t.Cleanup(func() { s.Close() })
	return s
}

func newFileStorage(t testing.TB) zeolite.Storage {
	t.Helper()
	dir := t.TempDir()
	s, err := filestorage.Open(filepath.Join(dir, "Data.fs"), filestorage.Options{BlobDir: filepath.Join(dir, "blobs")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// testServer is a server on a loopback address, with what a test wants to see
// of it.
type testServer struct {
	*Server
	t    testing.TB
	addr string
	logs *logRecorder
}

// startServer serves a storage as "1" until the test ends, and then makes sure
// that nobody left locks or transactions behind.
func startServer(t testing.TB, storage zeolite.Storage, opt Options) *testServer {
	t.Helper()
	logs := newLogRecorder()
	opt.Logger = slog.New(logs)
	s := &testServer{Server: New(opt), t: t, logs: logs}
	if err := s.AddStorage("1", storage); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.shutdown()
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		s.assertIdle()
		if t.Failed() {
			t.Logf("server's log:\n%v", logs)
		}
	})
	return s
}

// shutdown ends the server, as often as it is called.
func (s *testServer) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		s.t.Errorf("Shutdown: %v", err)
	}
}

// assertIdle checks that no locks are held or waited for, and that no
// transaction is open.
func (s *testServer) assertIdle() {
	s.t.Helper()
	e := s.exports["1"]
	if waiting, held, _ := e.locks.state(); waiting != 0 || held != 0 {
		s.t.Errorf("commit locks: %d wait, %d held, want none", waiting, held)
	}
	if n := e.counters.active.Load(); n != 0 {
		s.t.Errorf("%d transactions are open, want none", n)
	}
}

// waitIdle waits until the locks of a commit that was answered are free: the
// answer comes first.
func (s *testServer) waitIdle() {
	s.t.Helper()
	eventually(s.t, "nobody holds commit locks or waits for them", func() bool {
		waiting, held, _ := s.exports["1"].locks.state()
		return waiting == 0 && held == 0 && s.exports["1"].counters.active.Load() == 0
	})
}

// eventually waits for a condition that the test has no event for.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// message is one received message: a call of the server's, or a reply.
type message struct {
	id    zrpc.Value
	flag  zrpc.Value
	name  string
	value zrpc.Value // the arguments of a call, or what a reply says
}

// isException tells an error reply.
func (m message) isException() bool { return m.name == ".reply" && m.flag == int64(2) }

// peer is a client at the level of frames. It belongs to the test's goroutine.
// Everything that it receives must pass the strict reader of strict_test.go.
type peer struct {
	t      testing.TB
	server *testServer
	nc     net.Conn
	in     *bufio.Reader
	enc    zrpc.Encoding
	name   string // in the server's log
	lastID int64
	// early are messages that arrived while another was waited for.
	early []message
}

// session is the server's side of the connection.
func (p *peer) session() *session {
	s := p.server.Server
	s.mu.Lock()
	defer s.mu.Unlock()
	for se := range s.sessions {
		if se.conn.RemoteAddr().String() == p.nc.LocalAddr().String() {
			return se
		}
	}
	p.t.Fatal("the server does not know this connection")
	return nil
}

// dialRaw connects without a handshake.
func (s *testServer) dialRaw(t testing.TB, enc zrpc.Encoding) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &peer{t: t, server: s, nc: nc, in: bufio.NewReader(nc), enc: enc, name: nc.LocalAddr().String()}
}

// dial connects and shakes hands.
func (s *testServer) dial(t testing.TB, enc zrpc.Encoding) *peer {
	t.Helper()
	p := s.dialRaw(t, enc)
	if announced := p.readFrame(); len(announced) != 2 || announced[1] != '5' {
		t.Fatalf("server announced %q", announced)
	}
	p.writeFrame([]byte{byte(enc), '5'})
	return p
}

// connect is dial and register.
func (s *testServer) connect(t testing.TB, enc zrpc.Encoding) *peer {
	t.Helper()
	p := s.dial(t, enc)
	p.call("register", "1", false)
	return p
}

// connectReadOnly is connect for a client that will not write.
func (s *testServer) connectReadOnly(t testing.TB, enc zrpc.Encoding) *peer {
	t.Helper()
	p := s.dial(t, enc)
	p.call("register", "1", true)
	return p
}

// close hangs up.
func (p *peer) close() { p.nc.Close() }

func (p *peer) readFrame() []byte {
	p.t.Helper()
	payload, err := p.tryReadFrame()
	if err != nil {
		p.t.Fatalf("waiting for a message: %v", err)
	}
	return payload
}

func (p *peer) tryReadFrame() ([]byte, error) {
	if err := p.nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	var header [zrpc.FrameHeaderLen]byte
	if _, err := io.ReadFull(p.in, header[:]); err != nil {
		return nil, err
	}
	n, err := zrpc.ParseFrameHeader(header[:], 1<<28)
	if err != nil {
		return nil, err
	}
	payload := make([]byte, n)
	_, err = io.ReadFull(p.in, payload)
	return payload, err
}

func (p *peer) writeFrame(payload []byte) {
	p.t.Helper()
	p.writeBytes(append(zrpc.AppendFrameHeader(nil, len(payload)), payload...))
}

// writeBytes sends anything. That the server does not take it is no failure:
// it may have closed the connection already.
func (p *peer) writeBytes(b []byte) {
	_ = p.nc.SetWriteDeadline(time.Now().Add(patience))
	_, _ = p.nc.Write(b)
}

// encode makes the payload of a value.
func (p *peer) encode(v zrpc.Value) []byte {
	p.t.Helper()
	var b []byte
	var err error
	if p.enc == zrpc.Pickle {
		b, err = zrpc.AppendPickle(nil, v)
	} else {
		b, err = zrpc.AppendMsgpack(nil, v)
	}
	if err != nil {
		p.t.Fatalf("cannot encode %v: %v", v, err)
	}
	return b
}

// wire converts what tests write for arguments.
func wire(v any) zrpc.Value {
	switch v := v.(type) {
	case zeolite.OID:
		return v.Bytes()
	case zeolite.TID:
		return v.Bytes()
	case int:
		return int64(v)
	}
	return v
}

func wireArgs(args []any) zrpc.Tuple {
	out := make(zrpc.Tuple, len(args))
	for i, a := range args {
		out[i] = wire(a)
	}
	return out
}

// send makes a one-way call.
func (p *peer) send(name string, args ...any) {
	p.t.Helper()
	p.writeFrame(p.encode(zrpc.Tuple{int64(0), true, name, wireArgs(args)}))
}

// begin makes a call and returns its id.
func (p *peer) begin(name string, args ...any) int64 {
	p.t.Helper()
	p.lastID++
	p.writeFrame(p.encode(zrpc.Tuple{p.lastID, false, name, wireArgs(args)}))
	return p.lastID
}

// next returns the next message, also one that came early.
func (p *peer) next() message {
	p.t.Helper()
	if len(p.early) > 0 {
		m := p.early[0]
		p.early = p.early[1:]
		return m
	}
	return p.receive()
}

func (p *peer) receive() message {
	p.t.Helper()
	m, err := strictMessage(p.enc, p.readFrame())
	if err != nil {
		p.t.Fatalf("a client could not read this message: %v", err)
	}
	return m
}

// waitReply returns the reply to a call. What else arrives stays for next.
func (p *peer) waitReply(id int64) message {
	p.t.Helper()
	for i, m := range p.early {
		if m.name == ".reply" && m.id == id {
			p.early = slices.Delete(p.early, i, i+1)
			return m
		}
	}
	for {
		m := p.receive()
		if m.name == ".reply" && m.id == id {
			return m
		}
		p.early = append(p.early, m)
	}
}

// result waits for the reply to a call, which must not be an exception.
func (p *peer) result(id int64) zrpc.Value {
	p.t.Helper()
	m := p.waitReply(id)
	if m.isException() {
		p.t.Fatalf("call %d raised %v", id, m.value)
	}
	return m.value
}

// exception waits for the reply to a call, which must be an exception.
func (p *peer) exception(id int64) *zrpc.RemoteError {
	p.t.Helper()
	m := p.waitReply(id)
	if !m.isException() {
		p.t.Fatalf("call %d returned %v, want an exception", id, m.value)
	}
	pair := m.value.(zrpc.Tuple)
	return &zrpc.RemoteError{Class: pair[0].(string), State: pair[1]}
}

// call makes a call and returns its result.
func (p *peer) call(name string, args ...any) zrpc.Value {
	p.t.Helper()
	return p.result(p.begin(name, args...))
}

// callRaises makes a call that must raise an exception of a class.
func (p *peer) callRaises(class, name string, args ...any) *zrpc.RemoteError {
	p.t.Helper()
	e := p.exception(p.begin(name, args...))
	if e.Class != class {
		p.t.Fatalf("%s raised %v, want %s", name, e, class)
	}
	return e
}

// sync returns when all that was sent before has been received and, if it
// belongs to the ordered lane, run.
func (p *peer) sync() {
	p.t.Helper()
	// tpc_abort of an id that nobody has does nothing, in the ordered lane.
	p.call("tpc_abort", int64(1)<<62)
}

// nextIs returns the arguments of the next message, which must be a one-way
// call of this name.
func (p *peer) nextIs(name string) zrpc.Tuple {
	p.t.Helper()
	m := p.next()
	if m.name != name {
		p.t.Fatalf("received %s %v, want %s", m.name, m.value, name)
	}
	return tupleOf(p.t, m.value)
}

// waitClosed waits until the server closes the connection and has cleaned up.
// It returns what else arrived.
func (p *peer) waitClosed() []message {
	p.t.Helper()
	got := p.early
	p.early = nil
	for {
		payload, err := p.tryReadFrame()
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				p.t.Fatal("the server did not close the connection")
			}
			break
		}
		m, err := strictMessage(p.enc, payload)
		if err != nil {
			p.t.Fatalf("a client could not read this message: %v", err)
		}
		got = append(got, m)
	}
	p.waitGone()
	return got
}

// endOfSession are the messages with which the log of a connection ends.
var endOfSession = []string{
	"client disconnected", "connection lost", "client was disconnected",
	"handshake failed", "TLS handshake failed",
}

// waitGone waits until the server has done with this connection.
func (p *peer) waitGone() {
	p.t.Helper()
	p.server.logs.wait(p.t, "the end of connection "+p.name, func(r logRecord) bool {
		return r.client == p.name && slices.Contains(endOfSession, r.message)
	})
}

// assertOneLine checks that the log has exactly one line about this connection
// that an operator would look at, and that it contains a text.
func (p *peer) assertOneLine(text string) {
	p.t.Helper()
	p.server.logs.assertOne(p.t, p.name, text)
}

func tupleOf(t testing.TB, v zrpc.Value) zrpc.Tuple {
	t.Helper()
	switch v := v.(type) {
	case zrpc.Tuple:
		return v
	case zrpc.List:
		return zrpc.Tuple(v)
	}
	t.Fatalf("%v (%T) is not a sequence", v, v)
	return nil
}

func tidOf(t testing.TB, v zrpc.Value) zeolite.TID {
	t.Helper()
	b, _ := v.([]byte)
	tid, err := zeolite.TIDFromBytes(b)
	if err != nil {
		t.Fatalf("%v (%T) is not a tid: %v", v, v, err)
	}
	return tid
}

func oidOf(t testing.TB, v zrpc.Value) zeolite.OID {
	t.Helper()
	return zeolite.OID(tidOf(t, v))
}

func dictOf(t testing.TB, v zrpc.Value) *zrpc.Dict {
	t.Helper()
	d, ok := v.(*zrpc.Dict)
	if !ok {
		t.Fatalf("%v (%T) is not a dict", v, v)
	}
	return d
}

// keys returns the keys of a dict, in order.
func keys(d *zrpc.Dict) []string {
	var out []string
	for _, p := range d.Pairs {
		out = append(out, fmt.Sprint(p.Key))
	}
	return out
}
