package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/tests/peers"
)

// TestDifferential compares zeolite with FileStorage on ZEOLITE_TEST_SEEDS
// random histories; differential.py says how.
func TestDifferential(t *testing.T) {
	t.Parallel()
	python := peers.Python(t)
	seeds := peers.Seeds(t)
	const batches, batchSize = 2, 100 // at once, and for one server
	if testing.Short() {
		seeds = min(seeds, 20)
	}
	size := min(batchSize, (seeds+batches-1)/batches)
	limit := make(chan struct{}, batches)
	for first := 0; first < seeds; first += size {
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			t.Parallel()
			limit <- struct{}{}
			defer func() { <-limit }()
			differential(t, python, first, min(size, seeds-first))
		})
	}
}

func differential(t *testing.T, python string, first, count int) {
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		args = append([]string{"differential.py"}, append(args, dir, strconv.Itoa(first), strconv.Itoa(count))...)
		cmd := exec.Command(python, args...)
		cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("differential.py %s: %v\n%.5000s", args[1], err, out)
		}
	}
	run("make")

	address := peers.FreeAddress(t)
	var conf strings.Builder
	fmt.Fprintf(&conf, "<zeo>\n  address %s\n  msgpack %t\n</zeo>\n", address, first%200 == 0)
	for seed := first; seed < first+count; seed++ {
		for name, sub := range map[string]string{"made": "ours", "new": "new"} {
			at := filepath.Join(dir, strconv.Itoa(seed), sub)
			fmt.Fprintf(&conf, "<filestorage %s-%d>\n  path %s/Data.fs\n  blob-dir %[3]s/blobs\n</filestorage>\n", name, seed, at)
		}
	}
	file := filepath.Join(dir, "zeo.conf")
	if err := os.WriteFile(file, []byte(conf.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	server := peers.Start(t, peers.Zeolite, peers.Options{Dir: dir, Config: file, Address: address})
	run("compare", address)
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	for seed := first; seed < first+count; seed++ {
		at := filepath.Join(dir, strconv.Itoa(seed))
		wantNoDamage(t, filepath.Join(at, "theirs/Data.fs"), "")
		wantNoDamage(t, filepath.Join(at, "new/Data.fs"), filepath.Join(at, "new/blobs"))
		// Python's pack removes all blobs of an object that was garbage at the
		// time packed to, also later ones. So where Python has packed, some
		// may be missing.
		blobs := filepath.Join(at, "ours/blobs")
		if seed%3 == 0 {
			blobs = ""
		}
		wantNoDamage(t, filepath.Join(at, "ours/Data.fs"), blobs)
	}
	run("verify")
}

// wantNoDamage has a database checked. References that lead nowhere come from
// undoing.
func wantNoDamage(t *testing.T, path, blobs string) {
	t.Helper()
	report, err := filestorage.Check(context.Background(), path, filestorage.CheckOptions{BlobDir: blobs})
	if err != nil {
		t.Error(err)
	}
	for _, f := range report.Findings {
		if !strings.Contains(f.What, "the object refers to") {
			t.Errorf("check: %v", f)
		}
	}
}
