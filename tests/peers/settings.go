package peers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Long says whether to run what takes minutes or gigabytes.
func Long() bool { return os.Getenv("ZEOLITE_TEST_LONG") == "1" }

// Kills is the number of rounds of the crash test.
func Kills(t testing.TB) int {
	return number(t, "ZEOLITE_TEST_KILLS", 5)
}

func number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a positive number", name, s)
	}
	return n
}

// Seeds is the number of random histories of the differential test.
func Seeds(t testing.TB) int {
	return number(t, "ZEOLITE_TEST_SEEDS", 60)
}

// FirstSeed is that of the differential test, if it is given.
func FirstSeed(t testing.TB) (first int, given bool) {
	t.Helper()
	s := os.Getenv("ZEOLITE_TEST_FIRST_SEED")
	if s == "" {
		return 0, false
	}
	first, err := strconv.Atoi(s)
	if err != nil || first < 0 {
		t.Fatalf("ZEOLITE_TEST_FIRST_SEED is %q, and not a seed", s)
	}
	return first, true
}

// Missing skips the test because something it needs is not there, or fails it
// if nothing may be skipped.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("ZEOLITE_TEST_REQUIRE_ALL") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// Python returns the interpreter that has ZEO and ZODB, or skips the test.
func Python(t testing.TB) string {
	t.Helper()
	path := os.Getenv("ZEOLITE_TEST_PYTHON")
	if path == "" {
		path = filepath.Join(moduleRoot(t), "tests", ".venv", "bin", "python")
		if _, err := os.Stat(path); err != nil {
			Missing(t, "no Python with ZEO: run tests/run, or set ZEOLITE_TEST_PYTHON")
		}
	}
	if err := probePython(path); err != nil {
		Missing(t, "%s cannot be used (tests/run makes one that can): %v", path, err)
	}
	return path
}

var probes sync.Map // interpreter path -> func() error

func probePython(path string) error {
	probe, _ := probes.LoadOrStore(path, sync.OnceValue(func() error {
		out, err := exec.Command(path, "-c", "import ZEO, ZODB, msgpack").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}))
	return probe.(func() error)()
}

// pythonEnv is the environment for Python programs: ours, without what would
// change how ZEO behaves.
func pythonEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "ZEO_") && !strings.HasPrefix(kv, "PYTHON") {
			env = append(env, kv)
		}
	}
	return append(env, "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1", "PYTHONHASHSEED=0", "PYTHONWARNINGS=ignore")
}

// moduleRoot is the directory of go.mod.
func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = parent
	}
}
