package filestorage

import (
	"errors"
	"os"
	"sync"
)

const (
	// packBuffer is how much of the new file is gathered for one write, and
	// packBuffers how many such buffers there are.
	packBuffer  = 512 << 10
	packBuffers = 3
	// writeBack is how much is written before the disk is told to begin.
	writeBack = 8 << 20
)

// packWriter appends to the new file: what has been gathered is written while
// more is being gathered. It is used by one goroutine, and has another one, which
// writes, until stop.
type packWriter struct {
	file File
	pos  int64 // of buf
	buf  []byte

	jobs chan packWrite
	free chan []byte
	done sync.WaitGroup // writes that are under way
	mu   sync.Mutex
	err  error // the first one of a write
	stop func()
}

// packWrite is one write. A buffer of packBuffer bytes is free afterwards.
type packWrite struct {
	pos int64
	buf []byte
}

func createPackFile(fsys FileSystem, name string) (*packWriter, error) {
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return nil, err
	}
	w := &packWriter{
		file: f, buf: make([]byte, 0, packBuffer),
		jobs: make(chan packWrite, packBuffers), free: make(chan []byte, packBuffers),
	}
	for range packBuffers - 1 {
		w.free <- nil
	}
	w.stop = sync.OnceFunc(func() { close(w.jobs) })
	go w.run()
	return w, w.write([]byte(magic))
}

// run writes, in order.
func (w *packWriter) run() {
	begin, _ := w.file.(writeBacker)
	begun := int64(0)
	for job := range w.jobs {
		_, err := w.file.WriteAt(job.buf, job.pos)
		if err != nil {
			w.mu.Lock()
			w.err = errors.Join(w.err, err)
			w.mu.Unlock()
		}
		if cap(job.buf) >= packBuffer {
			end := job.pos + int64(len(job.buf))
			if begin != nil && end-begun >= writeBack {
				begin.StartWriteBack(begun, end-begun)
				begun = end
			}
			w.free <- job.buf[:0]
		}
		w.done.Done()
	}
}

func (w *packWriter) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// end is where the next byte goes.
func (w *packWriter) end() int64 { return w.pos + int64(len(w.buf)) }

// write appends. What of b fits in a buffer is in one.
func (w *packWriter) write(b []byte) error {
	if len(w.buf)+len(b) > packBuffer {
		if err := w.hand(); err != nil {
			return err
		}
	}
	for len(b) > packBuffer {
		w.buf = append(w.buf, b[:packBuffer]...)
		b = b[packBuffer:]
		if err := w.hand(); err != nil {
			return err
		}
	}
	w.buf = append(w.buf, b...)
	return nil
}

// patch changes bytes that were appended in one write.
func (w *packWriter) patch(pos int64, b []byte) {
	if pos >= w.pos {
		copy(w.buf[pos-w.pos:], b)
		return
	}
	w.done.Add(1)
	w.jobs <- packWrite{pos, append([]byte(nil), b...)}
}

// hand has what is gathered written, and goes on in another buffer.
func (w *packWriter) hand() error {
	if len(w.buf) == 0 {
		return nil
	}
	w.done.Add(1)
	w.jobs <- packWrite{w.pos, w.buf}
	w.pos += int64(len(w.buf))
	if w.buf = <-w.free; w.buf == nil {
		w.buf = make([]byte, 0, packBuffer)
	}
	return w.failed()
}

// flush returns when everything has been written.
func (w *packWriter) flush() error {
	err := w.hand()
	w.done.Wait()
	return errors.Join(err, w.failed())
}
