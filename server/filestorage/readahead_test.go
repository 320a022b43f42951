package filestorage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// A window that reads ahead gives the same bytes as the file, in whatever order
// it is asked.
func TestReadAhead(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 8))
			file := make([]byte, rnd.IntN(6*pieceSize))
			for i := range file {
				file[i] = byte(rnd.Uint32())
			}
			size := int64(len(file))
			end := size - rnd.Int64N(size/4+1)
			w := newWindow(bytes.NewReader(file))
			pos := rnd.Int64N(size/4 + 1)
			w.forward(pos, end)
			defer w.close()
			for range 2000 {
				n := rnd.IntN(3000)
				switch rnd.IntN(60) {
				case 0:
					n = rnd.IntN(3 * pieceSize)
				case 1:
					n = windowSize - 1 + rnd.IntN(3)
				}
				at := pos
				switch rnd.IntN(20) {
				case 0:
					at = rnd.Int64N(size + 100)
				case 1:
					at = max(0, pos-rnd.Int64N(windowSize))
				case 2:
					at += rnd.Int64N(100)
				default:
					pos += int64(n)
				}
				want := file[min(at, size):min(at+int64(n), size)]
				if got, err := w.bytes(at, n); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes at %d of %d, read ahead to %d: got %d, %v", n, at, size, end, len(got), err)
				}
				if pos >= size+100 {
					break
				}
			}
		})
	}
}

// failingReader fails from a position on.
type failingReader struct {
	data []byte
	from int64
}

var errDisk = errors.New("the disk is broken")

func (f failingReader) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) <= f.from {
		return copy(b, f.data[off:]), nil
	}
	if off >= f.from {
		return 0, errDisk
	}
	return copy(b, f.data[off:f.from]), errDisk
}

// What can be read in front of a bad place is read; the rest is an error.
func TestReadAheadError(t *testing.T) {
	data := make([]byte, 4*pieceSize)
	for i := range data {
		data[i] = byte(i * 7)
	}
	const bad = 2*pieceSize + 1000
	w := newWindow(failingReader{data, bad})
	w.forward(0, int64(len(data)))
	defer w.close()
	for pos := int64(0); ; pos += 100 {
		b, err := w.bytes(pos, 100)
		if pos+100 > bad {
			if !errors.Is(err, errDisk) {
				t.Errorf("at %d: %v, want the error of the disk", pos, err)
			}
			return
		}
		if err != nil || !bytes.Equal(b, data[pos:pos+100]) {
			t.Fatalf("at %d: %v", pos, err)
		}
	}
}

// A walk that ends early leaves nothing reading.
func TestReadAheadEndsEarly(t *testing.T) {
	w := newWindow(io.NewSectionReader(failingReader{make([]byte, 100*pieceSize), 100 * pieceSize}, 0, 100*pieceSize))
	w.forward(0, 100*pieceSize)
	ahead := w.ahead
	if _, err := w.bytes(0, 10); err != nil {
		t.Fatal(err)
	}
	w.close()
	if _, ok := <-ahead.full; ok {
		t.Error("there is something to read after close")
	}
	if b, err := w.bytes(50, 10); err != nil || len(b) != 10 {
		t.Errorf("after close: %d bytes, %v", len(b), err)
	}
}

// Iterating gives the same records whether they are borrowed or not, in a file
// that is much larger than what is read ahead, with records that are larger, too.
func TestEachRecord(t *testing.T) {
	db := newDB(t, Options{})
	rnd := rand.New(rand.NewPCG(1, 1))
	var serial [50]zeolite.TID
	for len(db.bytes()) < 8*pieceSize {
		oid := zeolite.OID(rnd.IntN(len(serial)))
		size := rnd.IntN(5000)
		switch rnd.IntN(20) {
		case 0:
			size = rnd.IntN(2 * pieceSize)
		case 1:
			size = windowSize - recHdrLen + rnd.IntN(3)
		}
		serial[oid] = db.store(oid, serial[oid], string(storagetest.Record(string(make([]byte, size)))))
	}
	db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { _, err := tx.Undo(ctx, db.s.LastTID()); return err })
	for _, reopened := range []bool{false, true} {
		if reopened {
			db.close()
			db.must(db.s.fs.Remove(filepath.Join(db.path + ".index")))
			db.open()
		}
		records := 0
		for tr, err := range db.s.Transactions(ctx, 0, zeolite.MaxTID) {
			db.must(err)
			var want []zeolite.DataRecord
			for r, err := range tr.Records {
				db.must(err)
				want = append(want, r)
			}
			i := 0
			for r, err := range tr.Each() {
				db.must(err)
				if i == len(want) || r.OID != want[i].OID || r.TID != want[i].TID || r.DataTID != want[i].DataTID || !bytes.Equal(r.Data, want[i].Data) {
					t.Fatalf("transaction %v: record %d is different", tr.TID, i)
				}
				i++
				records++
			}
			if i != len(want) {
				t.Errorf("transaction %v has %d records, want %d", tr.TID, i, len(want))
			}
		}
		if records < 50 {
			t.Fatal("too few records")
		}
	}
}
