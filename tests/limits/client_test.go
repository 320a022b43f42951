package limits

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// wireClient is a client of the stubs alone. What it receives is seen in the
// reading goroutine, frame by frame.
type wireClient struct {
	t      *testing.T
	conn   *zrpc.Conn
	server *stubs.StorageServerStub

	chunk func(data []byte) // called for every chunk of a download

	mu     sync.Mutex
	chunks int
	bytes  int64
	sum    hash.Hash
}

// connect registers a client. wrap may put something around the connection.
func connect(t *testing.T, addr string, wrap func(net.Conn) net.Conn) *wireClient {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if wrap != nil {
		nc = wrap(nc)
	}
	enc, err := zrpc.ClientHandshake(nc, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	c := &wireClient{t: t, sum: sha256.New()}
	c.conn = zrpc.NewConn(nc, enc, zrpc.Options{})
	c.server = stubs.NewStorageServerStub(c.conn)
	c.conn.Start(c)
	t.Cleanup(func() { c.conn.Close() })
	if _, err := c.server.Register(context.Background(), "1", false); err != nil {
		t.Fatal(err)
	}
	return c
}

// HandleCall follows zrpc.Handler.
func (c *wireClient) HandleCall(call *zrpc.Call) {
	stubs.DispatchClientStorage(context.Background(), c, call)
}

func (c *wireClient) Info(context.Context, zrpc.Value) error { return nil }

func (c *wireClient) InvalidateTransaction(context.Context, zeolite.TID, []zeolite.OID) error {
	return nil
}

func (c *wireClient) ReceiveBlobStart(context.Context, zeolite.OID, zeolite.TID) error { return nil }

func (c *wireClient) ReceiveBlobChunk(_ context.Context, _ zeolite.OID, _ zeolite.TID, data []byte) error {
	if c.chunk != nil {
		c.chunk(data)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.chunks++
	c.bytes += int64(len(data))
	c.sum.Write(data)
	return nil
}

func (c *wireClient) ReceiveBlobStop(context.Context, zeolite.OID, zeolite.TID) error { return nil }

// received returns how many chunks and bytes have come.
func (c *wireClient) received() (chunks int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.chunks, c.bytes
}

// storeBlob commits a blob of the given content and returns its tid.
func (c *wireClient) storeBlob(oid zeolite.OID, blob zeolite.Blob) zeolite.TID {
	ctx := context.Background()
	id := stubs.TxnID(oid + 1)
	data := storagetest.BlobRecord()
	_ = c.server.TpcBegin(ctx, id, nil, nil, nil, stubs.OptionalTID{}, " ")
	_ = c.server.Storea(ctx, oid, 0, data, id)
	_ = c.server.StoreBlob(oid, 0, data, id, blob, nil, nil)
	if _, err := c.server.Vote(ctx, id); err != nil {
		c.t.Errorf("vote: %v", err)
		return 0
	}
	tid, err := c.server.TpcFinish(ctx, id)
	if err != nil {
		c.t.Errorf("tpc_finish: %v", err)
	}
	return tid.TID
}

// pattern is a blob of any size that costs no memory: random bytes that repeat
// with a period that no chunk size divides.
type pattern int64

var period = func() []byte {
	b := make([]byte, 65521)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

func (p pattern) Size() int64  { return int64(p) }
func (p pattern) Close() error { return nil }
func (p pattern) ReadAt(b []byte, off int64) (int, error) {
	n := int(max(min(int64(len(b)), int64(p)-off), 0))
	for i := 0; i < n; {
		i += copy(b[i:n], period[(off+int64(i))%int64(len(period)):])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (p pattern) digest() [sha256.Size]byte {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(p, 0, int64(p))); err != nil {
		panic(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// loads asks the server how many loads it has answered, for whomever.
func (c *wireClient) loads() int64 {
	c.t.Helper()
	status, err := c.server.ServerStatus(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	n, _ := status.(*zrpc.Dict).Get("loads")
	return n.(int64)
}
