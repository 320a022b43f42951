package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/tests/faults"
	"github.com/zeolite-go/zeolite/zrpc"
)

// The connection is cut at every message of a transaction with a blob, on
// either side of it and in both directions. The caller gets a typed error or
// success, the truth can be told, nothing is committed twice or by half, the
// next call works and no temporary file is left.
func TestCutTransaction(t *testing.T) {
	for _, enc := range encodings {
		t.Run(enc.String(), func(t *testing.T) {
			noLeaks(t)
			forEachCut(t, enc, []string{"tpc_begin", "storea", "storeBlobStart", "storeBlobChunk", "storeBlobEnd", "vote", "tpc_finish"},
				[]string{"info", ".reply"}, cutTransaction)
		})
	}
}

// The same for the abort of a voted transaction.
func TestCutAbort(t *testing.T) {
	noLeaks(t)
	forEachCut(t, zrpc.Msgpack, []string{"vote", "tpc_abort"}, []string{".reply"}, func(t *testing.T, c *cutter) {
		tx, err := c.s.Begin(t.Context(), zeolite.TxnMeta{})
		must(t, err)
		must(t, tx.Store(t.Context(), 1, c.serial, []byte("aborted")))
		c.arm(t)
		if err := tx.Vote(t.Context()); err != nil && !SafeToRepeat(err) {
			t.Errorf("Vote: %v", err)
		}
		tx.Abort()
		wantCurrent(t, c.s, 1, c.serial, "before")
	})
}

// tryPut commits a revision of a new object.
func tryPut(t *testing.T, s *Storage, oid zeolite.OID, data string) error {
	tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	must(t, err)
	defer tx.Abort()
	must(t, tx.Store(t.Context(), oid, 0, []byte(data)))
	if err := tx.Vote(t.Context()); err != nil {
		return err
	}
	_, err = tx.Finish(t.Context(), nil)
	return err
}

// cutter is a client whose connection is to be cut once.
type cutter struct {
	s      *Storage
	proxy  *faults.Proxy
	cut    faults.Cut
	serial zeolite.TID // of object 1, which is "before"
	dir    string      // of blobs
}

func (c *cutter) arm(t *testing.T) { must(t, c.proxy.CutAt(c.cut)) }

func forEachCut(t *testing.T, enc zrpc.Encoding, out, in []string, run func(t *testing.T, c *cutter)) {
	var cuts []faults.Cut
	for _, when := range []faults.Moment{faults.Before, faults.After} {
		for _, name := range out {
			cuts = append(cuts, faults.Cut{Dir: faults.ClientToServer, Name: name, When: when})
		}
		for _, name := range in {
			cuts = append(cuts, faults.Cut{Dir: faults.ServerToClient, Name: name, When: when})
		}
	}
	for _, cut := range cuts {
		t.Run(fmt.Sprintf("%s_%s_%s", cut.When, cut.Dir, cut.Name), func(t *testing.T) {
			srv := serve(t, newMemory(t), server.Options{Encoding: enc}, "tcp")
			proxy, err := faults.NewProxy(srv.addr)
			must(t, err)
			defer proxy.Close()
			o := testOptions(t, proxy.Addr().String())
			o.BlobDir = t.TempDir()
			c := &cutter{s: open(t, o), proxy: proxy, cut: cut, dir: o.BlobDir}
			c.serial = put(t, c.s, 1, 0, "before")
			run(t, c)
			for err := errors.New(""); err != nil; { // a cut may be left over
				if err = tryPut(t, c.s, 99, "the next call works"); err != nil && !SafeToRepeat(err) {
					t.Fatal(err)
				}
			}
			until(t, "the connection was cut", func() bool { return !proxy.Armed() })
			noTemporaryFiles(t, c.dir)
			must(t, c.s.Close())
		})
	}
}

func cutTransaction(t *testing.T, c *cutter) {
	blob := bytes.Repeat([]byte("0123456789"), 30_000)
	up, err := c.s.CreateBlob(t.Context())
	must(t, err)
	_, err = up.Write(blob)
	must(t, err)
	must(t, up.Complete())
	tx, err := c.s.Begin(t.Context(), zeolite.TxnMeta{Description: []byte("cut")})
	must(t, err)
	must(t, tx.Store(t.Context(), 1, c.serial, []byte("after")))
	must(t, tx.StoreBlob(t.Context(), 2, 0, []byte("blob record"), up))
	c.arm(t)
	tid := zeolite.ZeroTID
	err = tx.Vote(t.Context())
	if err == nil {
		tid, err = tx.Finish(t.Context(), nil)
	}
	switch {
	case err == nil:
	case errors.Is(err, zeolite.ErrInDoubt):
		tid, err = c.s.Outcome(t.Context(), err)
		must(t, err)
		t.Logf("in doubt, but it was committed: %t", tid != 0)
	case SafeToRepeat(err):
		t.Logf("failed: %v", err)
	default:
		t.Errorf("got error %v, want one that tells what to do", err)
	}
	tx.Abort()
	must(t, up.Discard())
	committed := 0
	for txn, err := range c.s.Transactions(t.Context(), 0, zeolite.MaxTID) {
		must(t, err)
		if string(txn.Description) == "cut" {
			committed++
			if txn.TID != tid {
				t.Errorf("%v is committed, but the client was told %v", txn.TID, tid)
			}
		}
	}
	if (tid != 0) != (committed == 1) || committed > 1 {
		t.Errorf("the transaction is there %d times; the client was told %v", committed, tid)
	}
	if tid == 0 {
		wantCurrent(t, c.s, 1, c.serial, "before")
		return
	}
	wantCurrent(t, c.s, 1, tid, "after")
	wantBlob(t, c.s, 2, tid, blob)
}

func wantBlob(t testing.TB, s zeolite.BlobStorage, oid zeolite.OID, tid zeolite.TID, want []byte) {
	t.Helper()
	b, err := s.OpenBlob(t.Context(), oid, tid)
	if err != nil {
		t.Errorf("OpenBlob(%v, %v): %v", oid, tid, err)
		return
	}
	defer b.Close()
	got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("blob of %v at %v: %d bytes, %v; want %d", oid, tid, len(got), err, len(want))
	}
}

// noTemporaryFiles checks that nothing is left of downloads and uploads.
func noTemporaryFiles(t testing.TB, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) != ".blob" && d.Name() != ".lock" && d.Name() != ".layout" {
			t.Errorf("%s is left", path)
		}
		return err
	}))
}

// The connection is cut at every message of a download.
func TestCutDownload(t *testing.T) {
	for _, enc := range encodings {
		t.Run(enc.String(), func(t *testing.T) {
			noLeaks(t)
			forEachCut(t, enc, []string{"sendBlob"},
				[]string{"receiveBlobStart", "receiveBlobChunk", "receiveBlobStop", ".reply"}, cutDownload)
		})
	}
}

func cutDownload(t *testing.T, c *cutter) {
	blob := bytes.Repeat([]byte("abcdefghi"), 50_000)
	tid := putBlob(t, c.s, 2, 0, blob)
	must(t, os.Remove(c.s.blobs.path(blobKey{2, tid})))
	c.arm(t)
	wantBlob(t, c.s, 2, tid, blob) // a download that is cut is made once more
	must(t, os.Remove(c.s.blobs.path(blobKey{2, tid})))
	wantBlob(t, c.s, 2, tid, blob)

	must(t, os.Remove(c.s.blobs.path(blobKey{2, tid})))
	c.arm(t)
	c.arm(t)
	if b, err := c.s.OpenBlob(t.Context(), 2, tid); err == nil {
		b.Close()
	} else if !SafeToRepeat(err) {
		t.Errorf("OpenBlob that was cut twice: %v", err)
	}
}

// putBlob commits a revision with a blob.
func putBlob(t testing.TB, s *Storage, oid zeolite.OID, serial zeolite.TID, blob []byte) zeolite.TID {
	t.Helper()
	up, err := s.CreateBlob(t.Context())
	must(t, err)
	_, err = up.Write(blob)
	must(t, err)
	must(t, up.Complete())
	tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	must(t, err)
	defer tx.Abort()
	must(t, tx.StoreBlob(t.Context(), oid, serial, []byte("blob record"), up))
	must(t, tx.Vote(t.Context()))
	tid, err := tx.Finish(t.Context(), nil)
	must(t, err)
	return tid
}

// A pack whose answer is lost goes on at the server: it is not asked for again.
func TestCutPack(t *testing.T) {
	noLeaks(t)
	forEachCut(t, zrpc.Msgpack, []string{"pack"}, []string{".reply"}, func(t *testing.T, c *cutter) {
		tid := put(t, c.s, zeolite.RootOID, 0, "\x80\x03cpersistent.mapping\nPersistentMapping\n.\x80\x03}.")
		c.proxy.Reset()
		c.arm(t)
		err := c.s.Pack(t.Context(), tid, zeolite.PackOptions{})
		answered := c.cut.Dir == faults.ServerToClient && c.cut.When == faults.After
		var lost *DisconnectedError
		if (!errors.As(err, &lost) || lost.SafeToRepeat) && !(err == nil && answered) {
			t.Errorf("Pack: got error %v, want one that says that a repetition is not safe", err)
		}
		must(t, c.s.Sync(t.Context()))
		if n := c.proxy.Counts(faults.ClientToServer)["pack"]; n != 1 {
			t.Errorf("the server was asked %d times to pack", n)
		}
	})
}
