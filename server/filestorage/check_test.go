package filestorage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

func check(t testing.TB, path, blobs string) *Report {
	t.Helper()
	r, err := Check(ctx, path, CheckOptions{BlobDir: blobs})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantClean(t testing.TB, r *Report) {
	t.Helper()
	for _, f := range r.Findings {
		t.Errorf("found %v", f)
	}
}

// wantFinding returns the first finding that says what.
func wantFinding(t testing.TB, r *Report, severity Severity, what string) Finding {
	t.Helper()
	for _, f := range r.Findings {
		if f.Severity == severity && strings.Contains(f.What, what) {
			if f.Advice == "" {
				t.Errorf("no advice: %v", f)
			}
			return f
		}
	}
	t.Errorf("no %v says %q: %v", severity, what, r.Findings)
	return Finding{Pos: -2}
}

// checkedDB makes a database in which nothing is wrong: objects that refer to
// each other, several revisions, blobs, undone and deleted objects, texts.
func checkedDB(t testing.TB, seed uint64, txns int) *testDB {
	db := newDB(t, Options{BlobDir: filepath.Join(t.TempDir(), "blobs")})
	rnd := rand.New(rand.NewPCG(seed, 9))
	serials := map[zeolite.OID]zeolite.TID{}
	meta := zeolite.TxnMeta{User: []byte("jürgen"), Description: []byte("日本"), Extension: storagetest.Extension("value")}
	const objects = 20
	db.commit(meta, func(tx zeolite.Txn) error {
		for oid := range zeolite.OID(objects) {
			if err := tx.Store(ctx, oid, 0, storagetest.Record("first", (oid+1)%objects)); err != nil {
				return err
			}
			serials[oid] = 0
		}
		return nil
	})
	for i := range txns {
		last := db.s.LastTID()
		for oid, serial := range serials {
			if serial == 0 {
				serials[oid] = last
			}
		}
		db.commit(meta, func(tx zeolite.Txn) error {
			switch rnd.IntN(8) {
			case 0:
				return nil // a transaction without records
			case 1:
				u, err := db.s.CreateBlob(ctx)
				db.must(err)
				_, err = u.Write(make([]byte, rnd.IntN(100)))
				db.must(err)
				db.must(u.Complete())
				oid := zeolite.OID(100 + rnd.IntN(3))
				serial := serials[oid]
				serials[oid] = 0
				return tx.StoreBlob(ctx, oid, serial, storagetest.BlobRecord(), u)
			case 2:
				if i == 0 {
					return nil // everything refers to what the first made
				}
				oids, err := tx.Undo(ctx, last)
				if errors.As(err, new(*zeolite.UndoError)) {
					return nil // there is nothing to undo, say
				}
				for _, oid := range oids {
					serials[oid] = 0
				}
				return err
			case 3:
				oid := zeolite.OID(1000 + i) // nobody refers to it
				if err := tx.Store(ctx, oid, 0, storagetest.Record("alone", 0)); err != nil {
					return err
				}
				serials[oid] = 0
			case 4:
				for oid, serial := range serials {
					if oid >= 1000 {
						delete(serials, oid)
						if err := tx.Delete(ctx, oid, serial); !isNotFound(err) { // its creation may have been undone
							return err
						}
						return nil
					}
				}
			}
			for range 1 + rnd.IntN(4) {
				oid := zeolite.OID(rnd.IntN(objects))
				payload := strings.Repeat("x", rnd.IntN([]int{10, 300, 3000}[rnd.IntN(3)]))
				if serials[oid] == 0 {
					continue
				}
				if err := tx.Store(ctx, oid, serials[oid], storagetest.Record(payload, zeolite.OID(rnd.IntN(objects)))); err != nil {
					return err
				}
				serials[oid] = 0
			}
			return nil
		})
	}
	return db
}

// Nothing is found where nothing is wrong: not while a server works, not after
// it has closed the file, not after a pack.
func TestCheckClean(t *testing.T) {
	for seed := range uint64(6) {
		db := checkedDB(t, seed, 30)
		wantClean(t, check(t, db.path, db.opts.BlobDir))
		all := tids(t, db.s)
		db.pack(all[15], seed%2 == 0)
		wantClean(t, check(t, db.path, db.opts.BlobDir))
		db.close()
		r := check(t, db.path, db.opts.BlobDir)
		wantClean(t, r)
		if int(r.Transactions) != len(tids(t, reopened(t, db))) || r.Objects < 20 || r.Blobs != r.BlobFiles || r.LastTID != all[len(all)-1] {
			t.Errorf("the report is wrong: %+v", r)
		}
	}
}

func reopened(t testing.TB, db *testDB) *Storage {
	t.Helper()
	s, err := Open(db.path, Options{ReadOnly: true})
	db.must(err)
	t.Cleanup(func() { s.Close() })
	return s
}

// A database that commits and packs all the time has no findings either.
func TestCheckWhileServing(t *testing.T) {
	db := checkedDB(t, 1, 10)
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		serial := db.s.LastTID()
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
			if err == nil {
				err = tx.Store(ctx, zeolite.OID(5000+i), 0, storagetest.Record(strings.Repeat("x", i%3000), 0))
			}
			if err == nil {
				err = tx.Vote(ctx)
			}
			if err == nil {
				serial, err = tx.Finish(ctx, nil)
			}
			if err == nil && i%20 == 19 {
				no := false
				err = db.s.Pack(ctx, serial, zeolite.PackOptions{GC: &no})
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	for range 30 {
		r := check(t, db.path, db.opts.BlobDir)
		if r.Damages+r.Warnings > 0 {
			wantClean(t, r)
			break
		}
	}
	close(stop)
	db.must(<-done)
}

func TestCheckPythonsFiles(t *testing.T) {
	py := python(t)
	for seed := range 3 {
		dir := t.TempDir()
		path, blobs := filepath.Join(dir, "Data.fs"), filepath.Join(dir, "blobs")
		if out, err := exec.Command(py, "testdata/makedb.py", fmt.Sprint(seed), "40", path, blobs).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, f := range check(t, path, blobs).Findings {
			// Undoing may leave references to what was undone.
			if !strings.Contains(f.What, "the object refers to") {
				t.Errorf("seed %d: found %v", seed, f)
			}
		}
	}
}

// byteKinds says of each byte of a file what it is part of, and in which
// transaction.
func byteKinds(t testing.TB, b []byte) (kinds []byte, txns []txnHeader) {
	t.Helper()
	kinds = make([]byte, len(b))
	fill := func(from, to int64, kind byte) {
		for i := from; i < to; i++ {
			kinds[i] = kind
		}
	}
	fill(0, magicLen, 'm')
	for pos := int64(magicLen); pos < int64(len(b)); {
		h := parseTxnHeader(b[pos:], pos)
		txns = append(txns, h)
		fill(pos, h.next(), 's')
		fill(pos+txnHdrLen, h.records(), 't')
		if h.records() == h.end() {
			fill(pos, pos+8, 't') // nothing else names this tid
		}
		for at := h.records(); at < h.end(); {
			r := parseRecHeader(b[at:], at)
			if r.dataLen > 0 {
				fill(at+recHdrLen, r.next(), 'd')
			}
			at = r.next()
		}
		pos = h.next()
	}
	return kinds, txns
}

// Any flipped bit of the structure is found where it is, and most of those in
// pickles are.
func TestCheckFindsFlips(t *testing.T) {
	found, tried := 0, 0
	for seed := range uint64(4) {
		db := checkedDB(t, seed, 25)
		if seed%2 == 1 {
			db.pack(tids(t, db.s)[10], false)
		}
		db.close()
		good := db.bytes()
		kinds, txns := byteKinds(t, good)
		rnd := rand.New(rand.NewPCG(seed, 10))
		flip := func(at int64, bit int) {
			bad := append([]byte(nil), good...)
			bad[at] ^= 1 << bit
			db.must(os.WriteFile(db.path, bad, 0o666))
			r := check(t, db.path, db.opts.BlobDir)
			if kinds[at] == 't' {
				return
			}
			var from, to int64 = 0, magicLen
			for _, h := range txns {
				if h.pos <= at && at < h.next() {
					from, to = h.pos, h.next()
				}
			}
			hit := false
			for _, f := range r.Findings {
				hit = hit || f.Severity == Damage && f.Pos >= from && f.Pos < to
			}
			if kinds[at] == 'd' {
				tried++
				if hit {
					found++
				}
			} else if !hit {
				t.Errorf("seed %d: bit %d at %d, in the transaction %d-%d, was not found there: %v", seed, bit, at, from, to, r.Findings)
			}
		}
		// As many as there is time for, more of the structure than of the
		// rest.
		for at, kind := range kinds {
			if kind != 'd' && rnd.IntN(6) == 0 || rnd.IntN(200) == 0 {
				flip(int64(at), rnd.IntN(8))
			}
		}
		db.must(os.WriteFile(db.path, good, 0o666))
	}
	t.Logf("%d of %d flips in pickles were found", found, tried)
}

// A file that was cut anywhere is found to be, unless between two transactions
// and without an index that knows better.
func TestCheckFindsTruncation(t *testing.T) {
	db := checkedDB(t, 1, 25)
	db.close()
	good := db.bytes()
	_, txns := byteKinds(t, good)
	last := txns[len(txns)-1]
	boundary := func(n int) bool {
		for _, h := range txns {
			if h.pos == int64(n) {
				return true
			}
		}
		return n == 0
	}
	for _, index := range []bool{true, false} {
		if !index {
			db.must(os.Remove(db.path + ".index"))
		}
		rnd := rand.New(rand.NewPCG(2, 2))
		for n := range good {
			if int64(n) < last.pos && rnd.IntN(100) != 0 || n < magicLen && n != 0 {
				continue
			}
			db.must(os.WriteFile(db.path, good[:n], 0o666))
			r := check(t, db.path, "")
			if index && n < len(good) && r.Damages == 0 {
				t.Fatalf("cut to %d of %d bytes: no damage: %v", n, len(good), r.Findings)
			}
			if !index && !boundary(n) && len(r.Findings) == 0 {
				t.Fatalf("cut to %d of %d bytes: found nothing", n, len(good))
			}
		}
	}
}

func TestCheckSaysWhat(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "Data.fs")
	if _, err := Check(ctx, path, CheckOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for text, want := range map[string]string{"FS21": "Python 2", "PK\x03\x04 not this": "not a FileStorage"} {
		os.WriteFile(path, []byte(text), 0o666)
		if _, err := Check(ctx, path, CheckOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	db := checkedDB(t, 3, 25)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Check(cancelled, db.path, CheckOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}

	// A reference to nothing, one to an object that was deleted.
	db.store(50, 0, string(storagetest.Record("refers", 51, 52)))
	serial := db.store(52, 0, string(storagetest.Record("to be deleted")))
	db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.Delete(ctx, 52, serial) })
	r := check(t, db.path, db.opts.BlobDir)
	if f := wantFinding(t, r, Damage, "which does not exist"); f.OID != 50 || f.Pos <= 0 {
		t.Errorf("found %+v", f)
	}
	wantFinding(t, r, Damage, "which is gone since")
	if r.Damages != 2 {
		t.Errorf("%d damages: %v", r.Damages, r.Findings)
	}

	// Blobs without files, and files without blobs.
	u, err := db.s.CreateBlob(ctx)
	db.must(err)
	db.must(u.Complete())
	tid := db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.StoreBlob(ctx, 60, 0, storagetest.BlobRecord(), u) })
	name := db.s.blobs.file(60, tid)
	db.must(os.Rename(name, db.s.blobs.file(60, tid-1)))
	r = check(t, db.path, db.opts.BlobDir)
	if f := wantFinding(t, r, Damage, "has no file"); f.File != name || f.OID != 60 || f.TID != tid || f.Pos <= 0 {
		t.Errorf("found %+v", f)
	}
	if f := wantFinding(t, r, Warning, "no record belongs"); f.TID != tid-1 {
		t.Errorf("found %+v", f)
	}

	// What a crash leaves is no damage.
	end := db.s.gen.Load().end.Load()
	db.close()
	f, err := os.OpenFile(db.path, os.O_WRONLY|os.O_APPEND, 0)
	db.must(err)
	f.Write(appendTxnHeader(nil, tid+1, 1000, statusUncommitted, nil, nil, nil))
	db.must(f.Close())
	if got := wantFinding(t, check(t, db.path, ""), Note, "not committed"); got.Pos != end {
		t.Errorf("found %+v, want position %d", got, end)
	}

	// An index that is for another file, and one that is none.
	x := newIndex()
	x.set(1, 4711)
	_, err = saveIndexFile(OSFileSystem{}, db.path+".index", end, adds(x.all()))
	db.must(err)
	r = check(t, db.path, "")
	wantFinding(t, r, Damage, "does not have the object")
	db.must(os.WriteFile(db.path+".index", []byte("nonsense"), 0o666))
	wantFinding(t, check(t, db.path, ""), Warning, "cannot be read")
}

// What follows damage is still checked.
func TestCheckGoesOn(t *testing.T) {
	db := checkedDB(t, 5, 25)
	db.close()
	db.must(os.Remove(db.path + ".index"))
	b := db.bytes()
	_, txns := byteKinds(t, b)
	first, second := txns[5], txns[len(txns)-3]
	for i := first.pos; i < first.next(); i++ {
		b[i] = 0xff
	}
	binary.BigEndian.PutUint64(b[second.end():], 1)
	db.must(os.WriteFile(db.path, b, 0o666))
	r := check(t, db.path, "")
	if f := wantFinding(t, r, Damage, "can be recognized"); f.Pos != first.pos || !strings.Contains(f.What, fmt.Sprint(first.next())) {
		t.Errorf("found %v, want the damage at %d", f, first.pos)
	}
	if f := wantFinding(t, r, Damage, "wrong length"); f.Pos != second.end() {
		t.Errorf("found %v, want the damage at %d", f, second.end())
	}
	if int(r.Transactions) != len(txns)-1 {
		t.Errorf("%d transactions, want %d", r.Transactions, len(txns)-1)
	}
}

// Whatever is in a file, Check comes to an end.
func FuzzCheck(f *testing.F) {
	db := checkedDB(f, 7, 8)
	db.close()
	f.Add(db.bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "Data.fs")
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		Check(ctx, path, CheckOptions{MaxFindings: 10}) // errors are fine
	})
}
