package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/tests/peers"
)

// TestMain runs the tests; or zeolite itself, as a process of a test.
func TestMain(m *testing.M) {
	if os.Getenv("ZEOLITE_TEST_AS_PROGRAM") == "1" {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// refusal runs "zeolite serve" on a file that it must refuse, and returns what
// it said. The file stays as it is.
func refusal(t *testing.T, path string) string {
	t.Helper()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "serve", "-a", "127.0.0.1:0", "-f", path)
	cmd.Env = append(os.Environ(), "ZEOLITE_TEST_AS_PROGRAM=1")
	out, err := cmd.CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 {
		t.Errorf("serve: %v, want exit code 1\n%s", err, out)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("%s was changed", path)
	}
	if strings.Count(string(out), "\n") != 1 {
		t.Errorf("it should say what is wrong in one line:\n%s", out)
	}
	return string(out)
}

// TestServeNoDatabase: a file that is something else is left alone.
func TestServeNoDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Data.fs")
	if err := os.WriteFile(path, []byte("PK\x03\x04 a zip file"), 0o666); err != nil {
		t.Fatal(err)
	}
	if out := refusal(t, path); !strings.Contains(out, "is not a FileStorage") {
		t.Errorf("it said %q", out)
	}
}

// TestServeLockedDatabase: another process, in Python, has the database open.
func TestServeLockedDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Data.fs")
	cmd := exec.Command(peers.Python(t), "-c", `
import sys
from ZODB.FileStorage import FileStorage
s = FileStorage(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
s.close()
`, path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "open\n" {
		t.Fatalf("Python said %q, %v", line, err)
	}
	if out := refusal(t, path); !strings.Contains(out, "in use") {
		t.Errorf("it said %q", out)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// program runs zeolite in a process of its own; it returns the exit code and
// what it printed.
func program(t *testing.T, args ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // it may serve, and not end
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), "ZEOLITE_TEST_AS_PROGRAM=1")
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// daemonConf writes a zeo.conf that logs to zeo.log, and returns its path.
func daemonConf(t *testing.T, dir, address string) string {
	t.Helper()
	name := filepath.Join(dir, "zeo.conf")
	writeFile(t, name, fmt.Sprintf(`<zeo>
  address %s
</zeo>
<filestorage 1>
  path %s/Data.fs
</filestorage>
<eventlog>
  <logfile>
    path %[2]s/zeo.log
  </logfile>
</eventlog>
`, address, dir))
	return name
}

// logged is what went to zeo.log.
func logged(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "zeo.log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestServeAddressInUse: nothing is opened then, and zdaemon does not try again.
func TestServeAddressInUse(t *testing.T) {
	dir := t.TempDir()
	for _, network := range []string{"tcp", "unix"} {
		address := map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(dir, "sock")}[network]
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		conf := daemonConf(t, dir, l.Addr().String())
		for _, args := range [][]string{
			{"-C", conf},
			{"-C", conf, "-a", "127.0.0.1:0", "--http", l.Addr().String()},
		} {
			code, out := program(t, append([]string{"serve"}, args...)...)
			if code != 2 || !strings.Contains(out, "address already in use") {
				t.Errorf("%v: exit code %d, printed %q", args, code, out)
			}
			if log := logged(t, dir); !strings.Contains(log, "ERROR") || !strings.Contains(log, "address already in use") {
				t.Errorf("%v: the event log has\n%s", args, log)
			}
			if err := os.Remove(filepath.Join(dir, "zeo.log")); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(dir, "Data.fs")); err == nil {
				t.Errorf("%v: the database was created", args)
			}
		}
	}
}

// TestServeWrongConfiguration: zdaemon does not try again.
func TestServeWrongConfiguration(t *testing.T) {
	dir := t.TempDir()
	conf := daemonConf(t, dir, "nonsense with spaces:8100")
	for _, args := range [][]string{{"-C", conf}, {"-C", conf, "--check"}, {"-C", filepath.Join(dir, "none.conf")}} {
		if code, out := program(t, append([]string{"serve"}, args...)...); code != 2 {
			t.Errorf("%v: exit code %d, printed %q", args, code, out)
		}
	}
}

// secured writes a certificate with its key and whom it trusts to a directory:
// server.pem and ca.pem.
func secured(t *testing.T, dir string) (root *issuer) {
	t.Helper()
	root = newIssuer(t, "root", nil)
	server := root.client("server")
	writeFile(t, filepath.Join(dir, "server.pem"), server.pem(), server.keyPEM(t))
	writeFile(t, filepath.Join(dir, "ca.pem"), root.pem())
	return root
}

// TestServeWhatIsMissing: nor does zdaemon try again where files and directories
// that are named are not there, or not what they should be.
func TestServeWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	secured(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o777); err != nil {
		t.Fatal(err)
	}
	const (
		zeo     = "<zeo>\n address 127.0.0.1:0\n</zeo>\n"
		storage = "<filestorage>\n path $(DIR)/Data.fs\n</filestorage>\n"
	)
	ssl := func(certificate, authenticate string) string {
		return fmt.Sprintf(" <ssl>\n  certificate $(DIR)/%s\n  authenticate $(DIR)/%s\n </ssl>\n", certificate, authenticate)
	}
	for name, text := range map[string]string{
		"path":            zeo + "<filestorage>\n path $(DIR)/none/Data.fs\n</filestorage>\n",
		"blob-dir":        zeo + "<filestorage>\n path $(DIR)/Data.fs\n blob-dir $(DIR)/none/blobs\n</filestorage>\n",
		"certificate":     "<zeo>\n address 127.0.0.1:0\n" + ssl("none/server.pem", "ca.pem") + "</zeo>\n" + storage,
		"no certificates": "<zeo>\n address 127.0.0.1:0\n" + ssl("server.pem", "empty") + "</zeo>\n" + storage,
		"remote":          zeo + "<demostorage>\n <clientstorage>\n  server 127.0.0.1:1\n" + ssl("server.pem", "empty") + " </clientstorage>\n</demostorage>\n",
		"socket":          "<zeo>\n address $(DIR)/none/sock\n</zeo>\n" + storage,
	} {
		conf := filepath.Join(dir, "zeo.conf")
		writeFile(t, conf, strings.ReplaceAll(text, "$(DIR)", dir))
		for _, args := range [][]string{{"-C", conf, "--check"}, {"-C", conf}} {
			if code, out := program(t, append([]string{"serve"}, args...)...); code != 2 {
				t.Errorf("%s: %v: exit code %d, printed %q", name, args, code, out)
			}
		}
	}
	conf := filepath.Join(dir, "zeo.conf")
	writeFile(t, conf, zeo+strings.ReplaceAll(storage, "$(DIR)", dir))
	for _, args := range [][]string{
		{"--http", "127.0.0.1:0", "--http-cert", filepath.Join(dir, "none.pem")},
		{"--http", "127.0.0.1:0", "--http-key", filepath.Join(dir, "none.key")},
		{"--http", "127.0.0.1:0", "--http-cert", filepath.Join(dir, "server.pem"), "--http-client-ca", filepath.Join(dir, "empty")},
		{"--http", filepath.Join(dir, "none", "sock")},
		{"--http", "host:none"},
	} {
		args = append([]string{"serve", "-C", conf}, args...)
		for _, args := range [][]string{append(args[:len(args):len(args)], "--check"), args} {
			if code, out := program(t, args...); code != 2 {
				t.Errorf("%v: exit code %d, printed %q", args, code, out)
			}
		}
	}
	for _, args := range [][]string{
		{"-a", "127.0.0.1:0", "-f", filepath.Join(dir, "none", "Data.fs")},
		{"-a", filepath.Join(dir, "none", "sock"), "-f", filepath.Join(dir, "Data.fs")},
		{"-a", "127.0.0.1:0", "-f", filepath.Join(dir, "Data.fs"), "--http", "127.0.0.1:0", "--http-cert", filepath.Join(dir, "none.pem")},
	} {
		if code, out := program(t, append([]string{"serve"}, args...)...); code != 2 {
			t.Errorf("%v: exit code %d, printed %q", args, code, out)
		}
	}
}

// TestCheckWarns: what serve would warn of when it reads certificates is said by
// --check, too.
func TestCheckWarns(t *testing.T) {
	dir := t.TempDir()
	root := secured(t, dir)
	writeFile(t, filepath.Join(dir, "ca.pem"), root.pem(), root.revocations(2*time.Hour))
	conf := filepath.Join(dir, "zeo.conf")
	const ssl = "<ssl>\n certificate DIR/server.pem\n authenticate DIR/ca.pem\n</ssl>\n"
	for _, text := range []string{
		"<zeo>\n address 127.0.0.1:8100\n" + ssl + "</zeo>\n<mappingstorage>\n</mappingstorage>\n",
		"<zeo>\n address 127.0.0.1:8100\n</zeo>\n<clientstorage>\n server 127.0.0.1:1\n" + ssl + "</clientstorage>\n",
	} {
		writeFile(t, conf, strings.ReplaceAll(text, "DIR", dir))
		code, out := zeoliteCommand(t, "serve", "-C", conf, "--check")
		if code != 0 || strings.Count(out, "warning: ") != 1 || !strings.Contains(out, "warning: a revocation list is not in force") {
			t.Errorf("exit code %d, printed\n%s", code, out)
		}
	}
}

// TestServeLockedIsLogged: another process may end soon, so trying again makes
// sense.
func TestServeLockedIsLogged(t *testing.T) {
	dir := t.TempDir()
	s, err := filestorage.Open(filepath.Join(dir, "Data.fs"), filestorage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	code, out := program(t, "serve", "-C", daemonConf(t, dir, "127.0.0.1:0"))
	if log := logged(t, dir); code != 1 || !strings.Contains(log, "ERROR") || !strings.Contains(log, "in use") {
		t.Errorf("exit code %d, printed %q; the event log has\n%s", code, out, log)
	}
}
