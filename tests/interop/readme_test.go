package interop

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite/tests/peers"
)

// TestReadme runs the programs of the README against a server, one after
// another: the first one, in Python, makes what the others read.
func TestReadme(t *testing.T) {
	t.Parallel()
	python := peers.Python(t)
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	server := peers.Start(t, peers.Zeolite, peers.Options{})
	host, port, _ := strings.Cut(server.Address(), ":")
	address := strings.NewReplacer("127.0.0.1:8100", server.Address(),
		`("127.0.0.1", 8100)`, `("`+host+`", `+port+`)`)
	dir := t.TempDir()
	ran := ""
	for _, part := range strings.Split(string(page), "\n```")[1:] {
		language, code, _ := strings.Cut(part, "\n")
		if language != "python" && language != "go" {
			continue
		}
		var cmd *exec.Cmd
		if language == "go" {
			path := filepath.Join(t.TempDir(), "main.go")
			if err := os.WriteFile(path, []byte(address.Replace(code)), 0o666); err != nil {
				t.Fatal(err)
			}
			program := filepath.Join(t.TempDir(), "program")
			if out, err := exec.Command("go", "build", "-o", program, path).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			cmd = exec.Command(program)
		} else {
			cmd = exec.Command(python, "-c", address.Replace(code))
		}
		cmd.Dir = dir
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%v\n%s\n%s", err, code, &stderr)
		}
		ran += language + ": " + string(out)
	}
	for _, want := range []string{
		"python: hello b'any number of bytes'\n",
		"go: the root object was written by transaction ",
		"go: any number of bytes\n",
	} {
		if !strings.Contains(ran, want) {
			t.Errorf("the examples printed\n%s\nwhich lacks %q", ran, want)
		}
	}
}
