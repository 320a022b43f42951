package filestorage

import "sync"

// blobBlock is the size in bytes of the pieces in which blobs are written, each
// at a multiple of it. The kernel keeps such a piece in memory as one, if it can:
// writing, syncing and sending the blob all take less time than with pieces as
// clients send them (Python's: 59,000 bytes).
const blobBlock = 256 << 10

// blobWriteBack is after how many bytes of an upload the disk begins to write
// them: while more is received, so that in the end there is less to wait for.
const blobWriteBack = 4 << 20

// blobWriter writes a file from its beginning on. It is used by one goroutine at
// a time.
type blobWriter struct {
	file    File
	block   *[blobBlock]byte // what did not fill a block yet; nil before the first
	held    int              // bytes in it
	written int64
	begun   int64 // up to where the contents are on their way to the disk
	err     error // of the write that failed: there is none after it
}

var blobBlocks = sync.Pool{New: func() any { return new([blobBlock]byte) }}

// Write writes p, or keeps its end until flush.
func (w *blobWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if whole := len(p) - len(p)%blobBlock; whole > 0 && w.held == 0 {
			if err := w.write(p[:whole]); err != nil {
				return 0, err
			}
			p = p[whole:]
			continue
		}
		if w.block == nil {
			w.block = blobBlocks.Get().(*[blobBlock]byte)
		}
		k := copy(w.block[w.held:], p)
		w.held, p = w.held+k, p[k:]
		if w.held == blobBlock {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// flush writes what was kept.
func (w *blobWriter) flush() error {
	if w.held == 0 {
		return w.err
	}
	err := w.write(w.block[:w.held])
	w.held = 0
	return err
}

func (w *blobWriter) write(p []byte) error {
	if w.err != nil {
		return w.err
	}
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

// close closes the file.
func (w *blobWriter) close() error {
	if w.block != nil {
		blobBlocks.Put(w.block)
		w.block = nil
	}
	return w.file.Close()
}
