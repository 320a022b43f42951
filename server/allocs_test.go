package server

import (
	"bytes"
	"io"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// BenchmarkLoad loads a record of 1 KiB over a connection, 16 at a time. The
// client's side allocates nothing, so that what is reported is the server's.
func BenchmarkLoad(b *testing.B) {
	for _, enc := range []zrpc.Encoding{zrpc.Pickle, zrpc.Msgpack} {
		b.Run(enc.String(), func(b *testing.B) {
			load := newLoader(b, enc)
			load.batch() // fills the pools
			b.ReportAllocs()
			b.ResetTimer()
			for range (b.N + load.depth - 1) / load.depth {
				load.batch()
			}
		})
	}
}

// TestLoadAllocatesNothing measures a whole server, from socket to socket. The
// garbage collector may empty the pools meanwhile, which makes a fraction of an
// allocation for each load.
func TestLoadAllocatesNothing(t *testing.T) {
	for _, enc := range []zrpc.Encoding{zrpc.Pickle, zrpc.Msgpack} {
		t.Run(enc.String(), func(t *testing.T) {
			load := newLoader(t, enc)
			perBatch := testing.AllocsPerRun(200, load.batch)
			if perLoad := perBatch / float64(load.depth); perLoad >= allowedAllocs {
				t.Errorf("%v allocations for a load, want 0", perLoad)
			}
		})
	}
}

// loader is a client that asks for the same record again and again.
type loader struct {
	t        testing.TB
	p        *peer
	depth    int
	requests []byte
	replies  []byte
	want     []byte
}

func newLoader(t testing.TB, enc zrpc.Encoding) *loader {
	s := startServer(t, newFileStorage(t), Options{})
	p := s.connect(t, enc)
	data := bytes.Repeat([]byte("x"), 1<<10)
	p.commit(1, 0, data)
	l := &loader{t: t, p: p, depth: 16}
	for i := range l.depth {
		payload := p.encode(zrpc.Tuple{int64(100 + i), false, "loadBefore", wireArgs([]any{zeolite.OID(1), zeolite.MaxTID})})
		l.requests = append(zrpc.AppendFrameHeader(l.requests, len(payload)), payload...)
	}
	// All replies have the same length, that of the first.
	p.writeFrame(l.requests[zrpc.FrameHeaderLen : len(l.requests)/l.depth])
	reply := p.readFrame()
	l.want = data
	l.replies = make([]byte, l.depth*(len(reply)+zrpc.FrameHeaderLen))
	return l
}

func (l *loader) batch() {
	if _, err := l.p.nc.Write(l.requests); err != nil {
		l.t.Fatal(err)
	}
	if _, err := io.ReadFull(l.p.in, l.replies); err != nil {
		l.t.Fatal(err)
	}
	if !bytes.Contains(l.replies[len(l.replies)*15/16:], l.want) {
		l.t.Fatal("the last reply does not have the record")
	}
}
