package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"net"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// blobClient is a client of the stubs that collects downloads.
type blobClient struct {
	*stubs.StorageServerStub
	mu  sync.Mutex
	got bytes.Buffer
}

func (c *blobClient) HandleCall(call *zrpc.Call) {
	stubs.DispatchClientStorage(context.Background(), c, call)
}
func (c *blobClient) Info(context.Context, zrpc.Value) error { return nil }
func (c *blobClient) InvalidateTransaction(context.Context, zeolite.TID, []zeolite.OID) error {
	return nil
}
func (c *blobClient) ReceiveBlobStart(context.Context, zeolite.OID, zeolite.TID) error { return nil }
func (c *blobClient) ReceiveBlobStop(context.Context, zeolite.OID, zeolite.TID) error  { return nil }
func (c *blobClient) ReceiveBlobChunk(_ context.Context, _ zeolite.OID, _ zeolite.TID, chunk []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got.Write(chunk)
	return nil
}

func (c *blobClient) take() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := bytes.Clone(c.got.Bytes())
	c.got.Reset()
	return b
}

func connectStubs(t *testing.T, addr string) *blobClient {
	t.Helper()
	c, err := dialStubs(t, addr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tryRegister says whether a client can register.
func tryRegister(t *testing.T, addr string) error {
	_, err := dialStubs(t, addr)
	return err
}

func dialStubs(t *testing.T, addr string) (*blobClient, error) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := zrpc.ClientHandshake(nc, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	conn := zrpc.NewConn(nc, enc, zrpc.Options{MaxFrame: 64 << 20})
	c := &blobClient{StorageServerStub: stubs.NewStorageServerStub(conn)}
	conn.Start(c)
	t.Cleanup(func() { conn.Close() })
	_, err = c.Register(context.Background(), "1", false)
	return c, err
}

// bytesBlob is a blob in memory.
type bytesBlob struct{ *bytes.Reader }

func (b bytesBlob) Close() error { return nil }

func TestExtensions(t *testing.T) {
	ctx := context.Background()
	s := startServer(t, newMemory(t), Options{})
	c := connectStubs(t, s.addr)

	info, err := c.GetInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	listed, _ := info.(*zrpc.Dict).Get("extensions")
	for _, name := range stubs.Extensions {
		if !slices.Contains(listed.(zrpc.List), zrpc.Value(name)) {
			t.Errorf("get_info does not list %s: %v", name, listed)
		}
	}

	content := bytes.Repeat([]byte("some bytes of a blob "), 10_000)
	_ = c.TpcBegin(ctx, 1, nil, nil, nil, stubs.OptionalTID{}, " ")
	for oid := range zeolite.OID(5) {
		_ = c.Storea(ctx, oid, 0, []byte{byte(oid), 'x'}, 1)
	}
	large := bytes.Repeat([]byte{7}, loadManyBytes)
	_ = c.Storea(ctx, 6, 0, large, 1)
	_ = c.StoreBlob(7, 0, []byte("record"), 1, bytesBlob{bytes.NewReader(content)}, nil, nil)
	if _, err := c.Vote(ctx, 1); err != nil {
		t.Fatal(err)
	}
	finished, err := c.TpcFinish(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	tid := finished.TID

	t.Run("loadMany", func(t *testing.T) {
		got, err := c.LoadMany(ctx, []zeolite.OID{4, 99, 0}, zeolite.MaxTID)
		if err != nil || len(got) != 3 || got[1].Found || !got[0].Found || !got[2].Found {
			t.Fatalf("LoadMany = %v, %v", got, err)
		}
		if !bytes.Equal(got[0].Data, []byte{4, 'x'}) || got[0].TID != tid || got[0].End != 0 {
			t.Errorf("LoadMany of 4 = %v", got[0])
		}
		got, err = c.LoadMany(ctx, []zeolite.OID{0, 1}, tid)
		if err != nil || len(got) != 2 || got[0].Found || got[1].Found {
			t.Errorf("LoadMany before the first transaction = %v, %v", got, err)
		}
		// A large reply stops short, but not before the first entry.
		got, err = c.LoadMany(ctx, []zeolite.OID{6, 1, 2}, zeolite.MaxTID)
		if err != nil || len(got) != 1 || !bytes.Equal(got[0].Data, large) {
			t.Errorf("LoadMany of much: %d entries, %v", len(got), err)
		}
		if got, err = c.LoadMany(ctx, nil, zeolite.MaxTID); err != nil || len(got) != 0 {
			t.Errorf("LoadMany of nothing = %v, %v", got, err)
		}
	})
	t.Run("blobInfo", func(t *testing.T) {
		got, err := c.BlobInfo(ctx, 7, tid)
		if err != nil || got.Size != int64(len(content)) || got.SHA256 != sha256.Sum256(content) {
			t.Errorf("BlobInfo = %v, %v", got, err)
		}
		var missing *zeolite.NotFoundError
		if _, err := c.BlobInfo(ctx, 1, tid); !errors.As(err, &missing) || !missing.Blob {
			t.Errorf("BlobInfo of no blob: %v", err)
		}
	})
	t.Run("sendBlobFrom", func(t *testing.T) {
		for _, offset := range []int{0, 1, stubs.ChunkSize, stubs.ChunkSize + 1, len(content) - 1, len(content), len(content) + 1} {
			if err := c.SendBlobFrom(ctx, 7, tid, int64(offset)); err != nil {
				t.Errorf("from %d: %v", offset, err)
			}
			if got := c.take(); !bytes.Equal(got, content[min(offset, len(content)):]) {
				t.Errorf("from %d: %d bytes, not the rest", offset, len(got))
			}
		}
		if err := c.SendBlobFrom(ctx, 7, tid, -1); err == nil {
			t.Error("a negative offset must fail")
		}
	})
}
