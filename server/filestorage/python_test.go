package filestorage

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
)

// pythonEnv names a Python that has ZODB. Without it the tests that compare
// with FileStorage are skipped.
const pythonEnv = "ZEOLITE_TEST_PYTHON"

func python(t testing.TB) string {
	t.Helper()
	p := os.Getenv(pythonEnv)
	if p == "" {
		t.Skipf("%s does not name a Python that has ZODB", pythonEnv)
	}
	return p
}

// described is a database as describe.py and describe see it.
type described struct {
	Error   string
	Last    string
	Txns    [][]any
	Loads   map[string]map[string]any
	History map[string][][]any
	Undolog [][]any
	Blobs   map[string]string
}

// inspector is a running describe.py.
type inspector struct {
	t   testing.TB
	in  *json.Encoder
	out *bufio.Scanner
}

func newInspector(t testing.TB) *inspector {
	t.Helper()
	cmd := exec.Command(python(t), "testdata/describe.py")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	sc := bufio.NewScanner(out)
	sc.Buffer(nil, 1<<30)
	return &inspector{t, json.NewEncoder(in), sc}
}

func (p *inspector) ask(path, blobs string, full bool) described {
	p.t.Helper()
	var dir any
	if blobs != "" {
		dir = blobs
	}
	return p.do(map[string]any{"path": path, "blobs": dir, "full": full})
}

func (p *inspector) do(job map[string]any) described {
	p.t.Helper()
	if err := p.in.Encode(job); err != nil {
		p.t.Fatal(err)
	}
	if !p.out.Scan() {
		p.t.Fatalf("describe.py ended: %v", p.out.Err())
	}
	var d described
	if err := json.Unmarshal(p.out.Bytes(), &d); err != nil {
		p.t.Fatal(err)
	}
	return d
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
func hexTID(t zeolite.TID) any {
	if t == 0 {
		return nil
	}
	return t.String()
}
func hexOID(o zeolite.OID) string { return hex.EncodeToString(o.Bytes()) }

// describe does what describe.py does, with our Storage.
func describe(t testing.TB, s *Storage, full bool) described {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d := described{Last: s.LastTID().String(), Txns: [][]any{}}
	oids, all := map[zeolite.OID]bool{}, []zeolite.TID{}
	for tr, err := range s.Transactions(ctx, 0, zeolite.MaxTID) {
		must(err)
		all = append(all, tr.TID)
		records := []any{}
		for r, err := range tr.Records {
			must(err)
			oids[r.OID] = true
			var data any
			if r.Data != nil {
				data = b64(r.Data)
			}
			records = append(records, []any{hexOID(r.OID), r.TID.String(), data, hexTID(r.DataTID)})
		}
		d.Txns = append(d.Txns, []any{tr.TID.String(), string(rune(tr.Status)), b64(tr.User), b64(tr.Description), b64(tr.Extension), records})
	}
	if !full {
		return d
	}
	d.Loads, d.History, d.Undolog = map[string]map[string]any{}, map[string][][]any{}, [][]any{}
	for oid := range oids {
		loads := map[string]any{}
		d.Loads[hexOID(oid)] = loads
		for _, tid := range append(slices.Clone(all), zeolite.MaxTID-1) {
			for _, before := range []zeolite.TID{tid, tid + 1} {
				if before == zeolite.MaxTID-1 {
					continue
				}
				rev, err := s.LoadBefore(ctx, oid, before)
				switch {
				case errors.Is(err, zeolite.ErrNotYet):
					loads[before.String()] = "notyet"
				case isNotFound(err):
					loads[before.String()] = "notfound"
				default:
					must(err)
					loads[before.String()] = []any{b64(rev.Data), rev.TID.String(), hexTID(rev.End)}
				}
			}
			if s.blobs != nil {
				b, err := s.OpenBlob(ctx, oid, tid)
				if isNotFound(err) {
					continue
				}
				must(err)
				data := make([]byte, b.Size())
				if _, err := b.ReadAt(data, 0); !errors.Is(err, io.EOF) {
					must(err)
				}
				b.Close()
				if d.Blobs == nil {
					d.Blobs = map[string]string{}
				}
				d.Blobs[hexOID(oid)+tid.String()] = b64(data)
			}
		}
		history, err := s.History(ctx, oid, 1000)
		if !isNotFound(err) {
			must(err)
		}
		entries := [][]any{}
		for _, h := range history {
			entries = append(entries, []any{h.TID.String(), float64(h.Size), b64(h.User), b64(h.Description)})
		}
		d.History[hexOID(oid)] = entries
	}
	for u, err := range s.UndoLog(ctx) {
		must(err)
		d.Undolog = append(d.Undolog, []any{u.TID.String(), float64(u.Size), b64(u.User), b64(u.Description)})
	}
	return d
}

func compare(t *testing.T, got, want described) {
	t.Helper()
	if want.Error != "" {
		t.Fatalf("Python: %s", want.Error)
	}
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		if a, b := g.Field(i).Interface(), w.Field(i).Interface(); !reflect.DeepEqual(a, b) {
			t.Errorf("%s differs:\n  zeolite %.2000v\n  Python  %.2000v", g.Type().Field(i).Name, a, b)
		}
	}
}

// What Python wrote, we read as Python does; and again after Python has read
// what we wrote behind it.
func TestPythonWrites(t *testing.T) {
	py := python(t)
	p := newInspector(t)
	for seed := range 4 {
		for _, blobs := range []string{"", "blobs"} {
			t.Run(fmt.Sprintf("%d%s", seed, blobs), func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "Data.fs")
				args := []string{"testdata/makedb.py", fmt.Sprint(seed), "40", path}
				if blobs != "" {
					blobs = filepath.Join(dir, blobs)
					args = append(args, blobs)
				}
				if out, err := exec.Command(py, args...).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				if seed%2 == 1 {
					os.Remove(path + ".index")
				}
				log := &logBuffer{}
				s, err := Open(path, Options{BlobDir: blobs, Logger: textLogger(log)})
				if err != nil {
					t.Fatal(err)
				}
				if log.contains("index") {
					t.Error("the index that Python saved was not used")
				}
				got := describe(t, s, true)
				s.Close()
				compare(t, got, p.ask(path, blobs, true))
			})
		}
	}
}

// What we write, Python reads as we do, with our index and without.
func TestPythonReads(t *testing.T) {
	p := newInspector(t)
	for seed := range 4 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			blobs := filepath.Join(t.TempDir(), "blobs")
			db := newDB(t, Options{BlobDir: blobs, SpillBytes: 10000})
			randomHistory(db, rand.New(rand.NewPCG(uint64(seed), 0)), 40)
			got := describe(t, db.s, true)
			if d := p.ask(db.path, blobs, false); !strings.Contains(d.Error, "LockError") {
				t.Errorf("Python opens what we have locked: %q", d.Error)
			}
			compare(t, got, p.do(map[string]any{"path": db.path, "blobs": blobs, "full": true, "read_only": true}))
			db.close()
			if seed%2 == 1 {
				os.Remove(db.path + ".index")
			}
			compare(t, got, p.ask(db.path, blobs, true))
		})
	}
}

// randomHistory stores, deletes and undoes at random.
func randomHistory(db *testDB, rnd *rand.Rand, n int) {
	db.Helper()
	serials := map[zeolite.OID]zeolite.TID{}
	for oid := range zeolite.OID(60) {
		if h, err := db.s.History(ctx, oid, 1); err == nil {
			serials[oid] = h[0].TID
		}
	}
	var all []zeolite.TID
	for range n {
		meta := zeolite.TxnMeta{User: []byte("jürgen"), Description: []byte("日本")}
		tx, err := db.s.Begin(ctx, meta)
		db.must(err)
		changed := map[zeolite.OID]bool{}
		failed := false
		switch kind := rnd.IntN(10); {
		case kind < 5:
			for range rnd.IntN(6) {
				oid := zeolite.OID(2 * rnd.IntN(30))
				data := make([]byte, 1+rnd.IntN([]int{5, 500, 9000}[rnd.IntN(3)]))
				for i := range data {
					data[i] = byte(rnd.Uint32())
				}
				db.must(tx.Store(ctx, oid, serials[oid], data))
				changed[oid] = true
			}
		case kind < 7 && db.s.blobs != nil:
			oid := zeolite.OID(2*rnd.IntN(8) + 1)
			u, err := db.s.CreateBlob(ctx)
			db.must(err)
			_, err = u.Write(make([]byte, rnd.IntN(1000)))
			db.must(err)
			db.must(u.Complete())
			db.must(tx.StoreBlob(ctx, oid, serials[oid], []byte(blobRecord), u))
			changed[oid] = true
		case kind < 8 && len(serials) > 0:
			for oid, serial := range serials {
				if err := tx.Delete(ctx, oid, serial); err != nil && !isNotFound(err) {
					db.Fatal(err)
				} else if err == nil {
					changed[oid] = true
				}
				break
			}
		case len(all) > 5:
			for range 1 + rnd.IntN(2) {
				oids, err := tx.Undo(ctx, all[len(all)-1-rnd.IntN(5)])
				failed = failed || err != nil
				for _, oid := range oids {
					changed[oid] = true
				}
			}
		}
		if failed {
			tx.Abort()
			continue
		}
		err = tx.Vote(ctx)
		for _, c := range zeolite.Conflicts(err) { // of undos; any bytes are a merge
			db.must(tx.Store(ctx, c.OID, c.Committed, append(c.Data, byte(rnd.Uint32()))))
		}
		if err != nil {
			db.must(tx.Vote(ctx))
		}
		tid, err := tx.Finish(ctx, nil)
		db.must(err)
		all = append(all, tid)
		for oid := range changed {
			serials[oid] = tid
		}
	}
}

// After a crash, Python finds the same last transaction as we do: if there is a
// log, after we have opened the file.
func TestPythonAfterCrash(t *testing.T) {
	t.Run("without log", func(t *testing.T) { testPythonAfterCrash(t, Options{WithoutLog: true}) })
	t.Run("with log", func(t *testing.T) { testPythonAfterCrash(t, Options{SyncInterval: time.Millisecond}) })
}

func testPythonAfterCrash(t *testing.T, opts Options) {
	p := newInspector(t)
	s, w := newCrashDB(t, opts)
	defer s.Close()
	serials := map[zeolite.OID]zeolite.TID{}
	for i := range 12 {
		data := map[zeolite.OID]string{zeolite.OID(i % 3): string(make([]byte, 1+i*i*20))}
		tid, err := w.commit(s, data, nil, serials)
		if err != nil {
			t.Fatal(err)
		}
		serials[zeolite.OID(i%3)] = tid
	}
	for n := 0; n <= w.fs.count(); n += 2 {
		for try := range 2 {
			files := w.fs.crash(n, rand.New(rand.NewPCG(uint64(n), uint64(try))))
			if files["Data.fs"] == nil {
				continue
			}
			t.Run(fmt.Sprintf("%d.%d", n, try), func(t *testing.T) {
				if !opts.WithoutLog {
					db := openImage(t, files, Options{})
					db.close()
					files = db.image()
				}
				agree(t, p, files)
			})
		}
	}
}

// agree opens copies of a database with Python and with us.
func agree(t *testing.T, p *inspector, files map[string][]byte) {
	t.Helper()
	agreeUnlessDamaged(t, p, files, false)
}

// agreeUnlessDamaged is agree, but if damaged is set, records that are damaged
// need not be the same, only where the file ends.
func agreeUnlessDamaged(t *testing.T, p *inspector, files map[string][]byte, damaged bool) {
	t.Helper()
	ours, theirs := t.TempDir(), t.TempDir()
	writeImage(t, ours, files)
	writeImage(t, theirs, files)
	want := p.ask(filepath.Join(theirs, "Data.fs"), "", false)
	s, err := Open(filepath.Join(ours, "Data.fs"), Options{})
	if err != nil {
		if want.Error == "" {
			t.Errorf("we refuse what Python opens: %v", err)
		}
		return
	}
	if !damaged || readable(s) {
		got := describe(t, s, false)
		if want.Error != "" {
			s.Close()
			t.Errorf("we open, with %d transactions, what Python refuses: %s", len(got.Txns), want.Error)
			return
		}
		// Python takes the TID of what it cuts off for that of the last
		// transaction.
		got.Last = want.Last
		compare(t, got, want)
	}
	s.Close()
	a, _ := os.ReadFile(filepath.Join(ours, "Data.fs"))
	b, _ := os.ReadFile(filepath.Join(theirs, "Data.fs"))
	if string(a) != string(b) {
		t.Errorf("Data.fs has %d bytes after we closed it, %d after Python did", len(a), len(b))
	}
}

// readable says whether all records can be read.
func readable(s *Storage) bool {
	for tr, err := range s.Transactions(ctx, 0, zeolite.MaxTID) {
		if err != nil {
			return false
		}
		for _, err := range tr.Records {
			if err != nil {
				return false
			}
		}
	}
	return true
}
