package spool

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestRandom compares spools of several limits with a plain slice.
func TestRandom(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, limit := range []int{0, 1, 10, 100, 1 << 20} {
		rnd := rand.New(rand.NewPCG(1, uint64(limit)))
		s := Spool{Limit: limit}
		var want []byte
		type kept struct{ got, want []byte }
		var all []kept
		for range 300 {
			p := make([]byte, rnd.IntN(30))
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			off, err := s.Append(p)
			if err != nil || off != int64(len(want)) {
				t.Fatalf("Append: %d, %v; want %d", off, err, len(want))
			}
			want = append(want, p...)
			from := rnd.IntN(len(want) + 1)
			n := rnd.IntN(len(want) - from + 1)
			got, err := s.Bytes(int64(from), n)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, kept{got, bytes.Clone(want[from : from+n])})
			if len(s.memory) > limit {
				t.Fatalf("%d bytes in memory, limit %d", len(s.memory), limit)
			}
		}
		for _, k := range all {
			if !bytes.Equal(k.got, k.want) {
				t.Fatalf("limit %d: bytes differ, or changed later", limit)
			}
		}
		if s.Size() != int64(len(want)) {
			t.Errorf("Size is %d, want %d", s.Size(), len(want))
		}
		s.Close()
	}
	if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestNoTemporaryFile: what cannot be added is not, and the rest stays.
func TestNoTemporaryFile(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
	s := Spool{Limit: 10}
	defer s.Close()
	if _, err := s.Append([]byte("12345")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.Append([]byte("123456")); err == nil {
			t.Error("Append without a place for the file succeeded")
		}
	}
	if got, err := s.Bytes(0, int(s.Size())); err != nil || string(got) != "12345" {
		t.Errorf("Bytes: %q, %v", got, err)
	}
}
