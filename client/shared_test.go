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
// blobs at once, over and over; some are killed in the middle of a download.
// Each blob is downloaded once, whoever does it, and everybody reads all of it;
// no lock stays held, and nothing is left of the downloads of the dead.
//
// When a Python process was killed the Go processes come next: another one in
// Python would take what is left of the download for the beginning of its own.
func TestSharedBlobCache(t *testing.T) {
	python := peers.Python(t)
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	proxy, err := faults.NewProxy(srv.addr)
	must(t, err)
	defer proxy.Close()
	host, port := "127.0.0.1", fmt.Sprint(proxy.Addr().Port)
	dir := t.TempDir()
	g := &sharing{proxy: proxy, blobs: filepath.Join(dir, "shared")}
	o := testOptions(t, srv.addr)
	o.BlobDir = filepath.Join(dir, "writer")
	g.writer = open(t, o)

	start := func(isGo bool) *reader {
		if isGo {
			return startReader(t, "", host, port, g.blobs)
		}
		return startReader(t, python, host, port, g.blobs)
	}
	readers := []*reader{start(true), start(true), start(false), start(false)}
	defer func() {
		for _, r := range readers {
			r.end()
		}
	}()
	rounds := 6
	if peers.Long() {
		rounds = 60
	}
	for round := range rounds {
		g.commit(t, round)
		switch round % 6 {
		case 1, 5: // a Go process dies, while all want the same
			for _, r := range readers {
				g.ask(r)
			}
			g.kill(t, readers[0])
			for _, r := range readers[1:] {
				g.answers(t, round, r)
			}
			g.downloads(t, round, true)
			readers[0] = start(true)
		case 3: // a Python process dies, and the Go processes take over
			g.ask(readers[3])
			g.kill(t, readers[3])
			for _, r := range readers[:2] {
				g.ask(r)
			}
			for _, r := range readers[:2] {
				g.answers(t, round, r)
			}
			g.ask(readers[2])
			g.answers(t, round, readers[2])
			g.downloads(t, round, true)
			readers[3] = start(false)
		default:
			for _, r := range readers {
				g.ask(r)
			}
			for _, r := range readers {
				g.answers(t, round, r)
			}
			g.downloads(t, round, false)
		}
		noTemporaryFiles(t, g.blobs)
		noLocksHeld(t, g.blobs)
	}
}

// sharing is what the rounds of TestSharedBlobCache have in common.
type sharing struct {
	writer  *Storage
	proxy   *faults.Proxy
	blobs   string // the directory
	request string // the line that asks for all blobs
	want    string // the line that answers it
	howMany int
}

// commit makes the blobs of a round.
func (g *sharing) commit(t *testing.T, round int) {
	var ask, want []string
	g.howMany = 10
	for i := range g.howMany {
		oid := zeolite.OID(1000*round + i + 1)
		data := []byte(strings.Repeat(fmt.Sprintf("%d/%d ", round, i), 50_000))
		tid := putBlob(t, g.writer, oid, 0, data)
		ask = append(ask, fmt.Sprintf("%016x:%v", uint64(oid), tid))
		want = append(want, fmt.Sprintf("%016x %x", uint64(oid), sha256.Sum256(data)))
	}
	g.request, g.want = strings.Join(ask, " "), strings.Join(want, " ")
	g.proxy.Reset()
}

func (g *sharing) ask(r *reader) { fmt.Fprintln(r.in, g.request) }

// kill kills a reader when a download is under way.
func (g *sharing) kill(t *testing.T, r *reader) {
	until(t, "a download is under way", func() bool {
		return g.proxy.Counts(faults.ServerToClient)["receiveBlobChunk"] > 5
	})
	r.kill()
}

// answers checks that a reader read all of every blob.
func (g *sharing) answers(t *testing.T, round int, r *reader) {
	t.Helper()
	if !r.out.Scan() {
		t.Fatalf("round %d: a reader (Go: %t) ended: %v", round, r.isGo, r.out.Err())
	}
	if got := r.out.Text(); got != g.want {
		t.Errorf("round %d: a reader (Go: %t) read something else:\n%s\nwant\n%s", round, r.isGo, got, g.want)
	}
}

// downloads checks that each blob was downloaded once; but for one of which
// whoever downloaded it may have been killed.
func (g *sharing) downloads(t *testing.T, round int, killed bool) {
	t.Helper()
	n := g.proxy.Counts(faults.ClientToServer)["sendBlob"]
	if n != g.howMany && !(killed && n == g.howMany+1) {
		t.Errorf("round %d: %d downloads of %d blobs, killed: %t", round, n, g.howMany, killed)
	}
}

// noLocksHeld checks that every lock of a cache can be had.
func noLocksHeld(t *testing.T, dir string) {
	t.Helper()
	locks, err := filepath.Glob(filepath.Join(dir, "*", ".lock"))
	must(t, err)
	if len(locks) == 0 {
		t.Error("there are no locks")
	}
	for _, path := range locks {
		f := newFlock(path)
		if ok, err := f.TryLock(); err != nil || !ok {
			t.Errorf("%s is held: %v", path, err)
		}
		f.Unlock()
	}
}
