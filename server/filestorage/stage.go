package filestorage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
)

// stage holds the bytes of a transaction that is being built: in memory, and
// beyond a limit in a temporary file without a name. It is used by one
// goroutine at a time.
type stage struct {
	buf   []byte // the last bytes
	file  *os.File
	inBuf int64 // stage offset of buf[0]: the bytes before it are in file
	dir   string
	limit int
}

// stagePool recycles the buffers of small transactions.
var stagePool = sync.Pool{New: func() any { return new(make([]byte, 0, 16<<10)) }}

const stagePoolMax = 256 << 10

func newStage(dir string, limit int) stage {
	return stage{buf: *stagePool.Get().(*[]byte), dir: dir, limit: limit}
}

// size is the number of bytes staged.
func (st *stage) size() int64 { return st.inBuf + int64(len(st.buf)) }

// append adds bytes, those of head before those of data. After an error the
// stage is as before.
func (st *stage) append(head, data []byte) error {
	if n := len(st.buf) + len(head) + len(data); n > st.limit {
		if err := st.spill(); err != nil {
			return err
		}
		if len(data) > st.limit {
			// Too large to pass through memory.
			off := st.inBuf
			for _, b := range [][]byte{head, data} {
				if _, err := st.file.WriteAt(b, off); err != nil {
					return fmt.Errorf("cannot write the temporary file: %w", err)
				}
				off += int64(len(b))
			}
			st.inBuf = off
			return nil
		}
	}
	if need := len(st.buf) + len(head) + len(data); need > cap(st.buf) {
		// Twice as much each time: append alone would copy more often.
		st.buf = slices.Grow(st.buf, max(need, 2*cap(st.buf))-len(st.buf))
	}
	st.buf = append(append(st.buf, head...), data...)
	return nil
}

// spill moves the buffer to the file.
func (st *stage) spill() error {
	if st.file == nil {
		f, err := os.CreateTemp(st.dir, "zeolite-txn-*.tmp")
		if err != nil {
			return fmt.Errorf("cannot create a temporary file: %w", err)
		}
		// Without a name it vanishes with the process. Where a file that is
		// open cannot be removed, discard does it.
		os.Remove(f.Name())
		st.file = f
	}
	if _, err := st.file.WriteAt(st.buf, st.inBuf); err != nil {
		return fmt.Errorf("cannot write the temporary file: %w", err)
	}
	st.inBuf += int64(len(st.buf))
	st.buf = st.buf[:0]
	return nil
}

// inMemory says that the whole stage is in buf.
func (st *stage) inMemory() bool { return st.inBuf == 0 }

// readAt fills b from the stage offset off.
func (st *stage) readAt(b []byte, off int64) error {
	if off < st.inBuf {
		n := min(int64(len(b)), st.inBuf-off)
		if _, err := st.file.ReadAt(b[:n], off); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("cannot read the temporary file: %w", err)
		}
		b, off = b[n:], off+n
	}
	if len(b) > 0 && copy(b, st.buf[off-st.inBuf:]) < len(b) {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// discard releases everything.
func (st *stage) discard() {
	if st.file != nil {
		st.file.Close()
		os.Remove(st.file.Name())
		st.file = nil
	}
	if cap(st.buf) > 0 && cap(st.buf) <= stagePoolMax {
		b := st.buf[:0]
		stagePool.Put(&b)
	}
	st.buf, st.inBuf = nil, 0
}
