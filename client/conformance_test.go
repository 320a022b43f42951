package client

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// The client is one more storage.
func TestConformance(t *testing.T) {
	for i, enc := range encodings {
		network := []string{"tcp", "unix"}[i]
		t.Run(fmt.Sprintf("%v over %s", enc, network), func(t *testing.T) {
			noLeaks(t)
			storagetest.Run(t, func(t *testing.T) storagetest.Harness {
				return conforming(t, server.Options{Encoding: enc}, network)
			})
		})
	}
}

func conforming(t *testing.T, opt server.Options, network string) storagetest.Harness {
	back := &choosy{Storage: memory.New(memory.Options{BlobDir: t.TempDir()})}
	t.Cleanup(func() { back.Close() })
	srv := serve(t, back, opt, network)
	o := testOptions(t, srv.addr)
	o.BlobDir = filepath.Join(t.TempDir(), "blobs")
	o.CachePath = filepath.Join(t.TempDir(), "cache")
	reopen := func(t *testing.T) zeolite.Storage { return packs{open(t, o), back, o.BlobDir} }
	return storagetest.Harness{
		Storage: reopen(t),
		Reopen:  reopen,
		ReopenReadOnly: func(t *testing.T) zeolite.Storage {
			ro := o
			ro.ReadOnly = true
			return open(t, ro)
		},
		Remote: true,
	}
}

// choosy is a storage whose next pack can be told about garbage collection,
// which the protocol cannot.
type choosy struct {
	*memory.Storage
	mu sync.Mutex
	gc *bool
}

func (c *choosy) Pack(ctx context.Context, tid zeolite.TID, opts zeolite.PackOptions) error {
	c.mu.Lock()
	opts.GC = c.gc
	c.mu.Unlock()
	return c.Storage.Pack(ctx, tid, opts)
}

// packs is a client that tells a choosy storage by the back door, and forgets
// blobs when it packs: those in the cache outlive a pack.
type packs struct {
	*Storage
	back  *choosy
	blobs string
}

func (p packs) Pack(ctx context.Context, tid zeolite.TID, opts zeolite.PackOptions) error {
	p.back.mu.Lock()
	p.back.gc = opts.GC
	p.back.mu.Unlock()
	opts.GC = nil
	defer forgetBlobs(p.blobs)
	return p.Storage.Pack(ctx, tid, opts)
}

func forgetBlobs(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*.blob"))
	for _, f := range files {
		os.Remove(f)
	}
}
