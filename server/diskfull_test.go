package server

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/zrpc"
)

// TestDiskFull makes each step of a commit fail as a full disk does: the client
// is told by vote or tpc_finish, and nobody else notices.
func TestDiskFull(t *testing.T) {
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
			storage := newFaulty(open(t))
			s := startServer(t, storage, Options{})
			b := s.newBystander(t)
			p := s.connect(t, enc)
			for _, op := range []string{"begin", "store", "storeblob", "vote", "finish", "createblob", "writeblob", "completeblob"} {
				storage.fails(op, errDiskFull)
				oid := p.newOID()
				id := p.tpcBegin()
				p.store(id, oid, 0, record("lost"))
				p.uploadBlob(id, oid+1000, 0, record("lost"), []byte("lost as well"))
				call := p.begin("vote", id)
				if op == "finish" {
					p.result(call)
					call = p.begin("tpc_finish", id)
				}
				if e := p.exception(call); e.Class != "ZODB.POSException.StorageError" {
					t.Errorf("%s: raised %v", op, e)
				}
				p.call("tpc_abort", id)
				storage.on(op, nil)
				p.callRaises("ZODB.POSException.POSKeyError", "loadBefore", oid, zeolite.MaxTID)
				b.assertFine()
				// The same connection goes on too, with the same object.
				p.early = nil
				p.commit(oid, 0, record("kept"))
				b.early = nil
			}
			// Each failure is one line in the log.
			n := 0
			for _, r := range s.logs.all() {
				if r.client == p.name && r.level >= 8 {
					n++
				}
			}
			if n < 8 || n > 11 { // an upload that fails says so, and vote again
				t.Errorf("%d errors in the log for 8 failures", n)
			}
		})
	})
}

// TestNoRoomForTemporaryFiles: a transaction that does not fit in memory needs
// a temporary file; if there can be none, vote says so.
func TestNoRoomForTemporaryFiles(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		storage := newMemory(t)
		t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
		s := startServer(t, storage, Options{Limits: Limits{TransactionMemory: 1000}})
		b := s.newBystander(t)
		p := s.connect(t, enc)
		id := p.tpcBegin()
		for i := range 20 {
			p.store(id, zeolite.OID(1000+i), 0, make([]byte, 300))
		}
		p.callRaises("builtins.OSError", "vote", id)
		p.call("tpc_abort", id)
		b.assertFine()
		p.early = nil
		p.commit(p.newOID(), 0, record("small"))
	})
}

// TestLargeTransactionUsesATemporaryFile, whose name is gone while it is open.
func TestLargeTransactionUsesATemporaryFile(t *testing.T) {
	dir := tempDir(t)
	s := startServer(t, newMemory(t), Options{Limits: Limits{TransactionMemory: 1000}})
	p := s.connect(t, zrpc.Pickle)
	id := p.tpcBegin()
	for i := range 20 {
		data := make([]byte, 300)
		data[0] = byte(i)
		p.store(id, zeolite.OID(1000+i), 0, data)
	}
	p.call("vote", id)
	if files := filesBelow(t, dir); len(files) > 0 {
		t.Errorf("in the directory of temporary files: %v", files)
	}
	tid := p.finish(id)
	for i := range 20 {
		data := make([]byte, 300)
		data[0] = byte(i)
		p.assertLoads(zeolite.OID(1000+i), tid, data)
	}
}

// TestReadErrors: a storage that cannot read tells each caller so.
func TestReadErrors(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		storage := newFaulty(newMemory(t))
		s := startServer(t, storage, Options{})
		b := s.newBystander(t)
		p := s.connect(t, enc)
		damaged := &zeolite.StorageError{Class: "ZODB.FileStorage.format.CorruptedDataError", Message: "bad record"}
		storage.fails("load", damaged)
		storage.fails("openblob", damaged)
		p.callRaises(damaged.Class, "loadBefore", b.oid, zeolite.MaxTID)
		p.callRaises(damaged.Class, "sendBlob", b.oid, b.tid)
		storage.on("load", nil)
		b.assertFine()
	})
}

// TestReadErrorsAreLogged, in one line each.
func TestReadErrorsAreLogged(t *testing.T) {
	damaged := &zeolite.StorageError{Message: "bad record"}
	for op, call := range map[string]func(b *bystander) int64{
		"load":     func(b *bystander) int64 { return b.begin("loadBefore", b.oid, zeolite.MaxTID) },
		"serial":   func(b *bystander) int64 { return b.begin("loadSerial", b.oid, b.tid) },
		"openblob": func(b *bystander) int64 { return b.begin("sendBlob", b.oid, b.tid) },
		"newoids":  func(b *bystander) int64 { return b.begin("new_oids", 1) },
		"changes":  func(b *bystander) int64 { return b.begin("getInvalidations", zeolite.TID(1)) },
		"undolog":  func(b *bystander) int64 { return b.begin("undoLog", 0, -20) },
	} {
		storage := newFaulty(newMemory(t))
		b := startServer(t, storage, Options{}).newBystander(t)
		storage.fails(op, damaged)
		b.exception(call(b))
		b.assertOneLine("ERROR ")
		b.assertOneLine("bad record")
	}
}

// unreadable is a storage whose blobs cannot be read.
type unreadable struct {
	fullStorage
	err error
}

func (u unreadable) OpenBlob(context.Context, zeolite.OID, zeolite.TID) (zeolite.Blob, error) {
	return u, nil
}
func (u unreadable) Size() int64                       { return 10 }
func (u unreadable) ReadAt([]byte, int64) (int, error) { return 0, u.err }
func (u unreadable) Close() error                      { return nil }

// TestBlobThatCannotBeRead ends the connection, since part of it was sent. The log
// does not say that the network did.
func TestBlobThatCannotBeRead(t *testing.T) {
	for _, cause := range []error{io.ErrUnexpectedEOF, io.EOF, &net.OpError{Op: "read", Err: syscall.ECONNRESET}} {
		s := startServer(t, unreadable{newMemory(t).(fullStorage), &zeolite.StorageError{Message: "cannot read", Err: cause}}, Options{})
		p := s.connect(t, zrpc.Msgpack)
		p.begin("sendBlob", zeolite.OID(0x123), zeolite.TID(0x456))
		p.waitClosed()
		p.assertOneLine("ERROR client was disconnected")
		p.assertOneLine("cannot read the blob of 0x0123 at 0000000000000456: ")
	}
}

// badFiles is a storage of one blob, in a file with which something is wrong.
type badFiles struct {
	fullStorage
	name string
	flag int
	size int64
}

// badFile is that blob.
type badFile struct {
	file *os.File
	size int64
}

func (b badFiles) OpenBlob(context.Context, zeolite.OID, zeolite.TID) (zeolite.Blob, error) {
	f, err := os.OpenFile(b.name, b.flag, 0)
	return badFile{f, b.size}, err
}
func (b badFile) File() *os.File                          { return b.file }
func (b badFile) Size() int64                             { return b.size }
func (b badFile) ReadAt(p []byte, off int64) (int, error) { return b.file.ReadAt(p, off) }
func (b badFile) Close() error                            { return b.file.Close() }

// TestBlobFileThatCannotBeRead: the log tells which file it is, whether it is sent
// by sendfile or copied.
func TestBlobFileThatCannotBeRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "bad.blob")
	if err := os.WriteFile(name, make([]byte, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flag  int
		size  int64
		cause string
	}{
		{os.O_RDONLY, 100_010, "unexpected EOF"}, // in the small piece at the end
		{os.O_RDONLY, 200_000, "unexpected EOF"}, // in the second of four
		{os.O_WRONLY, 10, "bad file descriptor"}, // it is there, and cannot be read
		{os.O_WRONLY, 100_000, "bad file descriptor"},
	} {
		s := startServer(t, badFiles{newMemory(t).(fullStorage), name, c.flag, c.size}, Options{})
		p := s.connect(t, zrpc.Msgpack)
		p.begin("sendBlob", zeolite.OID(0x123), zeolite.TID(0x456))
		p.waitClosed()
		p.assertOneLine("ERROR client was disconnected")
		p.assertOneLine("cannot read the blob of 0x0123 at 0000000000000456: read " + name + ": " + c.cause)
	}
}

// TestBlobMissingOnDisk: the record is there, its file is not.
func TestBlobMissingOnDisk(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		dir := t.TempDir()
		storage, err := filestorage.Open(filepath.Join(dir, "Data.fs"), filestorage.Options{BlobDir: filepath.Join(dir, "blobs")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { storage.Close() })
		s := startServer(t, storage, Options{})
		b := s.newBystander(t)
		p := s.connect(t, enc)
		oid := p.newOID()
		tid := p.commitBlob(oid, 0, []byte("soon gone"))
		for _, f := range filesBelow(t, dir) {
			if filepath.Ext(f) == ".blob" {
				if err := os.Remove(filepath.Join(dir, f)); err != nil {
					t.Fatal(err)
				}
			}
		}
		p.callRaises("ZODB.POSException.POSKeyError", "sendBlob", oid, tid)
		if len(p.early) > 0 {
			t.Errorf("received %v in front of the exception", p.early)
		}
		b.assertFine()
	})
}

// TestFinishThatFailsLate: an error after the transaction was published is the
// storage's bug. The client has its answer already and gets no second one.
func TestFinishThatFailsLate(t *testing.T) {
	storage := newFaulty(newMemory(t))
	s := startServer(t, storage, Options{})
	b := s.newBystander(t)
	p := s.connect(t, zrpc.Msgpack)
	oid := p.newOID()
	id := p.voted(oid, 0, record("x"))
	storage.on("finished", func(context.Context) error { return errDiskFull })
	tid := p.finish(id)
	storage.on("finished", nil)
	p.assertLoads(oid, tid, record("x"))
	b.assertFine()
	if len(p.early) > 0 && p.early[0].name == ".reply" {
		t.Errorf("a second reply: %v", p.early)
	}
}

// TestFinishInDoubt: if the storage does not know whether it committed, neither
// answer would be true; the connection ends, and the client knows as much.
func TestFinishInDoubt(t *testing.T) {
	storage := newFaulty(newMemory(t))
	s := startServer(t, storage, Options{})
	b := s.newBystander(t)
	p := s.connect(t, zrpc.Pickle)
	id := p.voted(p.newOID(), 0, record("x"))
	storage.fails("finish", zeolite.ErrInDoubt)
	p.begin("tpc_finish", id)
	for _, m := range p.waitClosed() {
		t.Errorf("received %v", m)
	}
	storage.on("finish", nil)
	b.assertFine()
}
