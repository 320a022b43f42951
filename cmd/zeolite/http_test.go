package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/gateway"
	"github.com/zeolite-go/zeolite/server/memory"
)

// logText is a log that a test can read while it is written.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// startHTTP starts what the flags say, for a storage with a blob of object 1.
func startHTTP(t *testing.T, f *httpFlags) (h *httpServer, log *logText) {
	t.Helper()
	ctx := t.Context()
	storage := memory.New(memory.Options{BlobDir: t.TempDir()})
	t.Cleanup(func() { storage.Close() })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	up, err := storage.CreateBlob(ctx)
	must(err)
	_, err = up.Write([]byte("blob"))
	must(err)
	must(up.Complete())
	txn, err := storage.Begin(ctx, zeolite.TxnMeta{})
	must(err)
	must(txn.StoreBlob(ctx, 1, 0, []byte("record"), up))
	must(txn.Vote(ctx))
	_, err = txn.Finish(ctx, nil)
	must(err)

	log = &logText{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	srv := server.New(server.Options{Logger: logger})
	must(srv.AddStorage("1", storage))
	if f.address == "" {
		f.address = filepath.Join(t.TempDir(), "http.sock")
	}
	h, err = f.start(ctx, srv, map[string]zeolite.Storage{"1": storage}, logger)
	must(err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		h.shutdown(ctx)
	})
	return h, log
}

// get asks over the Unix socket.
func (f *httpFlags) get(t *testing.T, path string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: unixTransport(f.address)}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://localhost" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestHTTPFlags(t *testing.T) {
	for _, args := range [][]string{
		{"--metrics"}, {"--pprof"}, {"--http-key", "k"}, {"--http", "8080", "--http-client-ca", "ca"}, {"--http", "8080", "--http-cert-key", "k"},
	} {
		var f httpFlags
		fs := newFlags("serve", "")
		f.add(&fs.FlagSet)
		if err := parse(fs, args); err != nil {
			t.Fatal(err)
		}
		if _, ok := f.check().(*usageError); !ok {
			t.Errorf("%s: %v, want a usage error", args, f.check())
		}
	}
	if h, err := (&httpFlags{}).start(t.Context(), nil, nil, nil); h != nil || err != nil {
		t.Errorf("without --http: %v, %v", h, err)
	}
	// A nil one is what serve has without --http.
	var none *httpServer
	none.reload()
	none.drain()
	none.shutdown(t.Context())
}

func TestHTTPKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, second := strings.Repeat("1", 64), strings.Repeat("2", 64)
	write(first)
	f := &httpFlags{blobs: true, health: true, key: file}
	h, log := startHTTP(t, f)
	link := gateway.Link{Storage: "1", OID: 1, Expires: time.Now().Add(time.Hour)}
	url := h.keys.Sign(link)
	want := func(path string, status int) {
		t.Helper()
		if got, body := f.get(t, path); got != status {
			t.Errorf("%s: %d %s, want %d", path, got, body, status)
		}
	}
	want(url, 200)
	want("/blobs/1/1", 403)
	want("/readyz", 200)
	want("/metrics", 404)

	write("short")
	h.reload()
	want(url, 200)
	if !strings.Contains(log.String(), "old ones stay in use") {
		t.Errorf("log:\n%s", log)
	}
	write(second)
	h.reload()
	want(url, 403)
	want(h.keys.Sign(link), 200)

	h.drain()
	want("/readyz", 503)
	want("/livez", 200)
}

// TestHTTPProfilesWarn: with keys there may be a proxy, to which profiles are
// not closed.
func TestHTTPProfilesWarn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(strings.Repeat("1", 64)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*httpFlags{{profile: true}, {key: file}, {profile: true, key: file}} {
		_, log := startHTTP(t, f)
		if got, want := strings.Contains(log.String(), "/debug/pprof/"), f.profile && f.key != ""; got != want {
			t.Errorf("%+v: warned %v\n%s", f, got, log)
		}
	}
}

// TestHTTPHostName: HTTP is served at all addresses of a name, or not at all, as the
// look before storages are opened says.
func TestHTTPHostName(t *testing.T) {
	needIPv6(t)
	real := lookupIP
	defer func() { lookupIP = real }()
	lookupIP = func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}, nil
	}
	taken, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
	f := &httpFlags{address: "here.example:" + port, health: true}
	log := slog.New(slog.DiscardHandler)
	if err := look(t.Context(), "tcp", f.address); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("look: %v", err)
	}
	if h, err := f.start(t.Context(), server.New(server.Options{Logger: log}), nil, log); !errors.Is(err, syscall.EADDRINUSE) {
		h.shutdown(t.Context())
		t.Errorf("start: %v", err)
	}
	taken.Close()

	dir := t.TempDir()
	pool := x509.NewCertPool()
	pool.AddCert(secured(t, dir).cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	for scheme, cert := range map[string]string{"http": "", "https": filepath.Join(dir, "server.pem")} {
		f.cert = cert
		h, _ := startHTTP(t, f)
		for _, host := range []string{"127.0.0.1", "::1"} {
			resp, err := client.Get(scheme + "://" + net.JoinHostPort(host, port) + "/livez")
			if err != nil {
				t.Error(err)
				continue
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s: %s", host, resp.Status)
			}
		}
		transport.CloseIdleConnections()
		h.shutdown(t.Context())
	}
}

// TestHTTPReloadIsWhole: if a certificate cannot be read again, the keys stay in
// use as well.
func TestHTTPReloadIsWhole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Repeat("1", 64))
	f := &httpFlags{blobs: true, key: file}
	h, _ := startHTTP(t, f)
	url := h.keys.Sign(gateway.Link{Storage: "1", OID: 1, Expires: time.Now().Add(time.Hour)})
	write(strings.Repeat("2", 64))
	f.cert = filepath.Join(t.TempDir(), "none")
	h.reload()
	if status, body := f.get(t, url); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	f.cert = ""
	h.reload()
	if status, body := f.get(t, url); status != 403 {
		t.Errorf("%d %s", status, body)
	}
}

func TestHTTPMetrics(t *testing.T) {
	f := &httpFlags{metrics: true}
	startHTTP(t, f)
	status, page := f.get(t, "/metrics")
	if status != 200 {
		t.Fatalf("%d %s", status, page)
	}
	for _, line := range []string{"zeolite_connections 0", `zeolite_storage_read_only{storage="1"} 0`, `zeolite_objects{storage="1"} 1`,
		`zeolite_transactions_total{end="commit",storage="1"} 0`, `zeolite_commit_lock_wait_seconds_count{storage="1"} 0`} {
		if !strings.Contains(page, "\n"+line+"\n") {
			t.Errorf("there is no %s in\n%s", line, page)
		}
	}
}

// TestMetricNames collects numbers of which none is missing.
func TestMetricNames(t *testing.T) {
	h := server.Histogram{Count: 2, Sum: time.Second, Buckets: []server.Bucket{{UpTo: time.Millisecond, Count: 1}}}
	st := server.Stats{
		Calls: []server.CallStats{{Method: "vote", Time: h}, {Method: "loadBefore", Time: h}},
		Storages: []server.StorageStats{
			{Name: "1", LastTID: 1, LockWaits: h, Pack: server.PackStats{Progress: zeolite.PackProgress{Phase: "copy", Done: 1, Total: 2}}},
			{Name: "2", LockWaits: h, ReadOnly: true},
		},
	}
	handler := gateway.New(nil, gateway.Options{Metrics: true, Collect: func(add func(gateway.Metric)) { collect(st, add) }})
	f := &httpFlags{address: filepath.Join(t.TempDir(), "http.sock")}
	l, err := listen("unix", f.address)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler}
	go srv.Serve(l)
	defer srv.Close()
	status, page := f.get(t, "/metrics")
	for _, line := range []string{`zeolite_pack_done{phase="copy",storage="1"} 1`, `zeolite_storage_read_only{storage="2"} 1`} {
		if status != 200 || !strings.Contains(page, "\n"+line+"\n") {
			t.Fatalf("%d, no %s in\n%s", status, line, page)
		}
	}
	problems, err := promlint.New(strings.NewReader(page)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "zeolite_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func unixTransport(socket string) *http.Transport {
	dial := net.Dialer{}
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dial.DialContext(ctx, "unix", socket)
	}}
}
