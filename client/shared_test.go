package client

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/tests/faults"
	"github.com/zeolite-go/zeolite/tests/peers"
)

// pythonReader opens the blobs it is told of and prints what is in them.
const pythonReader = `
import hashlib, sys, threading
from ZEO.ClientStorage import ClientStorage
host, port, blobs = sys.argv[1:]
s = ClientStorage((host, int(port)), blob_dir=blobs, wait_timeout=60)
print("ready", flush=True)
for line in sys.stdin:
    out = []
    def load(oid, tid):
        with open(s.loadBlob(bytes.fromhex(oid), bytes.fromhex(tid)), "rb") as f:
            out.append(oid + " " + hashlib.sha256(f.read()).hexdigest())
    for pair in line.split():
        load(*pair.split(":"))
    print(" ".join(sorted(out)), flush=True)
`

// goReader is the same in Go, run as a process of this test's program.
func goReader(addr, blobs string) {
	o := Options{Addresses: []string{addr}, BlobDir: blobs}
	s, err := Open(context.Background(), o)
	if err != nil {
		panic(err)
	}
	defer s.Close()
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var out []string
		for _, pair := range strings.Fields(in.Text()) {
			var k blobKey
			if _, err := fmt.Sscanf(pair, "%16x:%16x", &k.oid, &k.tid); err != nil {
				panic(err)
			}
			if err := s.Sync(context.Background()); err != nil {
				panic(err)
			}
			b, err := s.OpenBlob(context.Background(), k.oid, k.tid)
			if err != nil {
				panic(err)
			}
			h := sha256.New()
			_, err = io.Copy(h, io.NewSectionReader(b, 0, b.Size()))
			if err != nil {
				panic(err)
			}
			b.Close()
			out = append(out, fmt.Sprintf("%016x %x", uint64(k.oid), h.Sum(nil)))
		}
		fmt.Println(strings.Join(out, " "))
	}
}

// TestMain runs the tests, or what a test has started this program for.
func TestMain(m *testing.M) {
	as := strings.Fields(os.Getenv("ZEOLITE_TEST_AS"))
	switch {
	case len(as) == 0:
		os.Exit(m.Run())
	case as[0] == "reader":
		goReader(as[1], as[2])
	case as[0] == "cache":
		cacheUser(as[1], as[2], as[3])
	}
}

// reader is a process that reads blobs. One goroutine uses it.
type reader struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	isGo bool
}

func startReader(t *testing.T, python, host, port, blobs string) *reader {
	r := &reader{isGo: python == ""}
	if r.isGo {
		r.cmd = exec.Command(os.Args[0])
		r.cmd.Env = append(os.Environ(), "ZEOLITE_TEST_AS=reader "+host+":"+port+" "+blobs)
	} else {
		r.cmd = exec.Command(python, "-c", pythonReader, host, port, blobs)
	}
	r.cmd.Stderr = t.Output()
	var err error
	r.in, err = r.cmd.StdinPipe()
	must(t, err)
	out, err := r.cmd.StdoutPipe()
	must(t, err)
	r.out = bufio.NewScanner(out)
	r.out.Buffer(nil, 1<<20)
	must(t, r.cmd.Start())
	if !r.out.Scan() || r.out.Text() != "ready" {
		t.Fatalf("a reader did not start: %q", r.out.Text())
	}
	return r
}

func (r *reader) end() {
	r.in.Close()
	_ = r.cmd.Wait()
}

// kill ends the process at once.
func (r *reader) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// Two Go and two Python processes share a blob cache and ask for the same
// blobs at once, over and over; some Go processes are killed in the middle.
// Each blob is downloaded once, whoever does it, and everybody reads all of it.
// Python processes are not killed: the next one of them would take what is left
// of a download for the beginning of its own.
func TestSharedBlobCache(t *testing.T) {
	python := peers.Python(t)
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	proxy, err := faults.NewProxy(srv.addr)
	must(t, err)
	defer proxy.Close()
	host, port := "127.0.0.1", fmt.Sprint(proxy.Addr().Port)
	dir := t.TempDir()
	blobs := filepath.Join(dir, "shared")
	o := testOptions(t, srv.addr)
	o.BlobDir = filepath.Join(dir, "writer")
	w := open(t, o)

	var readers []*reader
	defer func() {
		for _, r := range readers {
			r.end()
		}
	}()
	for i := range 4 {
		p := python
		if i%2 == 0 {
			p = ""
		}
		readers = append(readers, startReader(t, p, host, port, blobs))
	}
	const count, rounds = 10, 6
	for round := range rounds {
		var ask, want []string
		for i := range count {
			oid := zeolite.OID(1000*round + i + 1)
			data := []byte(strings.Repeat(fmt.Sprintf("%d/%d ", round, i), 50_000))
			tid := putBlob(t, w, oid, 0, data)
			ask = append(ask, fmt.Sprintf("%016x:%v", uint64(oid), tid))
			want = append(want, fmt.Sprintf("%016x %x", uint64(oid), sha256.Sum256(data)))
		}
		proxy.Reset()
		for _, r := range readers {
			fmt.Fprintln(r.in, strings.Join(ask, " "))
		}
		killed := round%2 == 1
		if killed {
			victim := readers[0]
			until(t, "a download is under way", func() bool {
				return proxy.Counts(faults.ServerToClient)["receiveBlobChunk"] > 5
			})
			victim.kill()
			readers = readers[1:]
		}
		for _, r := range readers {
			if !r.out.Scan() {
				t.Fatalf("round %d: a reader (Go: %t) ended: %v", round, r.isGo, r.out.Err())
			}
			if got := r.out.Text(); got != strings.Join(want, " ") {
				t.Errorf("round %d: a reader (Go: %t) read something else:\n%s\nwant\n%s", round, r.isGo, got, strings.Join(want, " "))
			}
		}
		n := proxy.Counts(faults.ClientToServer)["sendBlob"]
		if n != count && !(killed && n == count+1) {
			t.Errorf("round %d: %d downloads of %d blobs, killed: %t", round, n, count, killed)
		}
		if killed {
			readers = append([]*reader{startReader(t, "", host, port, blobs)}, readers...)
		}
	}
	for _, r := range readers {
		r.end()
	}
	readers = nil
	noTemporaryFiles(t, blobs)
}
