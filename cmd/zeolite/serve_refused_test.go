package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
