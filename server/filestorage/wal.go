package filestorage

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"unsafe"

	"github.com/zeolite-go/zeolite"
)

// wal is the write-ahead log beside Data.fs, Data.fs.wal: a small group of
// transactions, with small blobs, is durable when it is there, and Data.fs and the
// files of the blobs follow later (walsync.go). One write is enough, since an entry
// has a checksum, and it is a cheap one: of blocks that the file has already. The
// file is made at the first commit and removed when the storage is closed; if it is
// there at the start, something ended without closing (walreplay.go).
//
// It belongs to whoever holds the commit lock.
type wal struct {
	fs   FileSystem
	path string
	data *dataSync
	// segmentSize is that of the first segments, sizeMax the most that the log
	// grows to.
	segmentSize, sizeMax int64

	file     File // nil while there is none
	epoch    uint64
	seq      uint64 // of the last entry
	size     int64
	segments []walSegment
	current  int
	at       int64 // where the next entry goes, in the current segment
	buf      []byte
}

// walSegment is a part of the log that is used again as a whole.
type walSegment struct {
	start, size int64
	// end is the position in Data.fs up to which its entries reach: when
	// Data.fs and blobs are durable up to there, they are of no use.
	end int64
}

func newWAL(s *Storage) *wal {
	return &wal{fs: s.fs, path: s.walPath(), data: &s.data, segmentSize: walSegmentMin, sizeMax: walSizeMax}
}

const (
	// walGroupMax is the size of groups from which writing them twice costs
	// more than a second sync.
	walGroupMax = 256 << 10
	// The log begins with two segments of walSegmentMin, and grows while they
	// fill faster than what they hold gets to the disk in its place: to
	// walSizeEasy rather than that this is done more often than every
	// SyncInterval, which takes less time if it is much at once.
	walSegmentMin = 1 << 20 // more than walGroupMax and logBlobsMax
	walSegmentMax = 16 << 20
	walSizeEasy   = 8 << 20
	walSizeMax    = 64 << 20
)

// buffer returns room for an entry: its header, and n bytes of transactions and
// blobs. It lies in memory as a disk wants it.
func (w *wal) buffer(n int64) []byte {
	need := int(walBlocks(n))
	if len(w.buf) < need {
		w.buf = aligned(max(need, 64<<10))
	}
	return w.buf[:need]
}

// aligned returns n bytes at an address that is a multiple of a block.
func aligned(n int) []byte {
	b := make([]byte, n+walBlock)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (walBlock - 1)
	return b[skip : skip+n]
}

// makeRoom, after open, sees to it that an entry with n bytes of transactions and
// blobs fits where the next one goes.
func (w *wal) makeRoom(n int64) error {
	if seg := &w.segments[w.current]; w.at+walBlocks(n) > seg.start+seg.size {
		return w.nextSegment()
	}
	return nil
}

// append, after makeRoom, makes an entry of the n bytes of transactions, and of the
// blobs behind them, that buffer's b has behind the header; the transactions will
// be at pos in Data.fs, after the transaction last. When it returns, all is durable.
// After an error it may be there or not: void makes sure that it is not.
func (w *wal) append(b []byte, n, blobs, pos int64, last zeolite.TID) error {
	need := walBlocks(n + blobs)
	e := walEntry{epoch: w.epoch, seq: w.seq + 1, pos: pos, last: last, length: n, blobs: blobs, durable: w.data.synced.Load()}
	e.put(b)
	if _, err := w.file.WriteAt(b[:need], w.at); err != nil {
		return err
	}
	w.seq, w.at = e.seq, w.at+need
	w.segments[w.current].end = e.next()
	return nil
}

// void makes the log say that nothing in it is of use. Data.fs and blobs must be
// durable as they are. After an append that failed it takes the place of that entry.
func (w *wal) void() error {
	if w.file == nil {
		return nil
	}
	b := w.buffer(0)
	clear(b)
	e := walEntry{epoch: w.epoch, seq: w.seq + 1}
	if seg := &w.segments[w.current]; w.at+walBlock > seg.start+seg.size {
		// All segments are free.
		w.current = (w.current + 1) % len(w.segments)
		w.at = w.segments[w.current].start
	}
	e.put(b)
	if _, err := w.file.WriteAt(b[:walBlock], w.at); err != nil {
		return err
	}
	w.seq, w.at = e.seq, w.at+walBlock
	for i := range w.segments {
		w.segments[i].end = 0
	}
	return nil
}

// open makes the file, if there is none.
func (w *wal) open() error {
	if w.file != nil {
		return nil
	}
	file, err := w.fs.CreateLog(w.path, 0o666)
	if err != nil {
		return fmt.Errorf("cannot make the write-ahead log: %w", err)
	}
	w.file, w.epoch, w.seq, w.size = file, rand.Uint64(), 0, walBlock
	w.segments, w.current = nil, 0
	header := aligned(walBlock)
	putWALHeader(header, w.epoch)
	_, err = w.file.WriteAt(header, 0)
	for i := 0; i < 2 && err == nil; i++ {
		err = w.grow(i, w.segmentSize)
	}
	if err == nil {
		err = w.fs.SyncDir(filepath.Dir(w.path))
	}
	if err != nil {
		w.remove()
		return fmt.Errorf("cannot make the write-ahead log: %w", err)
	}
	w.at = w.segments[0].start
	return nil
}

// grow adds a segment in the i-th place. Its blocks are written, so that later
// no write needs to change anything but their contents.
func (w *wal) grow(i int, size int64) error {
	zeros := aligned(int(min(size, 1<<20)))
	start := w.size
	for done := int64(0); done < size; {
		n := min(size-done, int64(len(zeros)))
		if _, err := w.file.WriteAt(zeros[:n], start+done); err != nil {
			return err
		}
		done += n
	}
	w.size += size
	w.segments = append(w.segments, walSegment{})
	copy(w.segments[i+1:], w.segments[i:])
	w.segments[i] = walSegment{start: start, size: size}
	return nil
}

// nextSegment goes on to the next segment: the one that was used longest ago if
// what it holds is on disk in its place, or a new one.
func (w *wal) nextSegment() error {
	next := (w.current + 1) % len(w.segments)
	if !w.data.reached(w.segments[next].end) {
		if w.size < w.sizeMax && w.grow(w.current+1, min(w.size, walSegmentMax)) == nil {
			next = w.current + 1
		} else if err := w.data.now(); err != nil {
			return err
		}
	}
	w.current, w.at = next, w.segments[next].start
	w.segments[next].end = 0
	// The one after it should be free when this one is full, or will be made.
	after := &w.segments[(next+1)%len(w.segments)]
	if w.size >= min(walSizeEasy, w.sizeMax) && !w.data.reached(after.end) {
		w.data.hurry()
	}
	return nil
}

// close leaves the file as it is.
func (w *wal) close() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file, w.segments = nil, nil
	return err
}

// remove removes the file. Data.fs and blobs must be durable as they are.
func (w *wal) remove() error {
	if w.file == nil {
		return nil
	}
	err := w.close()
	if e := w.fs.Remove(w.path); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return errors.Join(err, w.fs.SyncDir(filepath.Dir(w.path)))
}
