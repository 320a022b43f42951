package filestorage

import (
	"slices"
	"sync"
	"time"
)

// blobBlock is the size in bytes of the pieces in which the beginning of a blob
// is written, each at a multiple of it. The kernel keeps such a piece in memory as
// one, if it can: writing, syncing and sending the blob all take less time than
// with pieces as clients send them (Python's: 59,000 bytes).
const blobBlock = 256 << 10

// blobWriteBack is after how many bytes of an upload that are in the page cache
// the disk begins to write them: while more is received, so that in the end there
// is less to wait for.
const blobWriteBack = 4 << 20

// blobWriter writes a file from its beginning on. It is used by one goroutine at
// a time.
type blobWriter struct {
	file    File
	routes  *blobRoutes
	block   *blobBuffer // what did not fill a block yet; nil if there is none
	held    int         // bytes in it
	all     *blobBuffer // after flush: the whole contents, if they fitted
	written int64       // or under way
	begun   int64       // up to where the contents are on their way to the disk
	err     error       // of the write that failed: there is none after it

	trip     *blobTrip        // of an upload that has become large; else nil
	direct   directFile       // nil while the page cache is used
	indirect bool             // the page cache is used to the end
	done     chan directWrite // the end of a write past it; nil before the first
	underWay bool             // one has begun, and its end not been taken
	spare    *blobBuffer      // of a write past it that has ended
}

// directWrite is how a write ended, and of what.
type directWrite struct {
	block *blobBuffer
	err   error
}

// blobBuffer is memory for a block.
type blobBuffer struct{ b []byte }

var blobBuffers = sync.Pool{New: func() any { return &blobBuffer{make([]byte, blobBlock)} }}

func (b *blobBuffer) free() {
	switch len(b.b) {
	case blobDirectBlock:
		freeBlocks(b.b)
	case blobBlock:
		blobBuffers.Put(b)
	}
}

// Write writes p, or keeps its end until flush. Past the page cache the error of
// a write comes with a later one.
func (w *blobWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if w.held == 0 {
			if !w.goDirect() && len(p) >= blobBlock {
				whole := len(p) - len(p)%blobBlock
				if !w.indirect {
					whole = min(whole, blobDirect-int(w.written))
				}
				if err := w.write(p[:whole]); err != nil {
					return 0, err
				}
				p = p[whole:]
				continue
			}
			if w.block == nil {
				w.block = w.newBlock()
			}
		}
		k := copy(w.block.b[w.held:], p)
		w.held, p = w.held+k, p[k:]
		if w.held == len(w.block.b) {
			if err := w.full(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// goDirect says whether the next block goes past the page cache.
func (w *blobWriter) goDirect() bool {
	if w.direct == nil && !w.indirect && w.written >= blobDirect {
		w.indirect = true
		if file, can := w.file.(directFile); can {
			w.trip = w.routes.begin(w.written)
			switch {
			case w.trip.route == throughCache:
			case file.SetDirect(true) != nil:
				w.trip.refused()
			default:
				w.direct, w.indirect = file, false
				w.dropBlock()
			}
		}
	}
	return w.direct != nil
}

// endDirect goes back to the page cache. No write is under way.
func (w *blobWriter) endDirect() error {
	if w.direct == nil {
		return nil
	}
	err := w.direct.SetDirect(false)
	w.direct, w.indirect = nil, true
	if w.spare != nil {
		w.spare.free()
		w.spare = nil
	}
	w.trip.leaveDirect()
	return err
}

func (w *blobWriter) newBlock() *blobBuffer {
	switch {
	case w.direct == nil:
		return blobBuffers.Get().(*blobBuffer)
	case w.spare == nil:
		return &blobBuffer{newBlocks(blobDirectBlock)}
	}
	b := w.spare
	w.spare = nil
	return b
}

// full writes the block, which is full, or lets it be written.
func (w *blobWriter) full() error {
	if w.direct == nil {
		err := w.write(w.block.b)
		w.held = 0
		return err
	}
	if err := w.wait(); err != nil {
		return err
	}
	if w.done == nil {
		w.done = make(chan directWrite, 1)
	}
	block, at := w.block, w.written
	w.block, w.held, w.written = nil, 0, at+blobDirectBlock
	w.begun = w.written
	w.underWay = true
	go func() {
		_, err := w.direct.WriteDirect(block.b, at)
		w.done <- directWrite{block, err}
	}()
	return nil
}

// wait waits for the write that is under way.
func (w *blobWriter) wait() error {
	if w.underWay {
		start := time.Now()
		done := <-w.done
		w.trip.waitedSince(start)
		w.underWay, w.spare = false, done.block
		if w.err == nil {
			w.err = done.err
		}
	}
	return w.err
}

// flush writes what was kept.
func (w *blobWriter) flush() error {
	if err := w.wait(); err != nil {
		return err
	}
	// What is left need not be as long as a disk wants it.
	if w.err = w.endDirect(); w.err == nil && w.held > 0 {
		_ = w.write(w.block.b[:w.held])
		if w.written == int64(w.held) {
			w.all, w.block = w.block, nil
		}
		w.dropBlock()
	}
	return w.err
}

func (w *blobWriter) write(p []byte) error {
	if w.err != nil {
		return w.err
	}
	defer w.trip.waitedSince(time.Now())
	n, err := w.file.WriteAt(p, w.written)
	w.written, w.err = w.written+int64(n), err
	if w.written-w.begun >= blobWriteBack {
		if file, ok := w.file.(writeBacker); ok {
			file.StartWriteBack(w.begun, w.written-w.begun)
		}
		w.begun = w.written
	}
	return err
}

// sync makes what was written durable, after flush.
func (w *blobWriter) sync() error {
	start := time.Now()
	err := w.file.Sync()
	if err == nil {
		w.trip.waitedSince(start)
		w.trip.durable(w.written)
	}
	return err
}

func (w *blobWriter) dropBlock() {
	if w.block != nil {
		w.block.free()
		w.block, w.held = nil, 0
	}
}

// takeAll returns the contents, after flush, to who frees them; or nil. They lie in
// memory of at most four times their size.
func (w *blobWriter) takeAll() *blobBuffer {
	all := w.all
	w.all = nil
	if size := int(w.written); all != nil && size < len(all.b)/4 {
		small := &blobBuffer{slices.Clone(all.b[:size])}
		all.free()
		return small
	}
	return all
}

// close closes the file.
func (w *blobWriter) close() error {
	_ = w.wait()
	_ = w.endDirect()
	w.trip.end()
	w.trip = nil
	w.dropBlock()
	if w.all != nil {
		w.all.free()
		w.all = nil
	}
	return w.file.Close()
}
