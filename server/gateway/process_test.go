package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
)

// broken is a storage whose loads fail with err, and whose serials cannot be
// asked for if it is away: it has the rest in a cache.
type broken struct {
	zeolite.Storage
	err  error
	away error
}

func (b *broken) CurrentTID(context.Context, zeolite.OID) (zeolite.TID, error) { return 1, b.away }

func (b *broken) LoadBefore(context.Context, zeolite.OID, zeolite.TID) (zeolite.Revision, error) {
	return zeolite.Revision{}, b.err
}

func TestHealth(t *testing.T) {
	s := &broken{Storage: newMemory(t).Storage}
	h := New(map[string]zeolite.Storage{"1": s}, Options{Health: true, Logger: slog.New(slog.DiscardHandler)})
	server := httptest.NewServer(h)
	defer server.Close()
	ask := func(ready int) {
		t.Helper()
		do(t, "GET", server.URL+"/livez").want(t, 200)
		a := do(t, "GET", server.URL+"/readyz", "Host: anything.example")
		a.want(t, ready, "Cache-Control: no-store")
		if strings.Contains(string(a.body), "secret") {
			t.Errorf("the answer tells the cause: %s", a.body)
		}
		do(t, "HEAD", server.URL+"/readyz").want(t, ready)
	}
	ask(200)
	s.err = &zeolite.NotFoundError{} // an empty database
	ask(200)
	s.err = errors.New("cannot connect to secret.example")
	ask(503)
	s.err = zeolite.ErrClosed
	ask(503)
	s.err, s.away = nil, errors.New("cannot connect to secret.example")
	ask(503)
	s.away = &zeolite.NotFoundError{}
	ask(200)
	s.away = nil
	ask(200)
	h.Drain()
	ask(503)
	do(t, "POST", server.URL+"/livez").want(t, 405)
}

func TestMetrics(t *testing.T) {
	s := newMemory(t)
	storeBytes(t, s, 1, text)
	opt := open
	opt.Metrics = true
	opt.Collect = func(add func(Metric)) {
		add(Metric{Name: "test_calls_total", Help: "Calls.", Kind: Counter, Labels: []string{"method", `lo"ad`}, Value: 3})
		add(Metric{Name: "test_calls_total", Help: "Calls.", Kind: Counter, Labels: []string{"method", "vote"}, Value: 4})
		add(Metric{Name: "test_queue", Help: "Queue.", Value: 2.5})
		add(Metric{Name: "test_seconds", Help: "Time.", Kind: Histogram, Value: 1.5, Count: 3, Buckets: map[float64]uint64{0.1: 1, 1: 2}})
	}
	url := start(t, s, opt).URL
	do(t, "GET", url+"/blobs/1/1").want(t, 200)
	do(t, "GET", url+"/blobs/1/1", "Range: bytes=0-3").want(t, 206)
	do(t, "GET", url+"/blobs/1/99").want(t, 404)
	do(t, "GET", url+"/one/of/many").want(t, 404)
	for range 2 { // the same name twice is no error
		a := do(t, "GET", url+"/metrics")
		a.want(t, 200)
		for _, line := range []string{
			`test_calls_total{method="lo\"ad"} 3`, `test_calls_total{method="vote"} 4`, "test_queue 2.5",
			`test_seconds_bucket{le="0.1"} 1`, `test_seconds_bucket{le="+Inf"} 3`, "test_seconds_sum 1.5", "test_seconds_count 3",
			`zeolite_http_requests_total{code="200",for="blobs"} 1`, `zeolite_http_requests_total{code="206",for="blobs"} 1`,
			`zeolite_http_requests_total{code="404",for="blobs"} 1`, `zeolite_http_requests_total{code="404",for="other"} 1`,
			"zeolite_http_blob_sent_bytes_total 40", "zeolite_http_blob_streams 0", "go_goroutines ",
		} {
			if !strings.Contains(string(a.body), "\n"+line) {
				t.Errorf("there is no %s", line)
			}
		}
		if t.Failed() {
			t.Logf("%s", a.body)
		}
	}
}

// TestMetricsOfStalledReaders has as many clients as are answered at once that do
// not read: they are thrown out, and others get their numbers.
func TestMetricsOfStalledReaders(t *testing.T) {
	var large atomic.Bool
	large.Store(true)
	opt := open
	opt.Metrics = true
	opt.Stall = time.Second
	opt.Collect = func(add func(Metric)) {
		if large.Load() {
			add(Metric{Name: "test_large", Labels: []string{"text", strings.Repeat("x", 16<<20)}})
		}
	}
	server := start(t, newMemory(t), opt)
	for range 4 {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	large.Store(false)
	eventually(t, "there is a free slot", func() bool { return do(t, "GET", server.URL+"/metrics").StatusCode == 200 })
}

func TestProfiles(t *testing.T) {
	url := start(t, newMemory(t), Options{Profiles: true}).URL
	do(t, "GET", url+"/debug/pprof/").want(t, 200)
	do(t, "GET", url+"/debug/pprof/goroutine?debug=1").want(t, 200)
	do(t, "GET", url+"/debug/pprof/cmdline").want(t, 404)
	for _, path := range []string{"", "heap", "cmdline", "profile", "symbol", "trace"} {
		do(t, "GET", url+"/debug/pprof/"+path, "X-Forwarded-For: 192.0.2.1").want(t, 403)
		do(t, "GET", url+"/debug/pprof/"+path, "Host: evil.example").want(t, 403)
	}
	r := httptest.NewRequest(http.MethodGet, "http://localhost/debug/pprof/", nil)
	w := httptest.NewRecorder() // 192.0.2.1
	New(nil, Options{Profiles: true}).ServeHTTP(w, r)
	if w.Code != 403 {
		t.Errorf("from %s: %d", r.RemoteAddr, w.Code)
	}
}
