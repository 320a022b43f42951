package server

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/zrpc"
)

// TestBlobs commits blobs and reads them back; nothing else stays on disk.
func TestBlobs(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		storage, dir := blobStorage(t)
		s := startServer(t, storage, Options{})
		p := s.connect(t, enc)
		oid := p.newOID()
		large := bytes.Repeat([]byte("0123456789"), 20_000)
		tid := p.commitBlob(oid, 0, large)
		if got := p.downloadBlob(oid, tid); !bytes.Equal(got, large) {
			t.Errorf("%d bytes came back of %d", len(got), len(large))
		}
		// Empty, both ways.
		id := p.tpcBegin()
		p.send("storeEmptyBlob", oid, tid, record("e"), id)
		p.send("storeBlobStart")
		p.send("storeBlobEnd", oid+1, zeolite.TID(0), record("e"), id)
		p.call("vote", id)
		tid2 := p.finish(id)
		for _, o := range []zeolite.OID{oid, oid + 1} {
			if got := p.downloadBlob(o, tid2); len(got) != 0 {
				t.Errorf("empty blob has %d bytes", len(got))
			}
		}
		// A second blob for the same object: the last counts.
		id = p.tpcBegin()
		p.uploadBlob(id, oid, tid2, record("1"), []byte("first"))
		p.uploadBlob(id, oid, tid2, record("2"), []byte("second"))
		p.call("vote", id)
		tid3 := p.finish(id)
		if got := p.downloadBlob(oid, tid3); string(got) != "second" {
			t.Errorf("blob is %q, want that of the last upload", got)
		}
		if files := filesBelow(t, dir); len(files) != 4 {
			t.Errorf("4 blobs, but files %v", files)
		}
	})
}

// TestUploadsThatComeToNothing leave no file behind, however they end.
func TestUploadsThatComeToNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(p *peer, id int64)
	}{
		{"disconnect in the middle", func(p *peer, _ int64) {
			p.send("storeBlobStart")
			p.send("storeBlobChunk", []byte("piece"))
			p.sync()
			p.close()
			p.waitGone()
		}},
		{"disconnect before vote", func(p *peer, id int64) {
			p.uploadBlob(id, 1, 0, record("x"), []byte("blob"))
			p.sync()
			p.close()
			p.waitGone()
		}},
		{"disconnect after vote", func(p *peer, id int64) {
			p.uploadBlob(id, 1, 0, record("x"), []byte("blob"))
			p.call("vote", id)
			p.close()
			p.waitGone()
		}},
		{"abort", func(p *peer, id int64) {
			p.uploadBlob(id, 1, 0, record("x"), []byte("blob"))
			p.call("tpc_abort", id)
		}},
		{"abort after vote", func(p *peer, id int64) {
			p.uploadBlob(id, 1, 0, record("x"), []byte("blob"))
			p.call("vote", id)
			p.call("tpc_abort", id)
		}},
		{"abort in the middle", func(p *peer, id int64) {
			p.send("storeBlobStart")
			p.send("storeBlobChunk", []byte("piece"))
			p.call("tpc_abort", id)
			// The next transaction may upload.
			id = p.tpcBegin()
			p.send("storeBlobStart")
			p.call("tpc_abort", id)
		}},
		{"replaced", func(p *peer, id int64) {
			p.uploadBlob(id, 1, 0, record("x"), []byte("blob"))
			p.uploadBlob(id, 1, 0, record("x"), []byte("blob"))
			p.call("tpc_abort", id)
		}},
		{"vote fails", func(p *peer, id int64) {
			p.uploadBlob(id, 1, 0, record("x"), []byte("blob"))
			p.send("checkCurrentSerialInTransaction", zeolite.OID(7), zeolite.TID(3), id)
			p.exception(p.begin("vote", id))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			storage, dir := blobStorage(t)
			s := startServer(t, storage, Options{})
			p := s.connect(t, zrpc.Pickle)
			c.end(p, p.tpcBegin())
			if files := filesBelow(t, dir); len(files) > 0 {
				t.Errorf("left behind: %v", files)
			}
		})
	}
}

// TestSharedBlobs: a client that shares the blob directory stores files that it
// put there, under names that cannot lead elsewhere.
func TestSharedBlobs(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		dir := t.TempDir()
		blobs := filepath.Join(dir, "blobs")
		storage, err := filestorage.Open(filepath.Join(dir, "Data.fs"), filestorage.Options{BlobDir: blobs})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { storage.Close() })
		s := startServer(t, storage, Options{})
		b := s.newBystander(t)
		p := s.connect(t, enc)
		oid := p.newOID()
		own := blobs
		for _, c := range oid.Bytes() {
			own = filepath.Join(own, "0x"+string("0123456789abcdef"[c>>4])+string("0123456789abcdef"[c&15]))
		}
		if err := os.MkdirAll(own, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(own, "0x00abc.tmp-"), []byte("shared"), 0o600); err != nil {
			t.Fatal(err)
		}
		id := p.tpcBegin()
		p.send("storeBlobShared", oid, zeolite.TID(0), record("x"), "0x00abc.tmp-", id)
		p.call("vote", id)
		tid := p.finish(id)
		if got := p.downloadBlob(oid, tid); string(got) != "shared" {
			t.Errorf("blob is %q", got)
		}
		// A file that is not there is told by vote.
		id = p.tpcBegin()
		p.send("storeBlobShared", oid, tid, record("x"), "missing.tmp", id)
		p.callRaises("builtins.FileNotFoundError", "vote", id)

		// One of another transaction is not touched.
		own = filepath.Join(own, "mine.tmp")
		if err := os.WriteFile(own, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		q := s.connect(t, enc)
		id = q.tpcBegin()
		q.send("storeBlobShared", oid, tid, record("x"), "mine.tmp", id+1)
		q.waitClosed()
		q.assertOneLine("one-way call storeBlobShared failed: ZODB.POSException.StorageTransactionError")
		if _, err := os.Stat(own); err != nil {
			t.Error(err)
		}

		secret := filepath.Join(dir, "secret.tmp")
		if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"../secret.tmp", secret, strings.Repeat("../", 8) + "secret.tmp", "x/../../secret.tmp",
			"", ".", "..", "plain", "0x00.blob", ".layout", "tmp"} {
			q := s.connect(t, enc)
			id := q.tpcBegin()
			q.send("storeBlobShared", oid, tid, record("x"), name, id)
			q.waitClosed()
			q.assertOneLine("one-way call storeBlobShared failed: builtins.ValueError")
			b.early = nil
			b.assertFine()
		}
		if got, err := os.ReadFile(secret); err != nil || string(got) != "secret" {
			t.Errorf("a file outside of the blob directory: %q, %v", got, err)
		}
	})
}
