package peers

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// zeoliteArgs are the arguments for our server without a zeo.conf.
func zeoliteArgs(o Options) []string {
	args := []string{"serve", "-a", o.Address}
	if o.Postgres != "" {
		args = append(args, "--postgres", o.Postgres)
	} else {
		args = append(args, "-f", o.Path)
		if o.BlobDir != "" {
			args = append(args, "-b", o.BlobDir)
		}
	}
	args = append(args, o.Flags...)
	if o.Msgpack {
		args = append(args, "--msgpack")
	}
	if o.ReadOnly {
		args = append(args, "--read-only")
	}
	if o.TransactionTimeout > 0 {
		args = append(args, "-t", strconv.Itoa(o.TransactionTimeout))
	}
	return args
}

// With -C, lines are as Python writes them.
var listening = regexp.MustCompile(`\b(?:msg="?|INFO ZEO )listening\b.*\baddress=("[^"]*"|\S+)`)

// listeningAddress finds the address in the line that says a server is ready.
func listeningAddress(line string) (addr string, ok bool) {
	m := listening.FindStringSubmatch(line)
	if m == nil {
		return "", false
	}
	return strings.Trim(m[1], `"`), true
}

var servingHTTP = regexp.MustCompile(`msg="serving HTTP" http=(\S+)`)

// HTTP is the address at which the server speaks HTTP, if one of Options.Flags
// is --http.
func (s *Server) HTTP(t testing.TB) string {
	t.Helper()
	all := servingHTTP.FindAllStringSubmatch(s.Log(), -1)
	if all == nil {
		t.Fatal("the server does not speak HTTP")
	}
	return all[len(all)-1][1]
}

// build holds the binary that this test process built.
var build struct {
	sync.Once
	dir, path string
	output    []byte
	err       error
}

// Binary builds zeolite, once for each test process, and returns its path.
func Binary(t testing.TB) string {
	t.Helper()
	root := moduleRoot(t)
	build.Do(func() {
		if build.dir, build.err = os.MkdirTemp("", "zeolite-test-"); build.err != nil {
			return
		}
		build.path = filepath.Join(build.dir, "zeolite")
		args := []string{"build", "-o", build.path}
		if os.Getenv("ZEOLITE_TEST_RACE") == "1" {
			args = append(args, "-race")
		}
		cmd := exec.Command("go", append(args, "./cmd/zeolite")...)
		cmd.Dir = root
		build.output, build.err = cmd.CombinedOutput()
	})
	if build.err != nil {
		t.Fatalf("cannot build zeolite: %v\n%s", build.err, build.output)
	}
	return build.path
}

// Main runs the tests of a package and removes what Binary built:
//
//	func TestMain(m *testing.M) { os.Exit(peers.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	if build.dir != "" {
		_ = os.RemoveAll(build.dir) // a leftover in the temporary directory at worst
	}
	return code
}
