package client

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/tests/faults"
)

// randomBytes returns n bytes that do not repeat.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// A download that a lost connection interrupts goes on where it stopped, as
// often as that happens.
func TestResumeDownload(t *testing.T) {
	w, _, proxy := blobClients(t)
	const chunks = 256 // more than the kernel holds on the way
	blob := randomBytes(chunks * stubs.ChunkSize)
	tid := putBlob(t, w, 1, 0, blob)

	o := testOptions(t, proxy.Addr().String())
	o.BlobDir = filepath.Join(t.TempDir(), "cache")
	cuts := []int64{chunks / 8, chunks / 4, chunks - 1} // in chunks
	o.Progress = func(p BlobProgress) {
		if len(cuts) > 0 && p.Done >= cuts[0]*stubs.ChunkSize {
			cuts = cuts[1:]
			proxy.Drop()
		}
	}
	r := open(t, o)
	waitTID(t, r, tid)
	proxy.Reset()
	wantBlob(t, r, 1, tid, blob)
	asked := proxy.Counts(faults.ClientToServer)
	if asked["sendBlob"] != 1 || asked["sendBlobFrom"] == 0 {
		t.Errorf("the client asked for %v, want one sendBlob and then the rest", asked)
	}
	// What was on its way when the connection broke comes again, no more.
	if n := proxy.Counts(faults.ServerToClient)["receiveBlobChunk"]; n >= 2*chunks {
		t.Errorf("%d chunks were sent for a blob of %d", n, chunks)
	}
	noTemporaryFiles(t, o.BlobDir)
}

// What was received before an interruption is believed only if the whole has
// the right checksum.
func TestResumeChecksTheWhole(t *testing.T) {
	w, _, proxy := blobClients(t)
	blob := randomBytes(256 * stubs.ChunkSize) // more than the kernel holds on the way
	tid := putBlob(t, w, 1, 0, blob)

	o := testOptions(t, proxy.Addr().String())
	o.BlobDir = filepath.Join(t.TempDir(), "cache")
	spoiled := false
	o.Progress = func(p BlobProgress) {
		if spoiled || p.Done < 4*stubs.ChunkSize {
			return
		}
		spoiled = true
		// The disk loses a byte of what it was given.
		names, err := filepath.Glob(filepath.Join(o.BlobDir, "tmp", "*"))
		if err != nil || len(names) != 1 {
			t.Errorf("temporary files: %v, %v", names, err)
			return
		}
		f, err := os.OpenFile(names[0], os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt([]byte{^blob[100]}, 100)
		must(t, err)
		must(t, f.Close())
		proxy.Drop()
	}
	r := open(t, o)
	waitTID(t, r, tid)
	proxy.Reset()
	wantBlob(t, r, 1, tid, blob)
	if n := proxy.Counts(faults.ClientToServer)["sendBlob"]; n != 2 {
		t.Errorf("%d downloads from the start, want 2: the spoiled one, and another", n)
	}
}

func TestChecksum(t *testing.T) {
	content := randomBytes(1 << 20)
	name := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(name, content, 0o600))
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	if sum, err := checksum(f); err != nil || sum != sha256.Sum256(content) {
		t.Errorf("checksum = %x, %v", sum, err)
	}
}

// Prefetch of many objects is one call, and what it brought is used.
func TestPrefetchManyAtOnce(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	w := open(t, testOptions(t, srv.addr))
	const n = 900
	txn, err := w.Begin(t.Context(), zeolite.TxnMeta{})
	must(t, err)
	oids := make([]zeolite.OID, n)
	for i := range oids {
		oids[i] = zeolite.OID(i)
		must(t, txn.Store(t.Context(), oids[i], 0, fmt.Appendf(nil, "object %d", i)))
	}
	must(t, txn.Vote(t.Context()))
	tid, err := txn.Finish(t.Context(), nil)
	must(t, err)

	proxy, err := faults.NewProxy(srv.addr)
	must(t, err)
	t.Cleanup(proxy.Close)
	r := open(t, testOptions(t, proxy.Addr().String()))
	waitTID(t, r, tid)
	proxy.Reset()
	must(t, r.Prefetch(t.Context(), append(oids, 5000), zeolite.MaxTID))
	for i, oid := range oids {
		rev, err := r.LoadBefore(t.Context(), oid, zeolite.MaxTID)
		if err != nil || string(rev.Data) != fmt.Sprintf("object %d", i) {
			t.Fatalf("object %d: %q, %v", i, rev.Data, err)
		}
	}
	if asked := proxy.Counts(faults.ClientToServer); asked["loadMany"] != 1 || asked["loadBefore"] != 0 {
		t.Errorf("the client asked for %v, want one loadMany", asked)
	}
}
