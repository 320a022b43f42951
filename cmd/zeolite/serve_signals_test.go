package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/zeolite-go/zeolite/server/filestorage"
)

// TestSignalsDuringStart: while serve waits for what it is to serve, SIGHUP and
// SIGUSR2 do not end it, and SIGTERM does.
func TestSignalsDuringStart(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	dir := t.TempDir()
	conf := filepath.Join(dir, "zeo.conf")
	text := fmt.Sprintf("<zeo>\n address 127.0.0.1:0\n</zeo>\n<clientstorage>\n server %s\n wait-timeout 3600\n</clientstorage>\n", silent.Addr())
	if err := os.WriteFile(conf, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(os.Args[0], "serve", "-C", conf)
	cmd.Env = append(os.Environ(), "ZEOLITE_TEST_AS_PROGRAM=1")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	conn, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGTERM} {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-ended; err != nil || !strings.Contains(out.String(), "stopped before it was ready") {
		t.Errorf("it ended with %v\n%s", err, &out)
	}
}

// startServe runs zeolite serve until it is ready.
func startServe(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"serve", "-a", "127.0.0.1:0"}, args...)...)
	cmd.Env = append(os.Environ(), "ZEOLITE_TEST_AS_PROGRAM=1")
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("it printed %q, %v", line, err)
	}
	return cmd
}

// stopServe ends it.
func stopServe(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestPIDFile: once the file with the process id is gone, so is the lock of the
// database; and what is not such a file is left alone.
func TestPIDFile(t *testing.T) {
	dir, _ := sample(t, 1)
	name := filepath.Join(dir, "zeolite.pid")
	cmd := startServe(t, "-f", filepath.Join(dir, "Data.fs"), "-b", filepath.Join(dir, "blobs"), "--pid-file", name)
	if b, err := os.ReadFile(name); err != nil || string(b) != fmt.Sprintln(cmd.Process.Pid) {
		t.Errorf("it has %q, %v", b, err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for exists(name) {
			runtime.Gosched()
		}
	}()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-gone
	s, err := filestorage.Open(filepath.Join(dir, "Data.fs"), filestorage.Options{BlobDir: filepath.Join(dir, "blobs")})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}

	if err := os.Mkdir(name, 0o777); err != nil {
		t.Fatal(err)
	}
	stopServe(t, startServe(t, "-f", filepath.Join(dir, "Data.fs"), "-b", filepath.Join(dir, "blobs"), "--pid-file", name))
	if !exists(name) {
		t.Error("it removed what it did not write")
	}
}
