package gateway

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// signed are the options of a gateway that wants signatures, at noon.
func signed(t testing.TB) Options {
	return Options{Blobs: true, Keys: testKeys(t), Now: func() time.Time { return noon }}
}

// signRaw signs any target with the key of the tests.
func signRaw(target string) string {
	mac := hmac.New(sha256.New, testKey)
	mac.Write([]byte(target))
	return target + "&signature=" + hex.EncodeToString(mac.Sum(nil))
}

func TestSignedURL(t *testing.T) {
	s := newMemory(t)
	tid := storeBytes(t, s, 0x2a, text)
	opt := signed(t)
	base := start(t, s, opt).URL
	link := Link{Storage: "1", OID: 0x2a, TID: tid, Expires: noon.Add(time.Minute)}

	a := do(t, "GET", base+opt.Keys.Sign(link))
	a.want(t, 200, "Content-Type: application/octet-stream", "Content-Disposition:",
		"Cache-Control: private, max-age=60, immutable")
	if !bytes.Equal(a.body, text) {
		t.Errorf("body is %q", a.body)
	}
	do(t, "HEAD", base+opt.Keys.Sign(link)).want(t, 200, "Content-Length: 36")
	do(t, "POST", base+opt.Keys.Sign(link)).want(t, 405)
	do(t, "GET", base+opt.Keys.Sign(link), "Range: bytes=1-2").want(t, 206)
	do(t, "GET", base+opt.Keys.Sign(link), `If-None-Match: "`+tid.String()+`"`).want(t, 304,
		"Cache-Control: private, max-age=60, immutable")

	link.TID, link.Type, link.Filename = 0, "image/svg+xml; charset=utf-8", "Größe & \"1/2\".svg"
	do(t, "GET", base+opt.Keys.Sign(link)).want(t, 200, "Content-Type: image/svg+xml; charset=utf-8",
		`Content-Disposition: attachment; filename="Gr__e & _1_2_.svg"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%20&%20%221_2%22.svg`,
		"Cache-Control: private, no-cache", "X-Content-Type-Options: nosniff")
}

func TestSignedURLRefused(t *testing.T) {
	s := newMemory(t)
	tid := storeBytes(t, s, 0x2a, text)
	storeBytes(t, s, 0x2b, text)
	opt := signed(t)
	base := start(t, s, opt).URL
	good := opt.Keys.Sign(Link{Storage: "1", OID: 0x2a, TID: tid, Expires: noon.Add(time.Minute), Type: "text/plain"})
	do(t, "GET", base+good).want(t, 200)

	replace := func(from, to string) string {
		if !strings.Contains(good, from) {
			t.Fatalf("%s has no %s", good, from)
		}
		return strings.Replace(good, from, to, 1)
	}
	path, _, _ := strings.Cut(good, "?")
	future := fmt.Sprint(noon.Unix() + 60)
	for name, target := range map[string]string{
		"no query":                       path,
		"only a signature":               path + "?signature=" + strings.Repeat("0", 64),
		"other oid":                      replace("2a/", "2b/"),
		"no tid":                         replace("/"+tid.String(), ""),
		"oid in upper case, same object": replace("2a/", "2A/"),
		"escaped path":                   replace("2a/", "%32a/"),
		"other storage":                  replace("/blobs/1/", "/blobs/2/"),
		"later":                          replace("expires=", "expires=1"),
		"other type":                     replace("plain", "html"),
		"type added":                     replace("&signature", "&type=text%2Fhtml&signature"),
		"type behind":                    good + "&type=text%2Fhtml",
		"second signature":               good + good[strings.Index(good, "&signature"):],
		"shorter":                        good[:len(good)-2],
		"odd":                            good[:len(good)-1],
		"empty":                          good[:strings.LastIndex(good, "=")+1],
		"not hex":                        good[:len(good)-1] + "g",
		"flipped bit":                    good[:len(good)-1] + string("0123456789abcdef"[(strings.IndexByte("0123456789abcdef", good[len(good)-1])+1)%16]),
		"semicolons":                     strings.ReplaceAll(good, "&", ";"),
		"expired":                        opt.Keys.Sign(Link{Storage: "1", OID: 0x2a, Expires: noon.Add(-time.Second)}),
		"just expired":                   opt.Keys.Sign(Link{Storage: "1", OID: 0x2a, Expires: noon}),
		"missing blob, expired":          opt.Keys.Sign(Link{Storage: "1", OID: 0x99, Expires: noon}),
		"missing storage, bad":           "/blobs/nope/2a?expires=1&signature=00",
	} {
		t.Run(name, func(t *testing.T) {
			opened := s.opened.Load()
			a := do(t, "GET", base+target)
			a.want(t, 403, "Cache-Control: no-store", "Etag:")
			if s.opened.Load() != opened {
				t.Error("a blob was opened")
			}
		})
	}
	// Signed, but wrong: whoever has the key is told.
	for name, query := range map[string]string{
		"no expiry":           "type=text%2Fplain",
		"expiry twice":        "expires=" + future + "&expires=" + future,
		"expiry no number":    "expires=soon",
		"expiry negative":     "expires=-1",
		"expiry overflow":     "expires=99999999999999999999",
		"unknown parameter":   "expires=" + future + "&v=1",
		"header injection":    "expires=" + future + "&type=" + url.QueryEscape("text/html\r\nSet-Cookie: a=b"),
		"type without a sub":  "expires=" + future + "&type=text",
		"file name with line": "expires=" + future + "&filename=" + url.QueryEscape("a\r\nb"),
		"file name not UTF-8": "expires=" + future + "&filename=%ff",
		"file name empty":     "expires=" + future + "&filename=",
		"file name too long":  "expires=" + future + "&filename=" + strings.Repeat("a", 256),
		"bad escape":          "expires=" + future + "&filename=%zz",
	} {
		t.Run(name, func(t *testing.T) {
			do(t, "GET", base+signRaw(path+"?"+query)).want(t, 400, "Content-Disposition:", "Set-Cookie:")
		})
	}
}

func TestKeyRotation(t *testing.T) {
	s := newMemory(t)
	storeBytes(t, s, 1, text)
	file := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, second := strings.Repeat("1", 64), strings.Repeat("2", 64)
	write("# made for the test\n\n" + first + "\n")
	keys, err := LoadKeys(file)
	if err != nil {
		t.Fatal(err)
	}
	opt := signed(t)
	opt.Keys = keys
	base := start(t, s, opt).URL
	link := Link{Storage: "1", OID: 1, Expires: noon.Add(time.Hour)}
	old := keys.Sign(link)
	do(t, "GET", base+old).want(t, 200)

	write("  " + second + "\r\n" + first)
	if err := keys.Reload(); err != nil {
		t.Fatal(err)
	}
	fresh := keys.Sign(link)
	if fresh == old {
		t.Error("the new key does not sign")
	}
	do(t, "GET", base+old).want(t, 200)
	do(t, "GET", base+fresh).want(t, 200)

	for _, bad := range []string{"", "# none\n", second + "\nshort\n"} {
		write(bad)
		if keys.Reload() == nil {
			t.Errorf("%q was accepted", bad)
		}
		do(t, "GET", base+fresh).want(t, 200) // as before
	}
	write(second + "\n")
	if err := keys.Reload(); err != nil {
		t.Fatal(err)
	}
	do(t, "GET", base+old).want(t, 403)
	do(t, "GET", base+fresh).want(t, 200)
	if _, err := LoadKeys(file + "-none"); err == nil {
		t.Error("a missing file was accepted")
	}
}

// TestGoSnippet does what the package comment tells programs in Go to do.
func TestGoSnippet(t *testing.T) {
	s := newMemory(t)
	storeBytes(t, s, 0x2a, text)
	opt := signed(t)
	base := start(t, s, opt).URL
	key, oid, expires := testKey, "2a", fmt.Sprint(noon.Unix()+60)

	target := "/blobs/1/" + oid + "?" + url.Values{"expires": {expires}, "type": {"image/png"}}.Encode()
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(target))
	target += "&signature=" + hex.EncodeToString(mac.Sum(nil))

	do(t, "GET", base+target).want(t, 200, "Content-Type: image/png")
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`target := "/blobs/1/" + oid + "?" + url.Values{"expires": {expires}, "type": {"image/png"}}.Encode()`,
		`mac := hmac.New(sha256.New, key)`, `mac.Write([]byte(target))`,
		`target += "&signature=" + hex.EncodeToString(mac.Sum(nil))`,
	} {
		if !strings.Contains(string(doc), "//\t"+line+"\n") {
			t.Errorf("the package comment does not have\n%s", line)
		}
	}
}

// FuzzTarget asks for anything without being able to sign.
func FuzzTarget(f *testing.F) {
	s := newMemory(f)
	tid := storeBytes(f, s, 1, text)
	h := New(map[string]zeolite.Storage{"1": s}, Options{
		Blobs: true, Loopback: true, ClientCertificates: true, Profiles: true, Keys: testKeys(f)})
	for _, seed := range []string{"/blobs/1/1", "/blobs/1/1/" + tid.String(), "/blobs/1/1?expires=99999999999&signature=" + strings.Repeat("0", 64),
		"/blobs/1/1?&signature=&signature=", "/blobs/%31/%2e%2e/1?expires=1;signature=2", "/debug/pprof/heap"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		r := httptest.NewRequest(http.MethodGet, "http://localhost/", nil)
		r.URL, r.RequestURI = u, target
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code < 300 {
			t.Errorf("%q was answered %d", target, w.Code)
		}
	})
}

func TestAttachment(t *testing.T) {
	for name, want := range map[string]string{
		"a.txt":       `attachment; filename="a.txt"`,
		"a b;c.txt":   `attachment; filename="a b;c.txt"`,
		`a"b\c/d.txt`: `attachment; filename="a_b_c_d.txt"; filename*=UTF-8''a%22b_c_d.txt`,
		"100%.txt":    `attachment; filename="100_.txt"; filename*=UTF-8''100%25.txt`,
		"../../etc":   `attachment; filename=".._.._etc"`,
		"日本.txt":      `attachment; filename="__.txt"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.txt`,
	} {
		if got := attachment(name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

func TestLoopback(t *testing.T) {
	s := newMemory(t)
	storeBytes(t, s, 1, text)
	base := start(t, s, open).URL
	port := base[strings.LastIndex(base, ":"):]
	for _, host := range []string{"localhost" + port, "LOCALHOST", "127.0.0.1", "127.1.2.3" + port, "[::1]" + port} {
		do(t, "GET", base+"/blobs/1/1", "Host: "+host).want(t, 200)
	}
	for _, header := range []string{"Host: evil.example" + port, "Host: 192.0.2.1", "Host: localhost.evil.example",
		"X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "Via: 1.1 proxy", "X-Real-IP: 127.0.0.1"} {
		do(t, "GET", base+"/blobs/1/1", header).want(t, 403)
	}
	// Type and name are for those who can sign.
	do(t, "GET", base+"/blobs/1/1?type=text/html").want(t, 403)
	do(t, "GET", base+"/blobs/1/1?").want(t, 200)

	h := New(map[string]zeolite.Storage{"1": s}, open)
	for peer, status := range map[string]int{
		"127.0.0.1:1": 200, "[::1]:1": 200, "[::ffff:127.0.0.1]:1": 200,
		"192.0.2.1:1": 403, "[2001:db8::1]:1": 403, "@": 403, "": 403,
	} {
		r := httptest.NewRequest(http.MethodGet, "http://localhost/blobs/1/1", nil)
		r.RemoteAddr = peer
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("from %q: %d, want %d", peer, w.Code, status)
		}
	}
}

func TestNothingByDefault(t *testing.T) {
	s := newMemory(t)
	storeBytes(t, s, 1, text)
	base := start(t, s, Options{}).URL
	for _, path := range []string{"/", "/blobs/1/1", "/livez", "/readyz", "/metrics", "/debug/pprof/", "/debug/pprof/heap"} {
		do(t, "GET", base+path).want(t, 404)
	}
	do(t, "GET", start(t, s, Options{Blobs: true}).URL+"/blobs/1/1").want(t, 403)
}
