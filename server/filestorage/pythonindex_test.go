package filestorage

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// A large index that Python saved, we read; and what we saved after changes,
// Python reads.
func TestPythonIndex(t *testing.T) {
	py := python(t)
	dir := t.TempDir()
	const n = 300_000
	name, dump := filepath.Join(dir, "index"), filepath.Join(dir, "dump")
	run := func(script string) {
		t.Helper()
		out, err := exec.Command(py, "-c", "import random, struct\nfrom ZODB.fsIndex import fsIndex\n"+script, name, dump, fmt.Sprint(n)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	// Oids with few gaps, with many, and far from each other.
	run(`
import sys
name, dump, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
rnd = random.Random(1)
index = fsIndex()
with open(dump, 'wb') as f:
    for i in range(n):
        oid = rnd.choice([i, rnd.randrange(n), 3 * n + rnd.randrange(20 * n), rnd.randrange(1 << 62) if i % 1000 == 0 else i])
        pos = rnd.randrange(1 << 48)
        index[struct.pack('>Q', oid)] = pos
        f.write(struct.pack('>QQ', oid, pos))
index.save(1 << 40, name)
`)
	model := indexModel{}
	b, err := os.ReadFile(dump)
	if err != nil {
		t.Fatal(err)
	}
	for ; len(b) > 0; b = b[16:] {
		model[zeolite.OID(binary.BigEndian.Uint64(b))] = int64(binary.BigEndian.Uint64(b[8:]))
	}
	x, pos, err := loadIndexFile(name)
	if err != nil || pos != 1<<40 {
		t.Fatal(pos, err)
	}
	rnd := rand.New(rand.NewPCG(3, 3))
	model.compare(t, x, rnd, 4*n)

	for range 100 {
		oid, pos := zeolite.OID(rnd.Uint64N(n)), rnd.Int64N(1<<40)
		x.set(oid, pos)
		model[oid] = pos
	}
	x.set(1<<62, 1)
	model[1<<62] = 1
	if _, err := saveIndexFile(OSFileSystem{}, name, 1<<41, writes(x)); err != nil {
		t.Fatal(err)
	}
	run(`
import sys
saved = fsIndex.load(sys.argv[1])
assert saved['pos'] == 1 << 41, saved['pos']
with open(sys.argv[2], 'wb') as f:
    for oid, pos in saved['index'].iteritems():
        assert saved['index'][oid] == pos
        f.write(oid + struct.pack('>Q', pos))
`)
	if b, err = os.ReadFile(dump); err != nil {
		t.Fatal(err)
	}
	got := indexModel{}
	last := zeolite.OID(0)
	for ; len(b) > 0; b = b[16:] {
		oid := zeolite.OID(binary.BigEndian.Uint64(b))
		if oid < last {
			t.Fatalf("Python has %v after %v", oid, last)
		}
		last = oid
		got[oid] = int64(binary.BigEndian.Uint64(b[8:]))
	}
	if !maps.Equal(got, model) {
		t.Errorf("Python reads %d objects, or others, of %d", len(got), len(model))
	}
}
