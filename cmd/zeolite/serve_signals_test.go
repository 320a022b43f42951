package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
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
