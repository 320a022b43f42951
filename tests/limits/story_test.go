package limits

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/client"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/faults"
	"github.com/zeolite-go/zeolite/tests/peers"
)

// TestBlobStory is what the blob protocol was made for: a large blob is stored,
// and everybody who wants it gets it, once.
func TestBlobStory(t *testing.T) {
	ctx := context.Background()
	s := peers.Start(t, peers.Zeolite, peers.Options{})
	proxy, err := faults.NewProxy(s.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	cache := t.TempDir()
	db, err := client.Open(ctx, client.Options{Addresses: []string{proxy.Addr().String()}, BlobDir: cache})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })

	var lines bytes.Buffer
	for i := range 1_000_000 {
		fmt.Fprintf(&lines, "%d\n", i)
	}
	oids, err := db.NewOIDs(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	oid := oids[0]
	uncommitted := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(uncommitted, lines.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	tid := commitFile(t, db, oid, uncommitted)
	if _, err := os.Stat(uncommitted); !os.IsNotExist(err) {
		t.Errorf("the uncommitted file is still there: %v", err)
	}
	// The same bytes are in the server's directory and in the cache.
	onServer := onlyBlob(t, s.Options().BlobDir)
	inCache := onlyBlob(t, cache)
	for _, name := range []string{onServer, inCache} {
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, lines.Bytes()) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	for _, tmp := range []string{filepath.Join(s.Options().BlobDir, "tmp"), filepath.Join(cache, "tmp")} {
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("%s: %v, %v", tmp, left, err)
		}
	}

	if err := os.Remove(inCache); err != nil {
		t.Fatal(err)
	}
	proxy.Reset()
	var loads sync.WaitGroup
	for range 10 {
		loads.Go(func() {
			blob, err := db.OpenBlob(ctx, oid, tid)
			if err != nil {
				t.Error(err)
				return
			}
			defer blob.Close()
			if f, ok := blob.(interface{ File() *os.File }); !ok || f.File().Name() != inCache {
				t.Errorf("the blob is not the file %s", inCache)
			}
			got, err := io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
			if err != nil || !bytes.Equal(got, lines.Bytes()) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	loads.Wait()
	// One round trip: the client asked once, and for nothing else.
	if asked := proxy.Counts(faults.ClientToServer); len(asked) != 1 || asked["sendBlob"] != 1 {
		t.Errorf("the client sent %v, want one sendBlob", asked)
	}
	answered := proxy.Counts(faults.ServerToClient)
	if answered["receiveBlobStart"] != 1 || answered["receiveBlobStop"] != 1 || answered[".reply"] != 1 {
		t.Errorf("the server sent %v, want one blob and one reply", answered)
	}
}

// commitFile commits a file as the blob of an object. The file is moved away.
func commitFile(t *testing.T, db *client.Storage, oid zeolite.OID, name string) zeolite.TID {
	t.Helper()
	ctx := context.Background()
	upload, err := db.AdoptFile(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	txn, err := db.Begin(ctx, zeolite.TxnMeta{Description: []byte("a million lines")})
	if err != nil {
		t.Fatal(err)
	}
	defer txn.Abort()
	if err := txn.StoreBlob(ctx, oid, 0, storagetest.BlobRecord(), upload); err != nil {
		t.Fatal(err)
	}
	if err := txn.Vote(ctx); err != nil {
		t.Fatal(err)
	}
	tid, err := txn.Finish(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tid
}

// onlyBlob finds the one blob file below a directory.
func onlyBlob(t *testing.T, dir string) string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(name, ".blob") {
			found = append(found, name)
		}
		return err
	})
	if err != nil || len(found) != 1 {
		t.Fatalf("blobs below %s: %v, %v", dir, found, err)
	}
	return found[0]
}
