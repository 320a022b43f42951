package server

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/zrpc"
)

// txnIDs are ids for transactions: large numbers, as Python's are.
var txnIDs atomic.Int64

func newTxnID() int64 { return 0x7f00_0000_0000 + txnIDs.Add(1) }

// tpcBegin opens a transaction and returns its id.
func (p *peer) tpcBegin() int64 {
	p.t.Helper()
	id := newTxnID()
	p.send("tpc_begin", id, []byte("user"), []byte("description"), zrpc.NewDict(), nil, " ")
	return id
}

// record makes a data record of an object without references: the pickles of a
// class and of a state.
func record(state string) []byte {
	b := []byte("\x80\x03cpersistent.mapping\nPersistentMapping\n.")
	b, err := zrpc.AppendPickle(b, state)
	if err != nil {
		panic(err)
	}
	return b
}

// store is storea for one object.
func (p *peer) store(id int64, oid zeolite.OID, serial zeolite.TID, data []byte) {
	p.t.Helper()
	p.send("storea", oid, serial, data, id)
}

// voted opens a transaction, stores an object and votes.
func (p *peer) voted(oid zeolite.OID, serial zeolite.TID, data []byte) int64 {
	p.t.Helper()
	id := p.tpcBegin()
	p.store(id, oid, serial, data)
	if got := tupleOf(p.t, p.call("vote", id)); len(got) != 0 {
		p.t.Fatalf("vote: %v, want nothing", got)
	}
	return id
}

// finish finishes a voted transaction.
func (p *peer) finish(id int64) zeolite.TID {
	p.t.Helper()
	tid := tidOf(p.t, p.call("tpc_finish", id))
	// The new size comes in front of the reply.
	last := len(p.early) - 1
	if last < 0 || p.early[last].name != "info" {
		p.t.Errorf("in front of the reply to tpc_finish came %v, want info at last", p.early)
	} else {
		p.early = p.early[:last]
	}
	return tid
}

// commit commits one object.
func (p *peer) commit(oid zeolite.OID, serial zeolite.TID, data []byte) zeolite.TID {
	p.t.Helper()
	return p.finish(p.voted(oid, serial, data))
}

// newOID asks for one unused oid.
func (p *peer) newOID() zeolite.OID {
	p.t.Helper()
	return oidOf(p.t, tupleOf(p.t, p.call("new_oids", 1))[0])
}

// uploadBlob sends a blob in two pieces, with its record.
func (p *peer) uploadBlob(id int64, oid zeolite.OID, serial zeolite.TID, data, blob []byte) {
	p.t.Helper()
	p.send("storeBlobStart")
	half := len(blob) / 2
	p.send("storeBlobChunk", blob[:half])
	p.send("storeBlobChunk", blob[half:])
	p.send("storeBlobEnd", oid, serial, data, id)
}

// commitBlob commits an object with a blob.
func (p *peer) commitBlob(oid zeolite.OID, serial zeolite.TID, blob []byte) zeolite.TID {
	p.t.Helper()
	id := p.tpcBegin()
	p.uploadBlob(id, oid, serial, record("blob"), blob)
	p.call("vote", id)
	return p.finish(id)
}

// downloadBlob asks for a blob and returns its bytes.
func (p *peer) downloadBlob(oid zeolite.OID, tid zeolite.TID) []byte {
	p.t.Helper()
	call := p.begin("sendBlob", oid, tid)
	var blob []byte
	for state := ""; ; {
		m := p.receive()
		switch {
		case m.name == ".reply" && m.id == call:
			if m.isException() || state != "receiveBlobStop" {
				p.t.Fatalf("sendBlob: reply %v after %q", m.value, state)
			}
			return blob
		case m.name == "receiveBlobStart" || m.name == "receiveBlobStop":
			state = m.name
		case m.name == "receiveBlobChunk" && state == "receiveBlobStart":
			blob = append(blob, tupleOf(p.t, m.value)[2].([]byte)...)
		default:
			p.early = append(p.early, m)
		}
	}
}

// load returns the current revision of an object.
func (p *peer) load(oid zeolite.OID) ([]byte, zeolite.TID) {
	p.t.Helper()
	three := tupleOf(p.t, p.call("loadBefore", oid, zeolite.MaxTID))
	if len(three) != 3 || three[2] != nil {
		p.t.Fatalf("loadBefore: %v, want a current revision", three)
	}
	return three[0].([]byte), tidOf(p.t, three[1])
}

// assertLoads checks the current revision of an object.
func (p *peer) assertLoads(oid zeolite.OID, tid zeolite.TID, data []byte) {
	p.t.Helper()
	got, at := p.load(oid)
	if at != tid || !bytes.Equal(got, data) {
		p.t.Errorf("object %v is %q at %v, want %q at %v", oid, got, at, data, tid)
	}
}

// bystander is a client that minds its own business while others misbehave.
type bystander struct {
	*peer
	oid   zeolite.OID
	tid   zeolite.TID
	round byte
	// kept are objects that were committed before: nobody may lose them.
	kept map[zeolite.OID]keptRevision
}

type keptRevision struct {
	tid  zeolite.TID
	data []byte
}

// newBystander connects one that has committed two objects.
func (s *testServer) newBystander(t testing.TB) *bystander {
	t.Helper()
	b := &bystander{peer: s.connect(t, zrpc.Pickle), kept: map[zeolite.OID]keptRevision{}}
	b.oid = b.newOID()
	kept, data := b.newOID(), record("kept")
	b.kept[kept] = keptRevision{b.commit(kept, 0, data), data}
	b.tid = b.commit(b.oid, 0, record("bystander"))
	return b
}

// assertFine commits, and checks that all that was committed is still there.
func (b *bystander) assertFine() {
	b.t.Helper()
	b.round++
	data := record("bystander " + string('a'+rune(b.round%26)))
	b.tid = b.commit(b.oid, b.tid, data)
	b.assertLoads(b.oid, b.tid, data)
	for oid, k := range b.kept {
		b.assertLoads(oid, k.tid, k.data)
	}
}

// tempDir makes all temporary files of this test go to a directory of its own
// and returns that.
func tempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir
}

// filesBelow lists the files in a directory and its subdirectories.
func filesBelow(t testing.TB, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			files = append(files, strings.TrimPrefix(path, dir+"/"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// blobStorage opens a memory storage and returns it with its blob directory.
func blobStorage(t *testing.T) (zeolite.Storage, string) {
	dir := t.TempDir()
	s := memory.New(memory.Options{BlobDir: dir})
	t.Cleanup(func() { s.Close() })
	return s, dir
}
