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
	"time"

	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/tests/peers"
)

// TestDifferential compares zeolite with FileStorage on ZEOLITE_TEST_SEEDS
// random histories; differential.py says how. Half of them are those of every run,
// the others are new ones, and who fails says how to repeat it.
func TestDifferential(t *testing.T) {
	t.Parallel()
	python := peers.Python(t)
	seeds := peers.Seeds(t)
	if testing.Short() {
		seeds = min(seeds, 20)
	}
	const atOnce = 2
	limit := make(chan struct{}, atOnce)
	for _, b := range batches(t, seeds) {
		t.Run(fmt.Sprint(b.first), func(t *testing.T) {
			t.Parallel()
			limit <- struct{}{}
			defer func() { <-limit }()
			defer func() {
				if t.Failed() {
					t.Logf("to repeat it: ZEOLITE_TEST_FIRST_SEED=%d ZEOLITE_TEST_SEEDS=%d go test ./tests/interop -run TestDifferential", b.first, b.count)
				}
			}()
			differential(t, python, b.first, b.count)
		})
	}
}

// batch is some seeds whose histories are in one server. Its encoding goes by the
// first of them.
type batch struct{ first, count int }

// batches divides seeds so that both encodings have their turn: by odd numbers.
func batches(t *testing.T, seeds int) (all []batch) {
	const most = 99
	add := func(first, count, size int) {
		for end := first + count; first < end; first += size {
			all = append(all, batch{first, min(size, end-first)})
		}
	}
	if first, given := peers.FirstSeed(t); given {
		add(first, seeds, most)
		return all
	}
	half := (seeds + 1) / 2
	size := min(most, (half+1)/2|1)
	add(0, half, size)
	add(795844301, 1, size) // Python's pack damages one of its records
	add(int(time.Now().Unix()%1e9), seeds-half, size)
	return all
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
	fmt.Fprintf(&conf, "<zeo>\n  address %s\n  msgpack %t\n</zeo>\n", address, first%2 == 0)
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
	// Python may leave a blob of a transaction that it aborted.
	before := map[string]bool{}
	for seed := first; seed < first+count; seed++ {
		at := filepath.Join(dir, strconv.Itoa(seed), "ours")
		for _, f := range findings(t, filepath.Join(at, "Data.fs"), filepath.Join(at, "blobs")) {
			before[f] = true
		}
	}
	server := peers.Start(t, peers.Zeolite, peers.Options{Dir: dir, Config: file, Address: address})
	run("compare", address)
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	for seed := first; seed < first+count; seed++ {
		at := filepath.Join(dir, strconv.Itoa(seed))
		wantNoDamage(t, filepath.Join(at, "theirs/Data.fs"), "", before)
		wantNoDamage(t, filepath.Join(at, "new/Data.fs"), filepath.Join(at, "new/blobs"), before)
		// Python's pack removes all blobs of an object that was garbage at the
		// time packed to, also later ones. So where Python has packed, some
		// may be missing.
		blobs := filepath.Join(at, "ours/blobs")
		if seed%3 == 0 {
			blobs = ""
		}
		wantNoDamage(t, filepath.Join(at, "ours/Data.fs"), blobs, before)
	}
	run("verify")
}

// wantNoDamage has a database checked, for what was not there before.
func wantNoDamage(t *testing.T, path, blobs string, before map[string]bool) {
	t.Helper()
	for _, f := range findings(t, path, blobs) {
		if !before[f] {
			t.Errorf("check: %v", f)
		}
	}
}

// findings are what a check finds, but for references that lead nowhere: they come
// from undoing.
func findings(t *testing.T, path, blobs string) (all []string) {
	t.Helper()
	report, err := filestorage.Check(context.Background(), path, filestorage.CheckOptions{BlobDir: blobs})
	if err != nil {
		t.Error(err)
	}
	for _, f := range report.Findings {
		if !strings.Contains(f.What, "the object refers to") {
			all = append(all, fmt.Sprint(f))
		}
	}
	return all
}
