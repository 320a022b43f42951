package filestorage

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// recordingFile takes down what is written to it, up to a limit.
type recordingFile struct {
	File
	content []byte
	limit   int
	begun   []int64 // StartWriteBack's ranges, from and to
	odd     int     // writes that begin in the middle of a block
}

var errNoRoom = errors.New("no room")

func (f *recordingFile) WriteAt(p []byte, off int64) (int, error) {
	if off != int64(len(f.content)) {
		panic("not at the end")
	}
	if off%blobBlock != 0 {
		f.odd++
	}
	n := min(len(p), f.limit-len(f.content))
	f.content = append(f.content, p[:n]...)
	if n < len(p) {
		return n, errNoRoom
	}
	return n, nil
}

func (f *recordingFile) StartWriteBack(off, n int64) { f.begun = append(f.begun, off, off+n) }

func (f *recordingFile) Close() error { return nil }

// TestBlobWriter writes pieces of all sizes: what arrives is the same, in whole
// blocks.
func TestBlobWriter(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 1, 59_000, blobBlock - 1, blobBlock, blobBlock + 1, 3*blobBlock + 7}
	source := make([]byte, 8*blobBlock)
	for i := range source {
		source[i] = byte(rnd.Uint32())
	}
	for range 20 {
		f := &recordingFile{limit: 1 << 30}
		w := &blobWriter{file: f}
		var want []byte
		for range rnd.IntN(60) {
			n := sizes[rnd.IntN(len(sizes))]
			p := bytes.Clone(source[rnd.IntN(len(source)-n):][:n])
			want = append(want, p...)
			if n, err := w.Write(p); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
			clear(p) // the caller uses it again
		}
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.content, want) || f.odd > 0 {
			t.Fatalf("%d bytes became %d, with %d writes in the middle of a block", len(want), len(f.content), f.odd)
		}
		end := int64(0)
		for i := 0; i < len(f.begun); i += 2 {
			if f.begun[i] != end || f.begun[i+1] <= end {
				t.Fatalf("writing back began for %v", f.begun)
			}
			end = f.begun[i+1]
		}
		if int64(len(want))-end >= 2*blobWriteBack {
			t.Fatalf("writing back began for %d bytes of %d", end, len(want))
		}
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBlobWriterFails meets a full disk: the error comes with the piece that
// fills a block, or with the end.
func TestBlobWriterFails(t *testing.T) {
	for _, limit := range []int{0, 1, blobBlock - 1, blobBlock, 2*blobBlock + 5} {
		w := &blobWriter{file: &recordingFile{limit: limit}}
		var err error
		for written := 0; err == nil && written <= limit; written += 10_000 {
			_, err = w.Write(make([]byte, 10_000))
		}
		if err == nil {
			err = w.flush()
		}
		if !errors.Is(err, errNoRoom) {
			t.Errorf("with room for %d bytes: %v", limit, err)
		}
		if err := w.flush(); !errors.Is(err, errNoRoom) {
			t.Errorf("the error is forgotten: %v", err)
		}
	}
}
