package client

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// A server can serve a storage of another server: the suite runs over both.
func TestConformanceFanOut(t *testing.T) {
	noLeaks(t)
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		far, near := fanOut(t)
		o := testOptions(t, near.addr)
		o.BlobDir = filepath.Join(t.TempDir(), "blobs")
		back := far.storage.(*choosy)
		return storagetest.Harness{Storage: packs{open(t, o), back, o.BlobDir}, Remote: true}
	})
}

// fanOut starts a server, and another one that serves the first one's storage.
func fanOut(t *testing.T) (far, near *testServer) {
	back := &choosy{Storage: memory.New(memory.Options{BlobDir: t.TempDir()})}
	t.Cleanup(func() { back.Close() })
	far = serve(t, back, server.Options{}, "tcp")
	o := testOptions(t, far.addr)
	o.BlobDir = filepath.Join(t.TempDir(), "between")
	between := forgetful{open(t, o), o.BlobDir}
	return far, serve(t, between, server.Options{}, "tcp")
}

// forgetful is a client whose blob cache does not outlive a pack.
type forgetful struct {
	*Storage
	blobs string
}

func (f forgetful) Pack(ctx context.Context, tid zeolite.TID, opts zeolite.PackOptions) error {
	defer forgetBlobs(f.blobs)
	return f.Storage.Pack(ctx, tid, opts)
}

// What is committed at either server is seen at both.
func TestFanOutInvalidations(t *testing.T) {
	noLeaks(t)
	far, near := fanOut(t)
	a, b := open(t, testOptions(t, far.addr)), open(t, testOptions(t, near.addr))
	serial := zeolite.ZeroTID
	for i, text := range []string{"one", "two", "three", "four"} {
		writer, reader := a, b
		if i%2 == 1 {
			writer, reader = b, a
		}
		serial = put(t, writer, 1, serial, text)
		waitTID(t, reader, serial)
		rev, err := reader.LoadBefore(t.Context(), 1, zeolite.MaxTID)
		if err != nil || string(rev.Data) != text || rev.TID != serial || rev.End != 0 {
			t.Errorf("%s: loaded %q of %v, %v", text, rev.Data, rev.TID, err)
		}
	}
	// Whoever comes back after the far server was away is not given old state.
	far.stop()
	far.start()
	serial = put(t, a, 1, serial, "five")
	waitTID(t, b, serial)
	if rev, err := b.LoadBefore(t.Context(), 1, zeolite.MaxTID); err != nil || string(rev.Data) != "five" {
		t.Errorf("after a restart: %q, %v", rev.Data, err)
	}
}
