package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLogOfDamaged: log prints what comes before the damage.
func TestLogOfDamaged(t *testing.T) {
	dir, _ := sample(t, 4)
	path := filepath.Join(dir, "Data.fs")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The length of the record in the third transaction.
	record := strings.Index(string(b), "transaction 2") + len("transaction 2")
	copy(b[record+34:], "\xff\xff\xff\xff")
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"log", path}, {"log", path, "-n", "5"}} {
		code, out := zeoliteCommand(t, args...)
		if code != 1 || strings.Count(out, "\n") != 2 || !strings.Contains(out, `"transaction 1"`) {
			t.Errorf("%v: exit code %d, printed\n%s", args, code, out)
		}
	}
}
