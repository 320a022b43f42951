package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/tests/peers"
)

// operatorConf is the zeo.conf of a site. Nobody changes it.
const operatorConf = `%%define INSTANCE %[1]s

<zeo>
  address %[2]s
  transaction-timeout 60
  invalidation-queue-size 100
  pid-filename $INSTANCE/zeo.pid
  <ssl>
    certificate $INSTANCE/server.pem
    key $INSTANCE/server.key
    authenticate $INSTANCE/ca.pem
  </ssl>
</zeo>

<filestorage 1>
  path $INSTANCE/Data.fs
  blob-dir $INSTANCE/blobs
  pack-keep-old true
</filestorage>

<eventlog>
  level info
  <logfile>
    path STDERR
  </logfile>
  <logfile>
    path $INSTANCE/zeo.log
    format %%(asctime)s %%(message)s
  </logfile>
</eventlog>

<runner>
  program runzeo
  socket-name $INSTANCE/zeo.zdsock
</runner>
`

// TestOperator is what the operator of a site does: stops runzeo, starts
// zeolite with the same zeo.conf, works with it, and goes back; while clients
// with persistent caches stay or come back.
func TestOperator(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, filepath.Join(dir, "ca.pem"))
	ca.issue(t, filepath.Join(dir, "server"))
	ca.issue(t, filepath.Join(dir, "client"))
	ca.revoke(t, filepath.Join(dir, "ca.pem"), ca.issue(t, filepath.Join(dir, "revoked")))
	address := peers.FreeAddress(t)
	conf := filepath.Join(dir, "zeo.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, operatorConf, dir, address), 0o666); err != nil {
		t.Fatal(err)
	}
	options := peers.Options{Dir: dir, Config: conf, Address: address}
	clients := startClients(t, address, dir)

	theirs := peers.Start(t, peers.RunZEO, options)
	clients.do("refuse_strangers")
	clients.do("begin")
	clients.do("leave_to_undo")
	stop(t, theirs)

	ours := peers.Start(t, peers.Zeolite, options)
	within(t, "strangers are refused for what they are", func() bool {
		clients.do("refuse_strangers") // a client that gives up too soon is not heard of
		log := ours.Log()
		return strings.Contains(log, "was revoked") && strings.Contains(log, "client didn't provide a certificate") &&
			strings.Contains(log, `before="TLS handshake"`) // one without TLS, which waits for the server
	})
	clients.do("go_on")
	certificatesAreReadAgain(t, ours, ca, dir)
	logIsReopened(t, ours, dir)
	clients.do("pack")
	clients.do("go_on")
	clients.do("leave_to_undo")
	stop(t, ours)
	noDamage(t, dir)

	if err := theirs.Start(); err != nil {
		t.Fatal(err)
	}
	clients.do("go_on")
	clients.do("pack")
	clients.do("go_on")
	stop(t, theirs)

	if err := ours.Start(); err != nil {
		t.Fatal(err)
	}
	clients.do("go_on")
	clients.do("end")
	stop(t, ours)
	noDamage(t, dir)
	if torn, _ := filepath.Glob(filepath.Join(dir, "Data.fs.tr*")); torn != nil {
		t.Errorf("somebody took the end of the file for damaged: %v", torn)
	}
}

func stop(t *testing.T, s *peers.Server) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
}

func noDamage(t *testing.T, dir string) {
	t.Helper()
	report, err := filestorage.Check(context.Background(), filepath.Join(dir, "Data.fs"),
		filestorage.CheckOptions{BlobDir: filepath.Join(dir, "blobs")})
	if err != nil || len(report.Findings) > 0 || report.Blobs == 0 {
		t.Errorf("check: %v: %+v", err, report)
	}
}

// operatorClients is operator_story.py at work. The goroutine of the test uses it.
type operatorClients struct {
	t   *testing.T
	in  *os.File
	out *bufio.Reader
}

func startClients(t *testing.T, address, certificates string) *operatorClients {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("operator_story.py")
	if err != nil {
		t.Fatal(err)
	}
	in, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(certificates, name) }
	cmd := exec.Command(peers.Python(t), script, host, port, at("ca.pem"), at("client.pem"), at("client.key"), at("revoked.pem"), at("revoked.key"))
	cmd.Dir, cmd.Stdin, cmd.Stderr = t.TempDir(), in, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	t.Cleanup(func() {
		write.Close()
		kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("operator_story.py: %v", err)
		}
	})
	return &operatorClients{t, write, bufio.NewReader(out)}
}

// do has the clients do a step.
func (c *operatorClients) do(step string) {
	c.t.Helper()
	fmt.Fprintln(c.in, step)
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		c.t.Fatalf("%s: %v", step, err)
	}
	var answer string
	if err := json.Unmarshal(line, &answer); err != nil || answer != "ok" {
		c.t.Fatalf("%s: %s %v", step, answer, err)
	}
}

// within polls until condition holds.
func within(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// certificatesAreReadAgain gives the server another certificate and sends
// SIGHUP; new connections then see the new one.
func certificatesAreReadAgain(t *testing.T, s *peers.Server, ca *authority, dir string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key"))
	if err != nil {
		t.Fatal(err)
	}
	serial := func() string {
		c, err := tls.Dial("tcp", s.Address(), &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{pair}, ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	want := ca.issue(t, filepath.Join(dir, "server"))
	if serial() != before {
		t.Error("the certificate changed before SIGHUP")
	}
	if err := s.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	within(t, "the new certificate", func() bool { return serial() == want })

	// A certificate that cannot be read leaves the one that is in use.
	good, err := os.ReadFile(filepath.Join(dir, "server.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "server.pem"), []byte("nonsense"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	within(t, "a complaint", func() bool { return strings.Contains(s.Log(), "cannot read the certificates again") })
	if serial() != want {
		t.Error("a certificate that cannot be read took the place of the one in use")
	}
	if err := os.WriteFile(filepath.Join(dir, "server.pem"), good, 0o666); err != nil {
		t.Fatal(err)
	}
}

// logIsReopened moves the log away and sends SIGUSR2.
func logIsReopened(t *testing.T, s *peers.Server, dir string) {
	t.Helper()
	name := filepath.Join(dir, "zeo.log")
	if err := os.Rename(name, name+".1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	within(t, "a new log file", func() bool {
		b, err := os.ReadFile(name)
		return err == nil && strings.Contains(string(b), "opened again")
	})
}
