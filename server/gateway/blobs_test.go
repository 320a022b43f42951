package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
)

var text = []byte("0123456789abcdefghijklmnopqrstuvwxyz")

func TestGet(t *testing.T) {
	for name, make := range map[string]func(testing.TB) *watched{"memory": newMemory, "filestorage": newFileStorage} {
		for _, opaque := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, opaque %v", name, opaque), func(t *testing.T) {
				s := make(t)
				s.opaque = opaque
				first := storeBytes(t, s, 0x2a, []byte("old"))
				tid := storeBytes(t, s, 0x2a, text)
				store(t, s, 0x2b, nil)
				url := start(t, s, open).URL

				a := do(t, "GET", url+"/blobs/1/2a")
				a.want(t, 200, "Content-Length: 36", "Content-Type: application/octet-stream",
					`Etag: "`+tid.String()+`"`, "Cache-Control: public, no-cache", "Accept-Ranges: bytes",
					"X-Content-Type-Options: nosniff", "Last-Modified:", "Content-Disposition:")
				if !bytes.Equal(a.body, text) {
					t.Errorf("body is %q", a.body)
				}
				for _, form := range []string{"2a", "0x2a", "2A", "000000000000002a", "0x000000000000002a"} {
					a = do(t, "GET", url+"/blobs/1/"+form+"/"+tid.String())
					a.want(t, 200, `Etag: "`+tid.String()+`"`, "Cache-Control: public, max-age=31536000, immutable",
						"Last-Modified: "+tid.Time().Format(http.TimeFormat))
					if !bytes.Equal(a.body, text) {
						t.Errorf("body is %q", a.body)
					}
				}
				a = do(t, "GET", url+"/blobs/1/2a/"+first.String())
				a.want(t, 200, `Etag: "`+first.String()+`"`)
				if string(a.body) != "old" {
					t.Errorf("body is %q", a.body)
				}

				reads := s.read.Load()
				a = do(t, "HEAD", url+"/blobs/1/2a")
				a.want(t, 200, "Content-Length: 36", `Etag: "`+tid.String()+`"`)
				if s.read.Load() != reads {
					t.Error("HEAD has read the blob")
				}

				for _, path := range []string{
					"2b", "2c", "2a/" + (tid + 1).String(), "2b/" + tid.String(), // no blob, no object, no revision
					"zz", "0x", "-2a", "%20", "12345678901234567", "2a/1", "2a/" + tid.String() + "0", "2a/" + strings.Repeat("g", 16),
					"2a/", "2a/" + tid.String() + "/", "2a/" + tid.String() + "/x", "",
				} {
					do(t, "GET", url+"/blobs/1/"+path).want(t, 404, "Etag:", "Content-Disposition:")
					do(t, "HEAD", url+"/blobs/1/"+path).want(t, 404)
				}
				for _, path := range []string{"/blobs/2/2a", "/blobs/1%2F2a/2a", "/blobs", "/", "/livez", "/metrics", "/debug/pprof/"} {
					do(t, "GET", url+path).want(t, 404)
				}
				for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH"} {
					do(t, method, url+"/blobs/1/2a").want(t, 405, "Allow: GET, HEAD")
				}
			})
		}
	}
}

func TestRanges(t *testing.T) {
	for _, opaque := range []bool{false, true} {
		t.Run(fmt.Sprintf("opaque %v", opaque), func(t *testing.T) {
			s := newMemory(t)
			s.opaque = opaque
			tid := storeBytes(t, s, 1, text)
			storeBytes(t, s, 2, nil)
			url := start(t, s, open).URL + "/blobs/1/1"
			etag := `"` + tid.String() + `"`

			part := func(want string, headers ...string) {
				t.Helper()
				for _, u := range []string{url, url + "/" + tid.String()} {
					a := do(t, "GET", u, headers...)
					a.want(t, 206, "Content-Length: "+fmt.Sprint(len(want)))
					if string(a.body) != want {
						t.Errorf("body is %q, want %q", a.body, want)
					}
				}
			}
			whole := func(headers ...string) {
				t.Helper()
				a := do(t, "GET", url, headers...)
				a.want(t, 200)
				if !bytes.Equal(a.body, text) {
					t.Errorf("body is %q", a.body)
				}
			}
			part("0123", "Range: bytes=0-3")
			part("z", "Range: bytes=35-")
			part("xyz", "Range: bytes=-3")
			part("yz", "Range: bytes=34-99999999")
			part("0123", "Range: bytes=0-3", "If-Range: "+etag)
			whole("Range: bytes=0-3", `If-Range: "0000000000000001"`)
			whole("Range: bytes=0-3", "If-Range: W/"+etag) // RFC 9110, 13.1.5: strong only
			whole("Range: bytes=0-3", "If-Range: "+tid.Time().Format(http.TimeFormat))
			do(t, "GET", url+"/"+tid.String(), "Range: bytes=0-3", "If-Range: "+tid.Time().Format(http.TimeFormat)).want(t, 206)

			for _, r := range []string{"bytes=36-", "bytes=99999999999999999999-", "bytes=9223372036854775807-", "bytes=5-4",
				"bytes=a-b", "lines=1-2", "bytes=--1", "bytes=1-2-3"} {
				a := do(t, "GET", url, "Range: "+r)
				a.want(t, 416, "Etag:", "Cache-Control:")
			}
			do(t, "GET", url, "Range: bytes=36-").want(t, 416, "Content-Range: bytes */36")
			do(t, "GET", url[:len(url)-1]+"2").want(t, 200, "Content-Length: 0")

			a := do(t, "GET", url, "Range: bytes=0-1,10-12,-1")
			a.want(t, 206)
			kind, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
			if err != nil || kind != "multipart/byteranges" {
				t.Fatalf("Content-Type is %q: %v", a.Header.Get("Content-Type"), err)
			}
			var got []string
			for parts := multipart.NewReader(bytes.NewReader(a.body), params["boundary"]); ; {
				p, err := parts.NextPart()
				if errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(p)
				got = append(got, p.Header.Get("Content-Range")+" "+p.Header.Get("Content-Type")+" "+string(body))
			}
			want := []string{
				"bytes 0-1/36 application/octet-stream 01",
				"bytes 10-12/36 application/octet-stream abc",
				"bytes 35-35/36 application/octet-stream z",
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("parts are\n%q, want\n%q", got, want)
			}
			// Many ranges, and ranges that are more than the whole.
			whole("Range: bytes=0-0" + strings.Repeat(",1-1", maxRanges))
			whole("Range: bytes=0-" + strings.Repeat(",0-", 30))
		})
	}
}

func TestConditions(t *testing.T) {
	s := newMemory(t)
	tid := storeBytes(t, s, 1, text)
	url := start(t, s, open).URL + "/blobs/1/1"
	etag := `"` + tid.String() + `"`
	other := `"0000000000000001"`
	date := tid.Time().Format(http.TimeFormat)
	for _, u := range []string{url, url + "/" + tid.String()} {
		before := s.opened.Load()
		for _, method := range []string{"GET", "HEAD"} {
			do(t, method, u, "If-None-Match: "+etag).want(t, 304, "Etag: "+etag, "Content-Length:", "Content-Type:")
			do(t, method, u, "If-None-Match: "+other+", W/"+etag).want(t, 304)
			do(t, method, u, "If-None-Match: "+other, "If-None-Match: "+etag).want(t, 304)
			do(t, method, u, "If-None-Match: "+etag, "Range: bytes=0-3").want(t, 304)
		}
		if got := s.opened.Load() - before; got != 0 {
			t.Errorf("%d blobs were opened to answer 304", got)
		}
		do(t, "GET", u, "If-None-Match: "+other).want(t, 200)
		do(t, "GET", u, "If-None-Match: *").want(t, 304)
		do(t, "GET", u, "If-Match: "+etag).want(t, 200)
		do(t, "GET", u, "If-Match: "+other).want(t, 412)
		do(t, "GET", u, "If-Match: "+other, "If-None-Match: "+etag).want(t, 412)
	}
	do(t, "GET", url+"/"+tid.String(), "If-Modified-Since: "+date).want(t, 304)
	do(t, "GET", url, "If-Modified-Since: "+date).want(t, 200)
}

// TestRevalidation does what a browser's cache does.
func TestRevalidation(t *testing.T) {
	s := newFileStorage(t)
	storeBytes(t, s, 1, []byte("one"))
	url := start(t, s, open).URL + "/blobs/1/1"
	a := do(t, "GET", url)
	a.want(t, 200)
	kept, etag := a.body, a.Header.Get("Etag")
	for range 3 {
		do(t, "GET", url, "If-None-Match: "+etag).want(t, 304)
	}
	if s.opened.Load() != 1 || string(kept) != "one" {
		t.Errorf("the blob was opened %d times", s.opened.Load())
	}
	storeBytes(t, s, 1, []byte("two"))
	a = do(t, "GET", url, "If-None-Match: "+etag)
	a.want(t, 200)
	if string(a.body) != "two" || a.Header.Get("Etag") == etag {
		t.Errorf("got %q, ETag %s", a.body, a.Header.Get("Etag"))
	}
}

// TestOvertaken has the current blob superseded, and gone, between looking up
// its tid and opening it.
func TestOvertaken(t *testing.T) {
	s := newMemory(t)
	storeBytes(t, s, 1, []byte("old"))
	var tid zeolite.TID
	s.openIt = func() error {
		s.openIt = nil
		tid = storeBytes(t, s, 1, []byte("new"))
		return &zeolite.NotFoundError{OID: 1, Blob: true}
	}
	a := do(t, "GET", start(t, s, open).URL+"/blobs/1/1")
	a.want(t, 200, `Etag: "`+tid.String()+`"`)
	if string(a.body) != "new" {
		t.Errorf("body is %q", a.body)
	}
}

func TestFailures(t *testing.T) {
	s := newMemory(t)
	storeBytes(t, s, 1, text)
	url := start(t, s, open).URL + "/blobs/1/1"
	for err, status := range map[error]int{
		errors.New("disk on fire at /secret"): 500,
		zeolite.ErrClosed:                     503,
		zeolite.ErrUnsupported:                404,
	} {
		s.openIt = func() error { return err }
		a := do(t, "GET", url)
		a.want(t, status, "Etag:", "Cache-Control: no-store")
		if bytes.Contains(a.body, []byte("secret")) {
			t.Errorf("the answer tells the cause: %s", a.body)
		}
	}
}

// TestFailureInTheMiddle checks that a client never takes a part of a blob for
// the whole.
func TestFailureInTheMiddle(t *testing.T) {
	s := newMemory(t)
	s.opaque = true
	storeBytes(t, s, 1, make([]byte, 1<<20))
	s.readIt = func(off int64) error {
		if off > 200_000 {
			return errors.New("bad sector")
		}
		return nil
	}
	url := start(t, s, open).URL + "/blobs/1/1"
	for _, r := range []string{"bytes=0-", "bytes=0-10,100-900000"} {
		a := do(t, "GET", url, "Range: "+r)
		if a.err == nil {
			t.Errorf("%s: got %d bytes and no error", r, len(a.body))
		}
	}
}

// TestTruncatedFile has a blob file that became shorter after it was opened. The
// log tells which one.
func TestTruncatedFile(t *testing.T) {
	s := newMemory(t)
	storeSparse(t, s, 1, 64<<20) // more than sockets hold
	tid, err := s.CurrentTID(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.OpenBlob(t.Context(), 1, tid)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	name := b.(*watchedFile).File().Name()
	var log bytes.Buffer
	opt := open
	opt.Logger = slog.New(slog.NewTextHandler(&log, nil))
	server := httptest.NewServer(New(map[string]zeolite.Storage{"1": s}, opt))
	defer server.Close()
	resp, err := patient.Get(server.URL + "/blobs/1/1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := os.Truncate(name, 0); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil {
		t.Errorf("got %d bytes of %d and no error", n, resp.ContentLength)
	}
	server.Close() // waits for the request
	want := fmt.Sprintf(`level=ERROR msg="cannot read a blob" oid=0x01 tid=%v file=%s error="unexpected EOF"`, tid, name)
	if !strings.Contains(log.String(), want) {
		t.Errorf("the log says\n%s\nwant %s", &log, want)
	}
}
