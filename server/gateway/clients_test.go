package gateway

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/tests/peers"
)

// program finds a program, or skips the test.
func program(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	peers.Missing(t, "%s is not installed", strings.Join(names, " or "))
	return ""
}

// run runs a program and returns what it printed.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// cut is a proxy that ends its first connection after some bytes of answer.
func cut(t *testing.T, to string, after int64) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for first := true; ; first = false {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				return
			}
			limit := int64(1 << 62)
			if first {
				limit = after
			}
			go io.Copy(out, in)
			go func() {
				io.CopyN(in, out, limit)
				in.Close()
				out.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func TestCurl(t *testing.T) {
	curl := program(t, "curl")
	s := newFileStorage(t)
	data := bytes.Repeat([]byte("zeolite "), 1<<18) // 2 MiB
	tid := storeBytes(t, s, 1, data)
	opt := open
	opt.Keys = testKeys(t)
	server := start(t, s, opt)
	url := server.URL + "/blobs/1/1"
	file := filepath.Join(t.TempDir(), "file")
	get := func(args ...string) string {
		t.Helper()
		out, err := run(t, curl, append([]string{"-sS", "--fail", "-o", file}, args...)...)
		if err != nil {
			t.Fatalf("curl %s: %v\n%s", args, err, out)
		}
		return out
	}
	same := func(want []byte) {
		t.Helper()
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes (%v), not the %d that were stored", len(got), err, len(want))
		}
	}
	get(url)
	same(data)
	get("-r", "8-15,100-115", url+"/"+tid.String())
	if got, _ := os.ReadFile(file); !bytes.Contains(got, []byte("\r\n\r\nzeolite \r\n")) {
		t.Errorf("ranges: %q", got)
	}

	// The connection breaks in the middle; curl goes on from there.
	broken := "http://" + cut(t, server.Listener.Addr().String(), 1_000_000) + "/blobs/1/1"
	os.Remove(file)
	if out, err := run(t, curl, "-sS", "-o", file, broken); err == nil {
		t.Fatalf("curl took a part for the whole: %s", out)
	}
	st, err := os.Stat(file)
	if err != nil || st.Size() == 0 || st.Size() >= int64(len(data)) {
		t.Fatalf("%v, %v", st, err)
	}
	if out := get("-C", "-", "-w", "%{http_code} %{size_download}", broken); out != fmt.Sprintf("206 %d", int64(len(data))-st.Size()) {
		t.Errorf("curl says %q", out)
	}
	same(data)

	etags := filepath.Join(t.TempDir(), "etag")
	get("--etag-save", etags, url)
	if out := get("--etag-compare", etags, "-w", "%{http_code}", url); out != "304" {
		t.Errorf("curl says %q, want 304", out)
	}
	if out := get("-z", tid.Time().Add(1e9).Format(http.TimeFormat), "-w", "%{http_code}", url+"/"+tid.String()); out != "304" {
		t.Errorf("curl says %q, want 304", out)
	}
	if out := get("-I", "-w", "%{http_code}", url); out != "200" {
		t.Errorf("curl -I says %q", out)
	}

	dir := t.TempDir()
	target := opt.Keys.Sign(Link{Storage: "1", OID: 1, Expires: noon, Filename: "two words.bin"})
	if out, err := run(t, curl, "-sS", "--fail", "--output-dir", dir, "-OJ", server.URL+target); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "two words.bin")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes (%v)", len(got), err)
	}

	// What Go's client would clean up, curl sends as it is.
	for _, path := range []string{"/blobs/../blobs/1/1", "/blobs/1/../../etc/passwd", "//blobs/1/1", "/blobs/./1/1",
		"/blobs/1/..%2f..%2fetc%2fpasswd", "/blobs/1%00/1", "/blobs/..%2f1/1", "/blobs/%2e%2e/1", "/blobs/1/%31%2f1"} {
		out, err := run(t, curl, "-sS", "--path-as-is", "-o", os.DevNull, "-w", "%{http_code}", server.URL+path)
		if err != nil || !strings.Contains("301 307 400 404", out) {
			t.Errorf("%s: %s %v", path, out, err)
		}
	}
}

// pythonProgram signs as the package comment says, in the lines that stand
// there, and reads with urllib.
const pythonProgram = `
import hmac, sys, time, types, urllib.request
from urllib.error import HTTPError
from urllib.parse import urlencode

base, keyfile, oid, serial = sys.argv[1:]
key = open(keyfile, "rb").readline().strip()
obj = types.SimpleNamespace(_p_oid=bytes.fromhex(oid), _p_serial=bytes.fromhex(serial))

%s
with urllib.request.urlopen(base + url) as r:
    body = r.read()
    assert r.headers["Content-Type"] == "image/png", r.headers
    assert r.headers.get_filename() == "cat.png", r.headers
    assert int(r.headers["Content-Length"]) == len(body)
    etag = r.headers["ETag"]

r = urllib.request.urlopen(urllib.request.Request(base + url, headers={"Range": "bytes=5-9", "If-Range": etag}))
assert r.status == 206 and r.read() == body[5:10]
try:
    urllib.request.urlopen(urllib.request.Request(base + url, headers={"If-None-Match": etag}))
    assert False, "no 304"
except HTTPError as e:
    assert e.code == 304, e
try:
    urllib.request.urlopen(base + url.replace("cat", "dog"))
    assert False, "no 403"
except HTTPError as e:
    assert e.code == 403, e
sys.stdout.buffer.write(body)
`

func TestPython(t *testing.T) {
	python := program(t, "python3", "python")
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, snippet, ok := strings.Cut(string(doc), "In Python:\n//\n")
	snippet, _, _ = strings.Cut(snippet, "//\n// with")
	if snippet = strings.ReplaceAll(snippet, "//\t", ""); !ok || strings.Count(snippet, "\n") != 3 {
		t.Fatalf("the package comment does not have three lines of Python, but\n%s", snippet)
	}
	s := newFileStorage(t)
	const oid = zeolite.OID(0x1234)
	tid := storeBytes(t, s, oid, text)
	dir := t.TempDir()
	keyFile, script := filepath.Join(dir, "http.key"), filepath.Join(dir, "read.py")
	for name, text := range map[string]string{keyFile: string(testKey) + "\n", script: fmt.Sprintf(pythonProgram, snippet)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := LoadKeys(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	base := start(t, s, Options{Blobs: true, Keys: keys}).URL
	out, err := run(t, python, script, base, keyFile, fmt.Sprintf("%016x", uint64(oid)), tid.String())
	if err != nil || out != string(text) {
		t.Errorf("%v\n%s", err, out)
	}
}

// newCertificate makes the certificate of a client, which is its own issuer.
func newCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotAfter:              time.Now().Add(time.Hour),
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestClientCertificates serves over TLS, where HTTP/2 is spoken too.
func TestClientCertificates(t *testing.T) {
	s := newMemory(t)
	data := bytes.Repeat([]byte("zeolite "), 1<<18)
	storeBytes(t, s, 1, data)
	h := New(map[string]zeolite.Storage{"1": s}, Options{Blobs: true, Profiles: true, ClientCertificates: true})
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	certificate := newCertificate(t)
	server.TLS.ClientCAs = x509.NewCertPool()
	server.TLS.ClientCAs.AddCert(certificate.Leaf)
	server.TLS.ClientAuth = tls.VerifyClientCertIfGiven

	client := func(protocol string, certificates ...tls.Certificate) *http.Client {
		c := &http.Client{Transport: &http.Transport{
			ForceAttemptHTTP2: protocol == "HTTP/2.0",
			TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: certificates},
		}}
		t.Cleanup(c.CloseIdleConnections)
		return c
	}
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for status, c := range map[int]*http.Client{200: client(protocol, certificate), 403: client(protocol)} {
			resp, err := c.Get(server.URL + "/blobs/1/1")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != status || resp.Proto != protocol || err != nil {
				t.Errorf("%s %d %v, want %s %d", resp.Proto, resp.StatusCode, err, protocol, status)
			}
			if status == 200 && (!bytes.Equal(body, data) || resp.Header.Get("Cache-Control") != "private, no-cache") {
				t.Errorf("got %d bytes, %v", len(body), resp.Header)
			}
		}
	}
}

// TestFailureOverHTTP2 is TestFailureInTheMiddle where no connection ends.
func TestFailureOverHTTP2(t *testing.T) {
	s := newMemory(t)
	s.opaque = true
	storeBytes(t, s, 1, make([]byte, 1<<20))
	s.readIt = func(off int64) error {
		if off > 200_000 {
			return errors.New("bad sector")
		}
		return nil
	}
	opt := open
	opt.Logger = slog.New(slog.DiscardHandler)
	server := httptest.NewUnstartedServer(New(map[string]zeolite.Storage{"1": s}, opt))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, server.URL+"/blobs/1/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err == nil || resp.ProtoMajor != 2 {
		t.Errorf("%s: got %d bytes and no error", resp.Proto, n)
	}
}
