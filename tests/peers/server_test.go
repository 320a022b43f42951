package peers

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestServersStartStopAndRestart(t *testing.T) {
	for _, kind := range []Kind{RunZEO, Zeolite} {
		t.Run(string(kind), func(t *testing.T) {
			s := Start(t, kind, Options{Msgpack: true})
			for range 2 {
				if got := greeting(t, s.Address()); got != "\x00\x00\x00\x02M5" {
					t.Errorf("greeting is %q", got)
				}
				address := s.Address()
				if err := s.Stop(); err != nil {
					t.Fatal(err)
				}
				if _, err := net.Dial("tcp", address); err == nil {
					t.Error("somebody still listens after Stop")
				}
				if err := s.Start(); err != nil {
					t.Fatal(err)
				}
				if s.Address() != address {
					t.Errorf("address changed from %s to %s", address, s.Address())
				}
			}
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := s.Stop(); err != nil {
				t.Errorf("Stop after Kill: %v", err)
			}
		})
	}
}

// TestDataRaceIsAnError: a server that had a data race fails its test, also if
// it is killed.
func TestDataRaceIsAnError(t *testing.T) {
	for name, end := range map[string]func(*Server) error{"Stop": (*Server).Stop, "Kill": (*Server).Kill} {
		s := Start(t, Zeolite, Options{})
		if err := end(s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.log.Write([]byte("==================\nWARNING: DATA RACE\nWrite at ...\n")); err != nil {
			t.Fatal(err)
		}
		if err := end(s); err == nil || !strings.Contains(err.Error(), "Write at ...") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServerThatCannotStart(t *testing.T) {
	for _, kind := range []Kind{RunZEO, Zeolite} {
		t.Run(string(kind), func(t *testing.T) {
			_, err := launch(kind, Options{Path: "no/such/directory/Data.fs"}, findTools(t, kind), t.TempDir)
			if err == nil || !strings.Contains(err.Error(), "did not start") {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestListeningAddress(t *testing.T) {
	for line, want := range map[string]string{
		`time=2026-01-01T00:00:00Z level=INFO msg=listening address=127.0.0.1:8100`: "127.0.0.1:8100",
		`level=INFO msg=listening file=/x/Data.fs address=/run/zeo.sock`:            "/run/zeo.sock",
		`level=INFO msg=listening address="[::1]:8100" blobs=/x`:                    "[::1]:8100",
		`2026-01-01T00:00:00 INFO ZEO listening address=127.0.0.1:81 tls=true`:      "127.0.0.1:81",
		`level=INFO msg="client registered" client=127.0.0.1:1 address=127.0.0.1:1`: "",
		`level=ERROR msg="not listening" address=127.0.0.1:1`:                       "",
	} {
		if got, _ := listeningAddress(line); got != want {
			t.Errorf("%s: address is %q, want %q", line, got, want)
		}
	}
}

func TestOptionsDefaults(t *testing.T) {
	o := Options{}
	o.setDefaults(func() string { return "/new" })
	if o.Path != "/new/Data.fs" || o.BlobDir != "/new/blobs" {
		t.Errorf("defaults are %+v", o)
	}
	o = Options{Dir: "/here", Path: "sub/x.fs", BlobDir: "-"}
	o.setDefaults(nil)
	if o.Path != filepath.Join("/here", "sub/x.fs") || o.BlobDir != "" {
		t.Errorf("options are %+v", o)
	}
}

// greeting reads the frame that a server says first.
func greeting(t *testing.T, address string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 6)
	for n := 0; n < len(b); {
		m, err := c.Read(b[n:])
		if err != nil {
			t.Fatalf("after %q: %v", b[:n], err)
		}
		n += m
	}
	return string(b)
}
