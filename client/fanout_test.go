package client

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

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

// lagging is a client that publishes what others commit when the gate opens.
type lagging struct {
	*Storage
	gate <-chan struct{}
	late chan zeolite.TID // what waits for that
}

func (l lagging) Watch(publish zeolite.Publish, lost func()) {
	l.Storage.Watch(func(tid zeolite.TID, oids []zeolite.OID, visible func()) {
		select {
		case <-l.gate:
		default:
			l.late <- tid
			<-l.gate
		}
		publish(tid, oids, visible)
	}, lost)
}

// Whoever registers at a server that serves another one's storage finds all that
// was committed there before, by clients of any server; and as much as is known,
// if that server is away.
func TestFanOutCatchesUp(t *testing.T) {
	noLeaks(t)
	far := serve(t, newMemory(t), server.Options{}, "tcp")
	gate := make(chan struct{})
	asked := sync.OnceFunc(func() { close(gate) })
	o := testOptions(t, far.addr)
	o.Heartbeat = -1
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &onCall{Conn: c, name: "ping", do: asked}, err
	}
	between := lagging{open(t, o), gate, make(chan zeolite.TID, 1)}
	near := serve(t, between, server.Options{}, "tcp")
	defer asked()
	tid := put(t, open(t, testOptions(t, far.addr)), 1, 0, "x")
	if got := <-between.late; got != tid {
		t.Fatalf("%v is to be published, want %v", got, tid)
	}
	if got := open(t, testOptions(t, near.addr)).LastTID(); got != tid {
		t.Errorf("the client is told of %v, want %v", got, tid)
	}
	far.stop()
	o = testOptions(t, near.addr)
	o.WaitTimeout = between.opt.WaitTimeout / 2
	if got := open(t, o).LastTID(); got != tid {
		t.Errorf("the client is told of %v, want %v", got, tid)
	}
}

// Catching up takes no longer than those who register are patient.
func TestCatchUpGivesUp(t *testing.T) {
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	o := testOptions(t, srv.addr)
	o.AttemptTimeout = time.Second
	s := open(t, o)
	gate := make(chan struct{})
	defer close(gate)
	s.Watch(func(_ zeolite.TID, _ []zeolite.OID, visible func()) {
		<-gate
		visible()
	}, func() { t.Error("lost") })
	put(t, open(t, testOptions(t, srv.addr)), 1, 0, "x")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	must(t, s.CatchUp(ctx))
}
