package limits

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/tests/peers"
)

const (
	clients = 8
	mib     = 1 << 20
	// growth is how much more memory the server may use while all clients
	// stream than while they were idle.
	growth = 16 * mib
)

// large is the size of blobs: one alone would be seen, if it were kept in memory.
func large() pattern {
	if peers.Long() {
		return 256 * mib
	}
	return 4 * growth
}

func startServer(t *testing.T) *peers.Server {
	t.Helper()
	if runtime.GOOS != "linux" {
		peers.Missing(t, "the memory of a process is read from /proc, which is Linux")
	}
	return peers.Start(t, peers.Zeolite, peers.Options{})
}

// TestMemoryOfSlowDownloads has clients that read 1 MB/s each download a blob.
func TestMemoryOfSlowDownloads(t *testing.T) {
	blobSize := large()
	s := startServer(t)
	tid := connect(t, s.Address(), nil).storeBlob(1, blobSize)

	// Each reads slowly for a while, and then lets the rest come.
	const slowly = 4 * mib
	all := make([]*wireClient, clients)
	for i := range all {
		c := connect(t, s.Address(), smallReadBuffer)
		start := time.Now()
		c.chunk = func(data []byte) {
			if _, got := c.received(); got < slowly {
				due := start.Add(time.Duration(got+int64(len(data))) * time.Microsecond) // 1 MB/s
				time.Sleep(time.Until(due))
			}
		}
		all[i] = c
	}
	before := resident(t, s)
	resetPeak(t, s)
	var done sync.WaitGroup
	for _, c := range all {
		done.Go(func() {
			if err := c.server.SendBlob(context.Background(), 1, tid); err != nil {
				t.Errorf("sendBlob: %v", err)
			}
		})
	}
	done.Wait()
	after := peak(t, s)
	t.Logf("resident: %d KiB before, %d KiB at most while %d clients downloaded %d MiB each", before>>10, after>>10, clients, blobSize/mib)
	if after-before >= growth {
		t.Errorf("resident memory grew by %d MiB, want less than %d", (after-before)/mib, growth/mib)
	}
	want := blobSize.digest()
	for i, c := range all {
		if got := [32]byte(c.sum.Sum(nil)); got != want {
			_, n := c.received()
			t.Errorf("client %d received %d bytes that are not the blob", i, n)
		}
	}
}

// TestMemoryOfUploads has clients upload at full speed.
func TestMemoryOfUploads(t *testing.T) {
	blobSize := large()
	s := startServer(t)
	all := make([]*wireClient, clients)
	for i := range all {
		all[i] = connect(t, s.Address(), nil)
	}
	before := resident(t, s)
	resetPeak(t, s)
	tids := make([]zeolite.TID, clients)
	var done sync.WaitGroup
	for i, c := range all {
		done.Go(func() { tids[i] = c.storeBlob(zeolite.OID(i+1), blobSize) })
	}
	done.Wait()
	after := peak(t, s)
	t.Logf("resident: %d KiB before, %d KiB at most while %d clients uploaded %d MiB each", before>>10, after>>10, clients, blobSize/mib)
	if after-before >= growth {
		t.Errorf("resident memory grew by %d MiB, want less than %d", (after-before)/mib, growth/mib)
	}
	c := all[0]
	if err := c.server.SendBlob(context.Background(), clients, tids[clients-1]); err != nil {
		t.Fatalf("sendBlob: %v", err)
	}
	if [32]byte(c.sum.Sum(nil)) != blobSize.digest() {
		t.Error("what was uploaded is not what is downloaded")
	}
}

// TestLoadBetweenChunks loads on a connection that is downloading much, again
// and again, and counts the chunks between request and reply. The client stops
// reading until the server has looked at the request, so that no scheduler has a
// say in the count.
func TestLoadBetweenChunks(t *testing.T) {
	s := startServer(t)
	size := 4 * large()
	c := connect(t, s.Address(), smallReadBuffer)
	other := connect(t, s.Address(), nil)
	tid := c.storeBlob(1, size)

	// What is in the kernel's buffers when the request is made comes first,
	// whatever the server does: some chunks, not thousands.
	const most = 10
	ctx := context.Background()
	half := make(chan struct{})
	var once sync.Once
	var reading sync.Mutex
	c.chunk = func([]byte) {
		reading.Lock()
		defer reading.Unlock()
		if n, _ := c.received(); n > 100 {
			once.Do(func() { close(half) })
		}
	}
	finished := make(chan error, 1)
	go func() { finished <- c.server.SendBlob(ctx, 1, tid) }()
	<-half
	for i := range 20 {
		reading.Lock()
		loads := other.loads()
		from, _ := c.received()
		var to int
		loaded := make(chan error, 1)
		go func() {
			loaded <- c.server.LoadBeforeHook(ctx, 1, zeolite.MaxTID, func(zeolite.Revision, error) {
				to, _ = c.received()
			})
		}()
		for other.loads() == loads { // each is a round trip
		}
		reading.Unlock()
		if err := <-loaded; err != nil {
			t.Fatal(err)
		}
		if to-from > most {
			t.Errorf("load %d was answered after %d chunks, want %d at most", i, to-from, most)
		}
	}
	if _, n := c.received(); n == int64(size) {
		t.Error("the download was over before the loads: the test says nothing")
	}
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
	if [32]byte(c.sum.Sum(nil)) != size.digest() {
		t.Error("the blob was damaged")
	}
}

// smallReadBuffer keeps the kernel from taking in megabytes for a client that
// reads slowly.
func smallReadBuffer(nc net.Conn) net.Conn {
	_ = nc.(*net.TCPConn).SetReadBuffer(128 << 10)
	return nc
}

// resident returns the server's resident memory in bytes, and peak the most it
// had since resetPeak.
func resident(t *testing.T, s *peers.Server) int64 { return status(t, s, "VmRSS:") }
func peak(t *testing.T, s *peers.Server) int64     { return status(t, s, "VmHWM:") }

func resetPeak(t *testing.T, s *peers.Server) {
	t.Helper()
	if err := os.WriteFile(proc(s, "clear_refs"), []byte("5"), 0); err != nil {
		peers.Missing(t, "cannot reset the peak memory of a process: %v", err)
	}
}

func proc(s *peers.Server, name string) string {
	return filepath.Join("/proc", strconv.Itoa(s.PID()), name)
}

func status(t *testing.T, s *peers.Server, key string) int64 {
	t.Helper()
	b, err := os.ReadFile(proc(s, "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			var kib int64
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no %s in the status of the process", key)
	return 0
}
