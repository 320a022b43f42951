package filestorage

import (
	"errors"
	"io"
)

const (
	// pieceSize is how much is read ahead at a time, and pieces how many such
	// buffers there are.
	pieceSize = 256 << 10
	pieces    = 3
)

// readAhead reads a file from front to back, a few pieces ahead of a window, so
// that reading and what is done with the data go on at the same time. It belongs
// to its window; only its own goroutine touches what it has not handed over.
type readAhead struct {
	full chan piece  // read, in order; closed at the end
	free chan []byte // to be read into
	stop chan struct{}
}

// piece is a part of the file: the end of buf. There are windowSize bytes before
// it, for the last bytes of the piece before.
type piece struct {
	off int64
	buf []byte
	err error
}

// startReadAhead reads file from off up to end.
func startReadAhead(file io.ReaderAt, off, end int64) *readAhead {
	a := &readAhead{full: make(chan piece, pieces), free: make(chan []byte, pieces), stop: make(chan struct{})}
	for range pieces {
		a.free <- nil
	}
	go a.run(file, off, end)
	return a
}

func (a *readAhead) run(file io.ReaderAt, off, end int64) {
	defer close(a.full)
	for off < end {
		var buf []byte
		select {
		case buf = <-a.free:
		case <-a.stop:
			return
		}
		if buf == nil {
			buf = make([]byte, windowSize+pieceSize)
		}
		n, err := file.ReadAt(buf[windowSize:windowSize+min(pieceSize, end-off)], off)
		if n == 0 && err == nil {
			err = io.ErrNoProgress
		}
		p := piece{off, buf[:windowSize+n], err}
		off += int64(n)
		select {
		case a.full <- p:
		case <-a.stop:
			return
		}
		if err != nil {
			return
		}
	}
}

// close ends reading; no read is under way when it returns.
func (a *readAhead) close() {
	close(a.stop)
	for range a.full {
	}
}

// forward has the window read ahead from off up to end, for a walk from front to
// back. What is not in that order is read by itself. The caller closes the
// window.
func (w *window) forward(off, end int64) {
	if w.ahead == nil && end-off > pieceSize {
		w.ahead = startReadAhead(w.file, off, end)
		w.piece, w.buf = nil, nil
	}
}

// close ends reading ahead.
func (w *window) close() {
	if w.ahead != nil {
		w.ahead.close()
		w.ahead, w.piece, w.buf = nil, nil, nil
	}
}

// advance goes on to the piece that has the n bytes at off. It fails if they are
// not ahead, or too many, or past the end of what is read.
func (w *window) advance(off int64, n int) bool {
	for !w.has(off, n) {
		if n > windowSize || len(w.buf) > 0 && off < w.off {
			return false
		}
		next, ok := <-w.ahead.full
		if !ok || next.err != nil && len(next.buf) == windowSize {
			return false
		}
		start := windowSize
		if kept := w.off + int64(len(w.buf)) - off; len(w.buf) > 0 && kept > 0 {
			start -= copy(next.buf[windowSize-kept:], w.buf[off-w.off:])
		}
		if w.piece != nil {
			w.ahead.free <- w.piece[:windowSize+pieceSize]
		}
		w.piece, w.buf, w.off = next.buf, next.buf[start:], next.off-int64(windowSize-start)
		if off < w.off {
			return false
		}
	}
	return true
}

// apart reads n bytes without leaving the place of the walk.
func (w *window) apart(off int64, n int) ([]byte, error) {
	if n > cap(w.aside) {
		w.aside = make([]byte, n)
	}
	b := w.aside[:n]
	if n > maxAside {
		w.aside = nil
	}
	got, err := w.file.ReadAt(b, off)
	if err != nil && got < n && !errors.Is(err, io.EOF) {
		return nil, readError(off, err)
	}
	return b[:got], nil
}

// maxAside is how large a buffer is kept to read apart.
const maxAside = 1 << 20
