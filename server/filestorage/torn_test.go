package filestorage

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// smallFile returns a Data.fs with a few transactions, and where each begins.
func smallFile(t testing.TB) (b []byte, starts []int) {
	t.Helper()
	db := newDB(t, Options{})
	serial := zeolite.ZeroTID
	for i := range 4 {
		starts = append(starts, int(db.s.gen.Load().end.Load()))
		serial = db.commit(zeolite.TxnMeta{User: []byte("u"), Description: []byte("text")}, func(tx zeolite.Txn) error {
			return errors.Join(
				tx.Store(ctx, 1, serial, bytes.Repeat([]byte{byte(i)}, 40)),
				tx.Store(ctx, zeolite.OID(i+10), 0, []byte("x")),
			)
		})
	}
	db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		_, err := tx.Undo(ctx, serial)
		return err
	})
	db.close()
	return db.bytes(), starts
}

// However a file is cut off, the whole transactions before that are there, and
// what is cut off is kept.
func TestTrap28_TornAtEveryByte(t *testing.T) {
	whole, starts := smallFile(t)
	dir := t.TempDir()
	for n := magicLen; n <= len(whole); n++ {
		path := filepath.Join(dir, fmt.Sprint(n), "Data.fs")
		writeImage(t, filepath.Dir(path), map[string][]byte{"Data.fs": whole[:n]})
		ro, err := Open(path, Options{ReadOnly: true})
		if err != nil {
			t.Fatalf("%d bytes, read-only: %v", n, err)
		}
		readOnly := tids(t, ro)
		ro.Close()
		if now, _ := os.ReadFile(path); len(now) != n {
			t.Fatalf("%d bytes: reading made it %d", n, len(now))
		}
		s, err := Open(path, Options{})
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		want := 0
		last := magicLen
		for _, start := range append(starts[1:], starts[0]) { // ends of all but the last
			if start > magicLen && start <= n {
				want, last = want+1, max(last, start)
			}
		}
		got := tids(t, s)
		if n == len(whole) {
			want, last = 5, n
		} else if want == 3 && n >= lastStart(whole) {
			want, last = 4, lastStart(whole)
		}
		if len(got) != want || len(readOnly) != want {
			t.Errorf("%d bytes: %d transactions, read-only %d, want %d", n, len(got), len(readOnly), want)
		}
		s.Close()
		if now, _ := os.ReadFile(path); !bytes.Equal(now, whole[:last]) {
			t.Errorf("%d bytes: %d are left, want %d", n, len(now), last)
		}
		torn, err := os.ReadFile(path + ".tr0")
		if last == n && err == nil || last < n && !bytes.Equal(torn, whole[last:n]) {
			t.Errorf("%d bytes: .tr0 has %d bytes, %v", n, len(torn), err)
		}
	}
}

// lastStart is where the last transaction of a whole file begins.
func lastStart(b []byte) int {
	w := newWindow(bytes.NewReader(b))
	h, err := w.before(int64(len(b)))
	if err != nil {
		panic(err)
	}
	return int(h.pos)
}

// Damage gives errors, or is not noticed; it never gives a panic or a large
// allocation, neither while opening nor while reading.
func TestDamage(t *testing.T) {
	whole, _ := smallFile(t)
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(1, 1))
	opened, refused := 0, 0
	for i := range 800 {
		b := bytes.Clone(whole)
		for range 1 + rnd.IntN(3) {
			at := magicLen + rnd.IntN(len(b)-magicLen)
			if i%2 == 0 {
				at = len(b) - 1 - rnd.IntN(200)
			}
			b[at] ^= 1 << rnd.IntN(8)
		}
		if i%5 == 0 {
			b = b[:magicLen+rnd.IntN(len(b)-magicLen)]
		}
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path, Options{ReadOnly: i%3 == 0})
		if err != nil {
			refused++
			continue
		}
		opened++
		readEverything(s)
		s.Close()
	}
	t.Logf("%d opened, %d refused", opened, refused)
}

// Damage that comes while the storage is open.
func TestDamageMeanwhile(t *testing.T) {
	whole, _ := smallFile(t)
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(2, 2))
	for i := range 300 {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, whole, 0o666); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if i%7 == 0 {
			err = f.Truncate(int64(rnd.IntN(len(whole))))
		} else {
			junk := make([]byte, 1+rnd.IntN(16))
			for i := range junk {
				junk[i] = byte(rnd.Uint32()) * byte(rnd.IntN(2))
			}
			_, err = f.WriteAt(junk, int64(magicLen+rnd.IntN(len(whole)-magicLen)))
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		readEverything(s)
		s.Close()
	}
}

// readEverything reads all that can be read and ignores errors.
func readEverything(s *Storage) {
	for tr, err := range s.Transactions(ctx, 0, zeolite.MaxTID) {
		if err != nil {
			break
		}
		for r, err := range tr.Records {
			if err != nil {
				break
			}
			s.LoadBefore(ctx, r.OID, tr.TID)
			s.LoadSerial(ctx, r.OID, tr.TID)
			s.History(ctx, r.OID, 10)
			s.CurrentTID(ctx, r.OID)
		}
	}
	for range s.Changes(ctx, 0) {
	}
	for range s.UndoLog(ctx) {
	}
	for oid := zeolite.OID(0); ; {
		r, err := s.NextRecord(ctx, oid)
		if err != nil || !r.More {
			break
		}
		oid = r.Next
	}
	yes := true
	s.Pack(ctx, s.LastTID(), zeolite.PackOptions{GC: &yes})
	if tx, err := s.Begin(ctx, zeolite.TxnMeta{}); err == nil {
		for u := range s.UndoLog(ctx) {
			if u != nil {
				tx.Undo(ctx, u.TID)
			}
		}
		tx.Abort()
	}
}

// A torn end is compared with what Python makes of it, at every byte.
func TestPythonTorn(t *testing.T) {
	p := newInspector(t)
	whole, starts := smallFile(t)
	first := starts[3] - 30
	if os.Getenv("ZEOLITE_TEST_LONG") == "1" {
		first = magicLen
	}
	for n := first; n <= len(whole); n++ {
		agree(t, p, map[string][]byte{"Data.fs": whole[:n]})
	}
	b := bytes.Clone(whole)
	b[lastStart(b)+statusOffset] = statusUncommitted
	agree(t, p, map[string][]byte{"Data.fs": b})
	agree(t, p, map[string][]byte{"Data.fs": append(bytes.Clone(whole), make([]byte, 500)...)})
}

// With random bits flipped in the tail, we find the same last good transaction as
// Python, or refuse the file as it does.
func TestPythonFlips(t *testing.T) {
	p := newInspector(t)
	whole, starts := smallFile(t)
	flips := 150
	if os.Getenv("ZEOLITE_TEST_LONG") == "1" {
		flips = 5000
	}
	rnd := rand.New(rand.NewPCG(3, 3))
	tail := starts[3] // the last two transactions
	for i := range flips {
		b := bytes.Clone(whole)
		var flipped []string
		for range 1 + i%3 {
			at, bit := tail+rnd.IntN(len(b)-tail), rnd.IntN(8)
			if in := at - lastStart(whole); bit == 7 && (at-tail <= statusOffset || in >= 0 && in <= statusOffset) {
				bit = 6 // Python cannot show a status, nor we a tid, that large
			}
			b[at] ^= 1 << bit
			flipped = append(flipped, fmt.Sprintf("%d.%d", at, bit))
		}
		if i%4 == 0 {
			b = b[:tail+rnd.IntN(len(b)-tail)]
		}
		t.Run(fmt.Sprint(flipped, len(b)), func(t *testing.T) { agreeUnlessDamaged(t, p, map[string][]byte{"Data.fs": b}, true) })
	}
}
