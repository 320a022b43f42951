package gateway

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
)

// sources is a listener whose connections note what they are asked to read
// from. net.TCPConn.ReadFrom sends by sendfile what is a file, or an
// io.LimitedReader over one.
type sources struct {
	net.Listener
	mu          sync.Mutex
	files, rest int64 // bytes
}

type sourceConn struct {
	*net.TCPConn
	s *sources
}

func (s *sources) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &sourceConn{c.(*net.TCPConn), s}, nil
}

func (c *sourceConn) ReadFrom(r io.Reader) (int64, error) {
	file := false
	if limited, ok := r.(*io.LimitedReader); ok {
		_, file = limited.R.(*os.File)
	}
	n, err := c.TCPConn.ReadFrom(r)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if file {
		c.s.files += n
	} else {
		c.s.rest += n
	}
	return n, err
}

// TestSendfile checks that a blob that is a file reaches the connection as one.
func TestSendfile(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("files are sent by sendfile on Linux only")
	}
	for _, make := range []func(testing.TB) *watched{newMemory, newFileStorage} {
		s := make(t)
		const size = 5<<20 + 17
		storeSparse(t, s, 1, size)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		seen := &sources{Listener: l}
		server := &http.Server{Handler: New(map[string]zeolite.Storage{"1": s}, open)}
		go server.Serve(seen)
		url := "http://" + l.Addr().String() + "/blobs/1/1"
		do(t, "GET", url).want(t, 200)
		do(t, "GET", url, "Range: bytes=1000-2000000").want(t, 206)
		if err := server.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		// net/http copies the first bytes, to know whether there are any.
		if all := int64(size + 1_999_001); seen.files < all-64<<10 || seen.rest != 0 {
			t.Errorf("%d bytes of %d came from files and %d from elsewhere", seen.files, all, seen.rest)
		}
		if s.read.Load() != 0 {
			t.Errorf("ReadAt was called %d times", s.read.Load())
		}
	}
}

// marks is what storeSparse writes, every so often, into a blob of zeros.
const marks = 16 << 20

// storeSparse commits a blob that is a file with holes, except for a mark now
// and then, and returns its SHA-256.
func storeSparse(t testing.TB, s zeolite.Storage, oid zeolite.OID, size int64) []byte {
	t.Helper()
	tid := storeBytes(t, s, oid, nil)
	b, err := s.(zeolite.BlobStorage).OpenBlob(t.Context(), oid, tid)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	name := b.(interface{ File() *os.File }).File().Name()
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < size; off += marks {
		if _, err := f.WriteAt([]byte(strconv.FormatInt(off, 10)), off); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(f, size)); err != nil {
		t.Fatal(err)
	}
	return sum.Sum(nil)
}

// heap is what the process has taken for its heap and stacks, in bytes.
func heap() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64()
}

// measured hashes what is written and remembers the largest heap.
type measured struct {
	hash.Hash
	most uint64
	next int64
	n    int64
}

func (m *measured) Write(p []byte) (int, error) {
	if m.n += int64(len(p)); m.n >= m.next {
		m.next += 32 << 20
		m.most = max(m.most, heap())
	}
	return m.Hash.Write(p)
}

// TestLargeBlob downloads 1 GiB, whole and then with one range, by the file and
// by ReadAt, and looks at the memory of the process all the while.
func TestLargeBlob(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 64 << 20
	}
	s := newFileStorage(t)
	sum := storeSparse(t, s, 1, size)
	url := start(t, s, open).URL + "/blobs/1/1"
	for _, s.opaque = range []bool{false, true} {
		runtime.GC()
		before := heap()
		got := &measured{Hash: sha256.New()}
		for _, r := range []string{fmt.Sprintf("bytes=0-%d", size/2-1), fmt.Sprintf("bytes=%d-", size/2)} {
			req, err := http.NewRequest(http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Range", r)
			resp, err := patient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != 206 {
				t.Errorf("status is %d", resp.StatusCode)
			}
			if _, err := io.Copy(got, resp.Body); err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		if got.n != size || string(got.Sum(nil)) != string(sum) {
			t.Errorf("opaque %v: got %d bytes, not those that were stored", s.opaque, got.n)
		}
		if grown := int64(got.most) - int64(before); grown > 16<<20 {
			t.Errorf("opaque %v: memory grew by %d bytes", s.opaque, grown)
		}
	}
}

// TestRandomRanges compares many ranges with what they should be.
func TestRandomRanges(t *testing.T) {
	s := newFileStorage(t)
	data := make([]byte, 3<<20)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(data)
	storeBytes(t, s, 1, data)
	url := start(t, s, open).URL + "/blobs/1/1"
	pick := rand.New(random)
	for i := range 200 {
		s.opaque = i%2 == 1
		from := pick.IntN(len(data))
		to := from + pick.IntN(min(1<<21, len(data)-from))
		a := do(t, "GET", url, fmt.Sprintf("Range: bytes=%d-%d", from, to))
		if a.StatusCode != 206 || string(a.body) != string(data[from:to+1]) {
			t.Fatalf("%d-%d: status %d, %d bytes", from, to, a.StatusCode, len(a.body))
		}
	}
}

// TestAbandoned has clients that leave in the middle, and before the first
// byte; every blob is closed, and every slot is free again.
func TestAbandoned(t *testing.T) {
	for _, opaque := range []bool{false, true} {
		s := newMemory(t)
		storeSparse(t, s, 1, 64<<20)
		s.opaque = opaque
		opt := open
		opt.MaxStreams = 4
		server := start(t, s, opt)
		for i := range 20 {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "GET /blobs/1/1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
			if i%2 == 0 {
				if _, err := bufio.NewReader(conn).Discard(1 << 20); err != nil {
					t.Fatal(err)
				}
			}
			conn.Close()
			eventually(t, "all blobs are closed", func() bool { return s.opened.Load() == s.closed.Load() })
		}
		// The last one may still be on its way out.
		eventually(t, "there is a free slot", func() bool {
			return do(t, "GET", server.URL+"/blobs/1/1", "Range: bytes=0-0").StatusCode == 206
		})
	}
}

// stall starts a download and reads no more than its first byte.
func stall(t *testing.T, server *httptest.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET /blobs/1/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestAllSlotsTaken fills all slots with clients that do not read. Others are
// told to come again, but get what needs no slot.
func TestAllSlotsTaken(t *testing.T) {
	s := newMemory(t)
	storeSparse(t, s, 1, 64<<20)
	tid, err := s.CurrentTID(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	opt := open
	opt.MaxStreams = 3
	server := start(t, s, opt)
	url := server.URL + "/blobs/1/1"
	var stalled []net.Conn
	for range opt.MaxStreams {
		stalled = append(stalled, stall(t, server))
	}
	do(t, "GET", url).want(t, 503, "Retry-After: 1", "Etag:")
	do(t, "HEAD", url).want(t, 200)
	do(t, "GET", url, `If-None-Match: "`+tid.String()+`"`).want(t, 304)
	for _, conn := range stalled {
		conn.Close()
	}
	eventually(t, "there is a free slot", func() bool {
		return do(t, "GET", url, "Range: bytes=0-0").StatusCode == 206
	})
}

// TestStalledReader has a client that stops reading: it is thrown out.
func TestStalledReader(t *testing.T) {
	for _, opaque := range []bool{false, true} {
		s := newMemory(t)
		storeSparse(t, s, 1, 64<<20)
		s.opaque = opaque
		opt := open
		opt.Stall = 50 * time.Millisecond
		server := start(t, s, opt)
		before := s.closed.Load()
		conn := stall(t, server)
		eventually(t, "the blob is closed", func() bool { return s.closed.Load() > before })
		if n, err := io.Copy(io.Discard, conn); n >= 64<<20 {
			t.Errorf("a client that stalled got all %d bytes (%v)", n, err)
		}
	}
}

// TestBodyThatDoesNotCome has as many clients as are answered at once that
// announce a body and do not send it: they are thrown out.
func TestBodyThatDoesNotCome(t *testing.T) {
	s := newMemory(t)
	storeBytes(t, s, 1, text)
	opt := open
	opt.Metrics = true
	opt.MaxStreams = 4
	opt.Stall = 50 * time.Millisecond
	server := start(t, s, opt)
	for _, path := range []string{"/blobs/1/1", "/metrics"} {
		var conns []net.Conn
		for range 4 {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n", path)
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Fatalf("%s: the connection does not end: %v", path, err)
			}
		}
		eventually(t, "there is a free slot", func() bool { return do(t, "GET", server.URL+path).StatusCode == 200 })
	}
}

// TestWithoutReaderFrom serves to a ResponseWriter that can do nothing special.
func TestWithoutReaderFrom(t *testing.T) {
	s := newMemory(t)
	storeBytes(t, s, 1, text)
	r := httptest.NewRequest(http.MethodGet, "http://localhost/blobs/1/1", nil)
	r.RemoteAddr = "127.0.0.1:1"
	w := httptest.NewRecorder()
	New(map[string]zeolite.Storage{"1": s}, open).ServeHTTP(w, r)
	if w.Code != 200 || w.Body.String() != string(text) {
		t.Errorf("status %d, body %q", w.Code, w.Body)
	}
}
