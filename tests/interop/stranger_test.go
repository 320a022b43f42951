package interop

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite/tests/peers"
)

// alone runs a Python program that can import nothing but the standard library
// and what stands beside it.
func alone(t *testing.T, program string, args ...string) (out []byte, err error) {
	t.Helper()
	cmd := exec.Command(peers.Python(t), append([]string{"-I", "-S", program}, args...)...)
	cmd.Dir = t.TempDir()
	cmd.Stderr = t.Output()
	return cmd.Output()
}

// TestStranger runs a client that was written from protocol.md alone against
// our server, and against Python's, which shows that the page is right.
func TestStranger(t *testing.T) {
	t.Parallel()
	program, err := filepath.Abs("stranger.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []struct {
		kind    peers.Kind
		options peers.Options
	}{
		{peers.Zeolite, peers.Options{}},
		{peers.Zeolite, peers.Options{Msgpack: true}},
		{peers.RunZEO, peers.Options{}},
		{peers.RunZEO, peers.Options{Msgpack: true, ClientConflictResolution: true}},
	} {
		encoding := peers.Pickle
		if target.options.Msgpack {
			encoding = peers.Msgpack
		}
		t.Run(peers.Target{Kind: target.kind, Encoding: encoding}.String(), func(t *testing.T) {
			t.Parallel()
			server := peers.Start(t, target.kind, target.options)
			out, err := alone(t, program, server.Address())
			checks := 0
			for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); checks++ {
				name, failed := strings.CutPrefix(lines.Text(), "failed ")
				if failed {
					t.Error(name)
				}
			}
			if checks < 30 {
				t.Errorf("%d checks, %v", checks, err)
			}
			if err != nil && !errors.As(err, new(*exec.ExitError)) {
				t.Error(err)
			}
		})
	}
}

// TestMinimalClient runs the example at the end of protocol.md.
func TestMinimalClient(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(page), "\n## 15. A minimal client\n")
	_, code, ok2 := strings.Cut(after, "\n```python\n")
	code, _, ok3 := strings.Cut(code, "\n```\n")
	if !ok || !ok2 || !ok3 {
		t.Fatal("protocol.md has no minimal client any more")
	}
	program := filepath.Join(t.TempDir(), "minimal.py")
	if err := os.WriteFile(program, []byte(code), 0o666); err != nil {
		t.Fatal(err)
	}
	stranger, err := filepath.Abs("stranger.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []peers.Kind{peers.Zeolite, peers.RunZEO} {
		for _, msgpack := range []bool{false, true} {
			server := peers.Start(t, kind, peers.Options{Msgpack: msgpack})
			// Something to load.
			if out, err := alone(t, stranger, server.Address(), "pack"); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			out, err := alone(t, program, strings.Split(server.Address(), ":")...)
			if err != nil || !bytes.Contains(out, []byte("root object of")) || !bytes.Contains(out, []byte("PersistentMapping")) {
				t.Errorf("%s, msgpack %t: %v\n%s", kind, msgpack, err, out)
			}
		}
	}
}
