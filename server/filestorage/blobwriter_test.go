package filestorage

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"unsafe"
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

func (f *recordingFile) Sync() error  { return nil }
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
		w := &blobWriter{file: f, routes: &blobRoutes{}}
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
		w := &blobWriter{file: &recordingFile{limit: limit}, routes: &blobRoutes{}}
		meetFullDisk(t, w, limit)
	}
}

// meetFullDisk writes more than there is room for.
func meetFullDisk(t *testing.T, w *blobWriter, limit int) {
	t.Helper()
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

// directRecorder is a recordingFile that can be written past the page cache. It
// checks what a disk would check.
type directRecorder struct {
	recordingFile
	t      *testing.T
	refuse bool // SetDirect fails

	mu     sync.Mutex
	on     bool
	direct int // bytes written so
}

func (f *directRecorder) SetDirect(on bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse {
		return errors.ErrUnsupported
	}
	f.on = on
	return nil
}

func (f *directRecorder) WriteDirect(p []byte, off int64) (int, error) {
	if !f.mu.TryLock() {
		f.t.Error("two writes at once")
	}
	defer f.mu.Unlock()
	if !f.on || off%4096 != 0 || len(p)%4096 != 0 || uintptr(unsafe.Pointer(&p[0]))%4096 != 0 {
		f.t.Errorf("%d bytes at %d, from %p, go past the page cache (%v)", len(p), off, p, f.on)
	}
	n, err := f.recordingFile.WriteAt(p, off)
	f.direct += n
	return n, err
}

func (f *directRecorder) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.on {
		f.t.Errorf("%d bytes at %d go through a file that is set to direct writes", len(p), off)
	}
	return f.recordingFile.WriteAt(p, off)
}

// TestBlobWriterDirect writes blobs that are large enough to go past the page
// cache, with and without a file that can do that.
func TestBlobWriterDirect(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	source := make([]byte, 12<<20)
	for i := range source {
		source[i] = byte(i>>3) ^ byte(i>>13)
	}
	lengths := []int{blobDirect, blobDirect + 1, blobDirect + blobDirectBlock, 6<<20 + 4711, 9<<20 + 4096, len(source)}
	for _, refuse := range []bool{false, true} {
		for _, n := range lengths {
			f := &directRecorder{recordingFile: recordingFile{limit: 1 << 30}, t: t, refuse: refuse}
			routes := &blobRoutes{}
			w := &blobWriter{file: f, routes: routes}
			for p := source[:n]; len(p) > 0; {
				piece := bytes.Clone(p[:min(1+rnd.IntN(200_000), len(p))])
				if rnd.IntN(20) == 0 {
					piece = bytes.Clone(p[:min(3*blobBlock+rnd.IntN(blobBlock), len(p))])
				}
				if k, err := w.Write(piece); k != len(piece) || err != nil {
					t.Fatal(k, err)
				}
				p = p[len(piece):]
				clear(piece) // the caller uses it again
			}
			if err := w.flush(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(f.content, source[:n]) {
				t.Fatalf("%d bytes became %d, or other ones", n, len(f.content))
			}
			if most := n - blobDirect; refuse && f.direct > 0 || !refuse && (f.direct > most || f.direct < most-2*blobDirectBlock) {
				t.Errorf("%d bytes of %d went past the page cache", f.direct, n)
			}
			if f.on {
				t.Error("the file is left set to direct writes")
			}
			if err := w.sync(); err != nil {
				t.Fatal(err)
			}
			if measured, large := routes.waits[pastCache] > 0, n-blobDirect >= blobMeasure; measured != (large && !refuse) {
				t.Errorf("what %d bytes waited for the disk is measured: %v", n, measured)
			}
			if err := w.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestBlobWriterDirectFails meets a full disk with a write that nobody waits
// for: the error comes with a later piece, or with the end.
func TestBlobWriterDirectFails(t *testing.T) {
	for _, limit := range []int{blobDirect, blobDirect + 1, blobDirect + blobDirectBlock, 7<<20 + 5} {
		f := &directRecorder{recordingFile: recordingFile{limit: limit}, t: t}
		w := &blobWriter{file: f, routes: &blobRoutes{}}
		meetFullDisk(t, w, limit)
		if err := w.close(); err != nil {
			t.Error(err)
		}
	}
}

// TestBlobWriterSlots has more large uploads at a time than may go past the page
// cache.
func TestBlobWriterSlots(t *testing.T) {
	routes := blobRoutes{waits: [2]float64{1, 1}} // no trials
	begin := func() (*blobWriter, *directRecorder) {
		f := &directRecorder{recordingFile: recordingFile{limit: 1 << 30}, t: t}
		w := &blobWriter{file: f, routes: &routes}
		if _, err := w.Write(make([]byte, blobDirect+2*blobDirectBlock)); err != nil {
			t.Fatal(err)
		}
		return w, f
	}
	end := func(w *blobWriter, flush bool) {
		if flush && w.flush() != nil || w.close() != nil {
			t.Error("cannot end an upload")
		}
	}
	for i := range 2 * blobDirectMost {
		first, f := begin() // the slots of the round before are free again
		var others []*blobWriter
		for range blobDirectMost - 1 {
			w, _ := begin()
			others = append(others, w)
		}
		late, g := begin()
		end(late, true)
		end(first, i%2 == 0)
		for _, w := range others {
			end(w, i%2 == 0)
		}
		if f.direct == 0 || g.direct > 0 {
			t.Fatalf("%d bytes of the first upload went past the page cache, and %d of one too many", f.direct, g.direct)
		}
	}
	if n := routes.direct; n != 0 {
		t.Errorf("%d slots are not given back", n)
	}
}

// TestBlobWriterOnDisk writes large blobs to the operating system's files.
func TestBlobWriterOnDisk(t *testing.T) {
	source := make([]byte, 7<<20+999)
	for i := range source {
		source[i] = byte(i>>2) ^ byte(i>>11)
	}
	for _, n := range []int{blobDirect + blobDirectBlock, len(source)} {
		name := filepath.Join(t.TempDir(), "blob")
		f, err := OSFileSystem{}.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		w := &blobWriter{file: f, routes: &blobRoutes{}}
		for p := range slices.Chunk(source[:n], 59_000) {
			if _, err := w.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, source[:n]) {
			t.Fatalf("%d bytes became %d, or other ones (%v)", n, len(got), err)
		}
	}
}
