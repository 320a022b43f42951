package load

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/tests/serving"
)

// serve runs a server for a test.
func serve(t *testing.T) Target {
	t.Helper()
	dir := t.TempDir()
	storage, err := filestorage.Open(filepath.Join(dir, "Data.fs"), filestorage.Options{BlobDir: filepath.Join(dir, "blobs")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := storage.Close(); err != nil {
			t.Error(err)
		}
	})
	_, addr := serving.Start(t, storage)
	return Target{Address: addr}
}

// short is how long the first try lasts; on a busy machine longer ones follow.
const (
	short = 100 * time.Millisecond
	long  = time.Minute
)

// TestWork lets every work do something to a real server, in both encodings.
func TestWork(t *testing.T) {
	target := serve(t)
	few := Options{Conns: 2, Depth: 3, Size: 300, Objects: 50, Time: short}
	pieces := Options{Conns: 2, Size: 200_000, Count: 2, Piece: 59000, FirstOID: 1000}
	for _, c := range []struct {
		name string
		o    Options
		do   func(Options) (*Result, error)
		ops  uint64 // exactly, if it is not zero
	}{
		{"pings", few, Pings, 0},
		{"loads", few, Loads, 0},
		{"paced loads", Options{Size: 300, Objects: 50, Time: short, Pace: time.Millisecond}, Loads, 0},
		{"commits", Options{Conns: 2, Size: 300, Records: 3, Time: short, FirstOID: 100}, Commits, 0},
		{"overlapping commits", Options{Conns: 3, Size: 300, Time: short, Overlap: true, FirstOID: 200}, Commits, 0},
		{"stalled commits", Options{Conns: 2, Size: 300, Time: short, FirstOID: 300}, func(o Options) (*Result, error) {
			return StalledCommits(o, 10*time.Millisecond, true)
		}, 0},
		{"commits beside one that waits", few, func(o Options) (*Result, error) {
			return StalledCommits(o, 10*time.Millisecond, false)
		}, 0},
		{"blob puts", pieces, BlobPuts, 4},
		{"blob gets", pieces, BlobGets, 4},
		{"fan-out", Options{Conns: 3, Size: 300, Time: short, FirstOID: 400}, func(o Options) (*Result, error) {
			return FanOut(o, 10*time.Millisecond)
		}, 0},
		{"slow loads", few, func(o Options) (*Result, error) {
			return SlowReaders(o, Slow{Readers: 2, Rate: 1 << 20, Loads: 1000})
		}, 0},
		{"slow blobs", few, func(o Options) (*Result, error) {
			return SlowReaders(o, Slow{Readers: 2, Rate: 1 << 20, BlobSize: 100_000})
		}, 0},
	} {
		for _, encoding := range []byte("MZ") {
			t.Run(c.name+" "+string(encoding), func(t *testing.T) {
				o := c.o
				o.Target = target
				o.Encoding = encoding
				r, err := c.do(o)
				for ; err == nil && r.Ops == 0 && o.Time < long; r, err = c.do(o) {
					o.Time *= 4
				}
				if err != nil {
					t.Fatal(err)
				}
				if r.Ops == 0 || c.ops > 0 && r.Ops != c.ops || r.Disordered > 0 {
					t.Errorf("%d operations, %d in disorder", r.Ops, r.Disordered)
				}
				if r.Latency.Count() != r.Ops {
					t.Errorf("%d latencies of %d operations", r.Latency.Count(), r.Ops)
				}
			})
		}
	}
}

func TestMixedWork(t *testing.T) {
	o := Options{Target: serve(t), Size: 300, Objects: 20, Time: short, Pace: time.Millisecond}
	const size = 300_000
	r, err := MixedWork(o, size)
	for ; err == nil && (r.Loads.Ops == 0 || r.Blob.Bytes == 0) && o.Time < long; r, err = MixedWork(o, size) {
		o.Time *= 4
	}
	if err != nil {
		t.Fatal(err)
	}
	if r.Loads.Ops == 0 || r.Blob.Bytes == 0 {
		t.Errorf("%d loads, %d bytes of blob", r.Loads.Ops, r.Blob.Bytes)
	}
}

// TestWrongRecord finds a record that is not what it should be.
func TestWrongRecord(t *testing.T) {
	o := Options{Target: serve(t), Size: 300, Objects: 10, Time: short}
	serials, err := Prepare(o)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(o.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, bad := range []struct {
		what        string
		size        int
		oid, serial uint64
	}{{"size", 299, 3, serials[2]}, {"object", 300, 4, serials[2]}, {"serial", 300, 3, serials[2] + 1}} {
		if err := c.send(pair{3, maxTID}, false, "loadBefore", uint64(3), uint64(maxTID)); err != nil {
			t.Fatal(err)
		}
		if err := c.flush(); err != nil {
			t.Fatal(err)
		}
		m, err := c.reply()
		if err != nil {
			t.Fatal(err)
		}
		if err := checkLoad(c.enc, m.args, 300, 3, serials[2]); err != nil {
			t.Fatal(err)
		}
		if checkLoad(c.enc, m.args, bad.size, bad.oid, bad.serial) == nil {
			t.Errorf("a wrong %s passes", bad.what)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	if _, err := Pings(Options{Target: Target{Address: address}}); err == nil {
		t.Error("no error without a server")
	}
}

// TestFanOutRecords: how large a transaction is does not depend on the number of
// listeners.
func TestFanOutRecords(t *testing.T) {
	const size = 300
	target := serve(t)
	if _, err := FanOut(Options{Target: target, Conns: 4, Records: 2, Size: size, Time: short}, 10*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	c, err := Dial(target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for oid := range uint64(4) {
		_, there, err := c.look(size, oid)
		if err != nil {
			t.Fatal(err)
		}
		if want := oid == 1 || oid == 2; there != want {
			t.Errorf("object %d is there: %v", oid, there)
		}
	}
}
