package spool

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// Operations and records come back as they were added, from memory and from files.
func TestLog(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, limit := range []int{0, 100, 1000, 1 << 20} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			l := NewLog(limit)
			defer l.Close()
			type added struct {
				op     Op
				record []byte
			}
			var want []added
			for i := range 250 {
				a := added{
					op: Op{Kind: Kind(i % 6), Gone: i%4 == 0, OID: zeolite.OID(math.MaxUint64 - uint64(i)),
						Serial: zeolite.TID(1<<63 + uint64(i))},
					record: bytes.Repeat([]byte{byte(i)}, i%50),
				}
				if err := l.Add(&a.op, a.record); err != nil {
					t.Fatal(err)
				}
				want = append(want, a)
			}
			n := 0
			err := l.Each(func(i int, o *Op) error {
				record, err := l.Record(o)
				if i != n || *o != want[i].op || o.Size != len(record) || !bytes.Equal(record, want[i].record) || err != nil {
					t.Errorf("operation %d, got number %d, %+v with %d bytes, %v, want %+v", n, i, o, len(record), err, want[n].op)
				}
				n++
				return nil
			})
			if err != nil || n != len(want) || l.Len() != n {
				t.Errorf("got %d of %d operations, %v; Len %d", n, len(want), err, l.Len())
			}
			if inMemory := limit == 1<<20; l.InMemory(&want[1].op) != inMemory || l.ops.InMemory(0) != inMemory {
				t.Errorf("in memory: record %v, operations %v", l.InMemory(&want[1].op), l.ops.InMemory(0))
			}
			n = 0
			stop := errors.New("enough")
			if err := l.Each(func(int, *Op) error { n++; return stop }); err != stop || n != 1 {
				t.Errorf("got %v after %d operations, want the error of the first", err, n)
			}
		})
	}
}

// An operation that cannot be added is not, and those before it stay.
func TestLogNoTemporaryFile(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
	l := NewLog(200)
	defer l.Close()
	first := Op{Kind: Store, OID: 1}
	if err := l.Add(&first, []byte("12345")); err != nil {
		t.Fatal(err)
	}
	if err := l.Add(&Op{Kind: Store, OID: 2}, []byte("6")); err == nil { // too many operations
		t.Error("Add without a place for the file succeeded")
	}
	if err := l.Add(&Op{Kind: Store, OID: 3}, make([]byte, 300)); err == nil { // too large
		t.Error("Add without a place for the file succeeded")
	}
	record, err := l.Record(&first)
	if l.Len() != 1 || err != nil || string(record) != "12345" {
		t.Errorf("%d operations, the first with %q, %v", l.Len(), record, err)
	}
}
