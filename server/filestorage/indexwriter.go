package filestorage

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/zeolite-go/zeolite"
)

// saveIndexFile writes an index that is valid for a file which ends at pos: what
// write puts into it. It replaces the file name at once.
func saveIndexFile(fsys FileSystem, name string, pos int64, write func(*indexWriter) error) (size int64, err error) {
	tmp := name + ".index_tmp"
	f, err := fsys.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err == nil {
			err = fsys.Rename(tmp, name)
		}
		if err != nil {
			fsys.Remove(tmp)
		}
	}()
	at := &writerAt{f: f}
	w := newIndexWriter(at, pos)
	if err := write(w); err != nil {
		return 0, err
	}
	if err := w.finish(); err != nil {
		return 0, err
	}
	// The index is only a convenience, but a name that points to a file
	// whose contents were lost would make the next start slow.
	return at.off, f.Sync()
}

// indexWriter writes an index file. It is used by one goroutine.
type indexWriter struct {
	w   *bufio.Writer // keeps its first error
	buf []byte

	// The bucket that is being added to.
	prefix              uint64
	suffixes, positions []byte
}

func newIndexWriter(w *writerAt, pos int64) *indexWriter {
	iw := &indexWriter{w: bufio.NewWriterSize(w, 1<<20)}
	iw.w.Write(append(appendPickleInt(appendPickleStart(nil), pos), '.'))
	return iw
}

// add adds an object. They come in the order of their oids.
func (w *indexWriter) add(oid zeolite.OID, pos int64) error {
	if pos > filePositionMax {
		return fmt.Errorf("position %d does not fit an index file", pos)
	}
	if p := uint64(oid) >> (8 * fileSuffixLen); p != w.prefix {
		w.flush()
		w.prefix = p
	}
	w.suffixes = binary.BigEndian.AppendUint16(w.suffixes, uint16(oid))
	var p [8]byte
	binary.BigEndian.PutUint64(p[:], uint64(pos))
	w.positions = append(w.positions, p[8-filePositionLen:]...)
	return nil
}

// flush writes the bucket that is being added to, if it has objects.
func (w *indexWriter) flush() {
	if len(w.suffixes) > 0 {
		w.write(w.prefix, w.suffixes, w.positions)
		w.suffixes, w.positions = w.suffixes[:0], w.positions[:0]
	}
}

// addBucket adds all objects with a prefix, as a file has them.
func (w *indexWriter) addBucket(prefix uint64, bucket []byte) {
	w.flush()
	w.write(prefix, bucket, nil)
}

// write writes a bucket, which comes in two parts.
func (w *indexWriter) write(prefix uint64, a, b []byte) {
	var p [8]byte
	binary.BigEndian.PutUint64(p[:], prefix<<(8*fileSuffixLen))
	w.buf = appendPickleBytes(appendPickleStart(w.buf[:0]), p[:filePrefixLen])
	w.buf = appendPickleBytesHeader(w.buf, len(a)+len(b))
	w.w.Write(w.buf)
	w.w.Write(a)
	w.w.Write(b)
	w.w.WriteString("\x86.") // TUPLE2, STOP
}

func (w *indexWriter) finish() error {
	w.flush()
	w.w.Write(append(appendPickleStart(w.buf[:0]), 'N', '.'))
	return w.w.Flush()
}

// writerAt writes to a file from an offset on.
type writerAt struct {
	f   File
	off int64
}

func (w *writerAt) Write(b []byte) (int, error) {
	n, err := w.f.WriteAt(b, w.off)
	w.off += int64(n)
	return n, err
}
