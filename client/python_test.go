package client

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/peers"
)

// pythonServer is a runzeo that serves many empty storages, so that each test
// can have a new one without waiting for Python to start. It is safe for
// concurrent use.
type pythonServer struct {
	addr string
	dir  string
	next atomic.Int64
}

// runzeo starts Python's server, which ends with the test. A test that has no
// Python is skipped.
func runzeo(t *testing.T, storages int, settings ...string) *pythonServer {
	t.Helper()
	python := peers.Python(t)
	dir, err := os.MkdirTemp("", "zeolite-runzeo") // short, for the socket's path
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &pythonServer{addr: filepath.Join(dir, "s"), dir: dir}
	var conf strings.Builder
	fmt.Fprintf(&conf, "<zeo>\n  address %s\n  %s\n</zeo>\n", s.addr, strings.Join(settings, "\n  "))
	for i := range storages {
		fmt.Fprintf(&conf, "<filestorage %d>\n  path %s/%[1]d.fs\n  blob-dir %[2]s/%[1]d.blobs\n</filestorage>\n", i+1, dir)
	}
	path := filepath.Join(dir, "zeo.conf")
	must(t, os.WriteFile(path, []byte(conf.String()), 0o666))
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	cmd := exec.Command(python, "-m", "ZEO.runzeo", "-C", path)
	cmd.Stdout, cmd.Stderr = log, log
	must(t, cmd.Start())
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err == nil {
			<-exited
		}
		log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("log of runzeo:\n%s", text[max(0, len(text)-20_000):])
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("unix", s.addr); err == nil {
			c.Close()
			return s
		}
		select {
		case err := <-exited:
			text, _ := os.ReadFile(log.Name())
			exited <- err
			t.Fatalf("runzeo ended: %v\n%s", err, text)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("runzeo is not ready")
		}
	}
}

// options are those of a client of the next unused storage.
func (s *pythonServer) options(t *testing.T) Options {
	o := testOptions(t, s.addr)
	o.Storage = fmt.Sprint(s.next.Add(1))
	o.BlobDir = filepath.Join(t.TempDir(), "blobs")
	return o
}

// eachEncoding runs a test against runzeo in both encodings.
func eachEncoding(t *testing.T, storages int, test func(t *testing.T, srv *pythonServer), settings ...string) {
	for _, enc := range encodings {
		t.Run(enc.String(), func(t *testing.T) {
			noLeaks(t)
			msgpack := fmt.Sprintf("msgpack %t", enc.String() == "msgpack")
			test(t, runzeo(t, storages, append(settings, msgpack)...))
		})
	}
}

// pythonFaults are the tests that Python's server cannot pass, and why.
var pythonFaults = map[string]string{
	// FileStorage compares what the transaction to undo wrote with what is
	// current by their records. Those of blobs are all equal, so it undoes what
	// a later transaction has changed, whose blob is no longer current then.
	"/Blob/UndoConflict": "undo compares records and not blobs",
	// It is asked for the object after another one, and announces what is
	// next in its index, where deleted objects are, too; asked for one of
	// those it fails. TestNextRecordPython has what works all the same.
	"/Iterate/NextRecordDeleted": "record_iternext announces deleted objects",
}

// The client is a storage over a server in Python, too.
func TestConformancePython(t *testing.T) {
	eachEncoding(t, 150, func(t *testing.T, srv *pythonServer) {
		storagetest.Run(t, func(t *testing.T) storagetest.Harness {
			for test, fault := range pythonFaults {
				if strings.HasSuffix(t.Name(), test) {
					return storagetest.Harness{NotApplicable: "a known fault of Python's server: " + fault}
				}
			}
			o := srv.options(t)
			lacks := []string{"pack"}
			random := strings.Contains(t.Name(), "/Random/")
			if random {
				lacks = append(lacks, "record iteration")
			}
			if random || strings.Contains(t.Name(), "/Restore/CopyHistory") {
				o.BlobDir = "" // histories with any undo: see pythonFaults
				lacks = append(lacks, "blobs")
			}
			reopen := func(t *testing.T) zeolite.Storage { return lacking{open(t, o), random} }
			return storagetest.Harness{
				Storage: reopen(t),
				Reopen:  reopen,
				Lacks:   lacks,
				ReopenReadOnly: func(t *testing.T) zeolite.Storage {
					ro := o
					ro.ReadOnly = true
					return open(t, ro)
				},
				Remote: true,
			}
		})
	}, "client-conflict-resolution true")
}

// lacking leaves out the tests of packing, since they choose whether garbage is
// collected, which the protocol cannot (see TestPackPython), and NextRecord
// where deleted objects may turn up (see pythonFaults).
type lacking struct {
	*Storage
	records bool
}

func (s lacking) Info() zeolite.Info {
	info := s.Storage.Info()
	info.Pack = false
	info.RecordIteration = info.RecordIteration && !s.records
	return info
}

func (s lacking) NextRecord(ctx context.Context, from zeolite.OID) (zeolite.CurrentRecord, error) {
	if s.records {
		return zeolite.CurrentRecord{}, zeolite.ErrUnsupported
	}
	return s.Storage.NextRecord(ctx, from)
}

func (lacking) Pack(context.Context, zeolite.TID, zeolite.PackOptions) error {
	return zeolite.ErrUnsupported
}

// The blob directory of a server in Python is shared.
func TestSharedBlobDirPython(t *testing.T) {
	eachEncoding(t, 1, func(t *testing.T, srv *pythonServer) {
		o := srv.options(t)
		o.BlobDir, o.SharedBlobDir = filepath.Join(srv.dir, o.Storage+".blobs"), true
		s := open(t, o)
		tid := putBlob(t, s, 7, 0, []byte("shared"))
		second := putBlob(t, s, 7, tid, []byte("shared again"))
		wantBlob(t, s, 7, tid, []byte("shared"))
		wantBlob(t, s, 7, second, []byte("shared again"))
		// Another one downloads them.
		o.BlobDir, o.SharedBlobDir = filepath.Join(t.TempDir(), "blobs"), false
		wantBlob(t, open(t, o), 7, second, []byte("shared again"))
	})
}

// Python's server packs, with its own choice about garbage; what was packed
// away is not served from the cache.
func TestPackPython(t *testing.T) {
	eachEncoding(t, 1, func(t *testing.T, srv *pythonServer) {
		s := open(t, srv.options(t))
		root := []byte("\x80\x03cpersistent.mapping\nPersistentMapping\n.\x80\x03}.")
		first := put(t, s, zeolite.RootOID, 0, string(root))
		garbage := put(t, s, 1, 0, "garbage")
		second := put(t, s, zeolite.RootOID, first, string(root))
		wantCurrent(t, s, 1, garbage, "garbage")
		if _, err := s.LoadBefore(t.Context(), zeolite.RootOID, second); err != nil {
			t.Fatal(err)
		}
		if err := s.Pack(t.Context(), s.LastTID(), zeolite.PackOptions{}); err != nil {
			t.Fatal(err)
		}
		wantCurrent(t, s, zeolite.RootOID, second, string(root))
		if rev, err := s.LoadBefore(t.Context(), zeolite.RootOID, second); err == nil {
			t.Errorf("the revision before the last is still there: %v", rev.TID)
		}
		if rev, err := s.LoadBefore(t.Context(), 1, zeolite.MaxTID); !isAbsent(err) {
			t.Errorf("garbage is still there: %v, %v", rev.TID, err)
		}
	})
}

// Deleted objects are passed over, as far as Python's server lets it be known.
func TestNextRecordPython(t *testing.T) {
	eachEncoding(t, 1, func(t *testing.T, srv *pythonServer) {
		s := open(t, srv.options(t))
		var serials [4]zeolite.TID
		for oid := range zeolite.OID(4) {
			serials[oid] = put(t, s, oid, 0, "x")
		}
		tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
		must(t, err)
		must(t, tx.Delete(t.Context(), 1, serials[1]))
		must(t, tx.Vote(t.Context()))
		_, err = tx.Finish(t.Context(), nil)
		must(t, err)
		var oids []zeolite.OID
		for rec := (zeolite.CurrentRecord{More: true}); rec.More; {
			rec, err = s.NextRecord(t.Context(), rec.Next)
			must(t, err)
			oids = append(oids, rec.OID)
		}
		if fmt.Sprint(oids) != "[0x00 0x02 0x03]" {
			t.Errorf("NextRecord walks over %v", oids)
		}
	})
}
