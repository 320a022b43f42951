package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite/tests/peers"
)

// pythonHistory writes objects and blobs as applications do. Python's server
// stores the records of blobs twice.
const pythonHistory = `
import sys, ZEO
from ZODB.blob import Blob
host, port = sys.argv[1].rsplit(":", 1)
db = ZEO.DB((host, int(port)), blob_dir=sys.argv[2])
for i in range(6):
    with db.transaction("step %d" % i) as c:
        c.root()["n"] = i
        if i % 2:
            c.root()["blob"] = Blob(b"blob %d " % i * 30000)
db.close()
`

// TestCopyPython copies from Python's server to a file, and from there to
// another server in Python; each time twice, which finds nothing more to do.
func TestCopyPython(t *testing.T) {
	python := peers.Python(t)
	dir := t.TempDir()
	first := peers.Start(t, peers.RunZEO, peers.Options{})
	cmd := exec.Command(python, "-c", pythonHistory, first.Address(), filepath.Join(dir, "python-cache"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	second := peers.Start(t, peers.RunZEO, peers.Options{Msgpack: true})
	file, blobs := filepath.Join(dir, "Data.fs"), filepath.Join(dir, "blobs")
	for _, args := range [][]string{
		{first.Address(), file, "-src-blobs", filepath.Join(dir, "cache1"), "-dst-blobs", blobs},
		{file, second.Address(), "-src-blobs", blobs, "-dst-blobs", filepath.Join(dir, "cache2")},
		{first.Address(), second.Address(), "-src-blobs", filepath.Join(dir, "cache1"), "-dst-blobs", filepath.Join(dir, "cache2")},
	} {
		for range 2 {
			code, out := zeoliteCommand(t, append([]string{"copy"}, args...)...)
			if code != 0 || !strings.Contains(out, "Compared 7 transactions: the copy is equal.") {
				t.Errorf("copy %s: exit code %d, printed %q", strings.Join(args, " "), code, out)
			}
		}
	}
	want := bytes.Repeat([]byte("blob 5 "), 30000)
	for _, addr := range []string{first.Address(), second.Address()} {
		found := false
		for _, oid := range []string{"1", "2", "3", "4"} {
			code, out := zeoliteCommand(t, "blob", "get", addr, oid)
			found = found || code == 0 && out == string(want)
		}
		if !found {
			t.Errorf("the last blob is not at %s", addr)
		}
		if code, out := zeoliteCommand(t, "history", addr, "0"); code != 0 || strings.Count(out, "\n") != 7 {
			t.Errorf("history: exit code %d, printed %q", code, out)
		}
		if code, out := zeoliteCommand(t, "log", addr); code != 0 || !strings.Contains(out, `"step 5"`) {
			t.Errorf("log: exit code %d, printed %q", code, out)
		}
	}
}
