package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
)

// breaker makes connections of which the first that is made after arm breaks
// after a number of bytes, counted in both directions.
type breaker struct {
	left  atomic.Int64 // bytes until the cut; negative: never
	armed atomic.Bool
}

func (c *breaker) dial(ctx context.Context, network, address string) (net.Conn, error) {
	nc, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &breakingConn{Conn: nc, c: c}, nil
}

// breakingConn is a connection that may break in the middle of a message.
type breakingConn struct {
	net.Conn
	c    *breaker
	once sync.Once
}

// spend takes n bytes of what is left, and returns how many may pass.
func (c *breakingConn) spend(n int) int {
	if !c.c.armed.Load() {
		return n
	}
	left := c.c.left.Add(-int64(n))
	if left >= 0 {
		return n
	}
	c.once.Do(func() { c.c.armed.Store(false) })
	return max(n+int(left), 0)
}

func (c *breakingConn) Write(p []byte) (int, error) {
	n := c.spend(len(p))
	k, err := c.Conn.Write(p[:n])
	if err == nil && n < len(p) {
		c.Close()
		err = net.ErrClosed
	}
	return k, err
}

func (c *breakingConn) Read(p []byte) (int, error) {
	k, err := c.Conn.Read(p)
	if n := c.spend(k); err == nil && n < k {
		c.Close()
		return n, nil
	}
	return k, err
}

// TestCutAtAnyByte breaks the connection after every so many bytes of a
// transaction with a blob, and of loading it again. The caller gets an error of
// the right type; nothing is left, lost or doubled; and the next try works.
func TestCutAtAnyByte(t *testing.T) {
	for _, enc := range encodings {
		t.Run(enc.String(), func(t *testing.T) {
			noLeaks(t)
			srv := serve(t, newMemory(t), server.Options{Encoding: enc}, "tcp")
			cut := &breaker{}
			o := testOptions(t, srv.addr)
			o.Dial = cut.dial
			o.BlobDir = filepath.Join(t.TempDir(), "cache")
			s := open(t, o)
			rng := rand.New(rand.NewPCG(1, uint64(enc)))
			blob := randomBytes(100_000)
			oid := zeolite.OID(1)
			for round := range 60 {
				cut.left.Store(int64(rng.IntN(210_000)))
				cut.armed.Store(true)
				text := fmt.Sprintf("round %d", round)
				tid, err := commitBoth(t, s, oid, text, blob)
				switch {
				case errors.Is(err, zeolite.ErrInDoubt):
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
					tid, err = s.Outcome(ctx, err)
					cancel()
					must(t, err)
				case err != nil && !errors.As(err, new(*DisconnectedError)):
					t.Fatalf("%s: error of another type: %v", text, err)
				}
				cut.armed.Store(false)
				if tid == 0 {
					tid, err = commitBoth(t, s, oid, text, blob)
					must(t, err)
				}
				// Both objects are there, once.
				for _, o := range []zeolite.OID{oid, oid + 1} {
					h, err := s.History(t.Context(), o, 10)
					if err != nil || len(h) != 1 || h[0].TID != tid {
						t.Fatalf("%s: history of %v: %v, %v; want one revision %v", text, o, h, err, tid)
					}
				}
				// Another client, whose download is cut.
				cut.left.Store(int64(rng.IntN(110_000)))
				cut.armed.Store(true)
				o := o
				o.BlobDir = filepath.Join(t.TempDir(), "other")
				other, err := Open(t.Context(), o)
				must(t, err)
				wantBlob(t, other, oid+1, tid, blob)
				noTemporaryFiles(t, o.BlobDir)
				must(t, other.Close())
				cut.armed.Store(false)
				oid += 2
			}
			noTemporaryFiles(t, o.BlobDir)
		})
	}
}

// commitBoth commits an object and one with a blob.
func commitBoth(t *testing.T, s *Storage, oid zeolite.OID, text string, blob []byte) (zeolite.TID, error) {
	t.Helper()
	ctx := t.Context()
	up, err := s.CreateBlob(ctx)
	must(t, err)
	defer up.Discard()
	_, err = bytes.NewReader(blob).WriteTo(up)
	must(t, err)
	must(t, up.Complete())
	tx, err := s.Begin(ctx, zeolite.TxnMeta{Description: []byte(text)})
	must(t, err)
	defer tx.Abort()
	must(t, tx.Store(ctx, oid, 0, []byte(text)))
	must(t, tx.StoreBlob(ctx, oid+1, 0, []byte("record of "+text), up))
	if err := tx.Vote(ctx); err != nil {
		return 0, err
	}
	return tx.Finish(ctx, nil)
}
