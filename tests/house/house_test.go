// Package house holds tests of the tree as a whole: who imports whom, and what
// every file has to keep to. CONTRIBUTING.md has the rules in prose.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite/stubs"
)

const (
	module = "github.com/zeolite-go/zeolite"
	top    = "../.."

	flock = "github.com/gofrs/flock"
	xsync = "golang.org/x/sync"
	xsys  = "golang.org/x/sys"
)

// A layer says what a package may import besides the standard library: our
// packages by their path in the module ("." is the root), and modules of
// others. Tests may import more.
type layer struct{ ours, others []string }

var layers = map[string]layer{
	".":                  {},
	"zrpc":               {[]string{"."}, []string{xsync}},
	"stubs":              {[]string{".", "zrpc"}, nil},
	"stubs/spool":        {[]string{"."}, nil},
	"client":             {[]string{".", "zrpc", "stubs", "stubs/spool"}, []string{flock, xsync}},
	"server":             {[]string{".", "zrpc", "stubs", "stubs/spool"}, []string{xsync}},
	"server/config":      {},
	"server/references":  {[]string{"."}, nil},
	"server/memory":      {[]string{".", "server/references"}, nil},
	"server/filestorage": {[]string{".", "server/references"}, []string{flock, xsys}},
	"server/postgres":    {[]string{".", "server/references"}, []string{"github.com/jackc/pgx", xsync}},
	"server/demostorage": {[]string{"."}, nil},
	"server/storagetest": {[]string{"."}, nil},
	"server/gateway":     {[]string{"."}, []string{"github.com/prometheus/client_golang"}},
}

// free packages may import anything.
func free(path string) bool {
	return path == "tests" || strings.HasPrefix(path, "tests/") || strings.HasPrefix(path, "cmd/")
}

// listed is what "go list" says of a package.
type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Standard,Imports"}, args...)...)
	cmd.Dir, cmd.Stderr = top, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// inside returns the path of a package in our module.
func inside(importPath string) (path string, ours bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// isOneOf tells whether a package is in one of the modules.
func isOneOf(importPath string, modules []string) bool {
	return slices.ContainsFunc(modules, func(m string) bool {
		return importPath == m || strings.HasPrefix(importPath, m+"/")
	})
}

// standard tells a package of the standard library by its first element.
func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

func TestImportsRunDownwards(t *testing.T) {
	packages := goList(t, "./...")
	if len(packages) < 10 {
		t.Fatalf("only %d packages", len(packages))
	}
	for _, p := range packages {
		path, _ := inside(p.ImportPath)
		if free(path) {
			continue
		}
		allowed, ok := layers[path]
		if !ok {
			t.Errorf("package %s has no place in the layers of this test", path)
			continue
		}
		for _, imported := range p.Imports {
			if standard(imported) {
				continue
			}
			if other, ours := inside(imported); ours {
				if !slices.Contains(allowed.ours, other) {
					t.Errorf("%s imports %s", path, other)
				}
			} else if !isOneOf(imported, allowed.others) {
				t.Errorf("%s imports %s", path, imported)
			}
		}
	}
}

// TestClientNeedsLittle looks at all that a program with our client links.
func TestClientNeedsLittle(t *testing.T) {
	allowed := []string{module, flock, xsync, xsys} // the last for flock
	for _, p := range goList(t, "-deps", "./zrpc", "./stubs", "./client") {
		if !p.Standard && !isOneOf(p.ImportPath, allowed) {
			t.Errorf("zrpc, stubs or client need %s", p.ImportPath)
		}
		if path, ours := inside(p.ImportPath); ours && strings.HasPrefix(path, "server") {
			t.Errorf("zrpc, stubs or client need %s", path)
		}
	}
}

func TestGeneratedFilesAreCurrent(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("go", "run", "generate.go", "-dir", dir)
	cmd.Dir = filepath.Join(top, "stubs")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("generate: %v\n%s", err, out)
	}
	for _, name := range []string{"zstubs.go", "zdispatch.go"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(top, "stubs", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("stubs/%s is not what protocol.go says (%v): run go generate ./stubs", name, err)
		}
	}
}

func TestProtocolDescribesEveryMethod(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(top, "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for _, name := range slices.Concat(stubs.StorageServerMethods, stubs.ClientStorageMethods) {
		n := 0
		for _, line := range lines {
			if line == "### `"+name+"`" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("protocol.md has %d sections for %s", n, name)
		}
	}
}

// files calls f for every file that belongs to the project.
func files(t *testing.T, f func(path string, content []byte)) {
	t.Helper()
	notOurs := []string{".git", "data", filepath.Join("tests", ".venv")}
	n := 0
	err := filepath.WalkDir(top, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path, err := filepath.Rel(top, full)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(notOurs, path) || d.Name() == "__pycache__" {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || path == "zeolite" || isOutput(d.Name()) {
			return nil
		}
		content, err := os.ReadFile(full)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file of somebody else
		}
		if err != nil {
			return err
		}
		n++
		f(path, content)
		return nil
	})
	if err != nil || n < 100 {
		t.Errorf("%d files: %v", n, err)
	}
}

// isOutput tells what .gitignore leaves out by its ending.
func isOutput(name string) bool {
	return slices.Contains([]string{".test", ".prof", ".out"}, filepath.Ext(name))
}

// maxLines is where a file holds two ideas.
const maxLines = 600

func TestFilesAreShort(t *testing.T) {
	files(t, func(path string, content []byte) {
		switch filepath.Ext(path) {
		case ".go", ".py", ".sh", "":
		default:
			return
		}
		head, _, _ := bytes.Cut(content, []byte("\n"))
		if bytes.HasPrefix(head, []byte("// Code generated ")) {
			return
		}
		if n := bytes.Count(content, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines, more than %d", path, n, maxLines)
		}
	})
}

// What patch and editors leave behind is no part of the project.
func TestNoLeftovers(t *testing.T) {
	files(t, func(path string, _ []byte) {
		switch ext := filepath.Ext(path); {
		case slices.Contains([]string{".orig", ".rej", ".bak", ".swp"}, ext), strings.HasSuffix(path, "~"):
			t.Errorf("%s is left over", path)
		}
	})
}

// TestNoMachinePaths looks for places that exist on one machine only: where this
// tree lies here, and the home directory of whoever runs the test.
func TestNoMachinePaths(t *testing.T) {
	here, err := filepath.Abs(top)
	if err != nil {
		t.Fatal(err)
	}
	forbidden := [][]byte{[]byte(here)}
	if home, err := os.UserHomeDir(); err == nil && len(home) > 1 && !strings.HasPrefix(home, os.TempDir()) {
		forbidden = append(forbidden, []byte(home+string(filepath.Separator)))
	}
	files(t, func(path string, content []byte) {
		for _, word := range forbidden {
			if i := bytes.Index(content, word); i >= 0 {
				t.Errorf("%s:%d holds %s", path, 1+bytes.Count(content[:i], []byte("\n")), word)
			}
		}
	})
}
