package filestorage

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"

	"github.com/zeolite-go/zeolite"
)

// Data.fs.index is an index as it was when the file ended at some position, so
// that opening needs to scan only what follows. It is a sequence of pickles:
// the position; then, for each 6-byte prefix of oids, a tuple of the prefix
// and a bucket; then None. A bucket is n 2-byte suffixes, then n 6-byte file
// positions. An older form is one pickle of a dict.
const (
	filePrefixLen   = 6
	fileSuffixLen   = 2
	filePositionLen = 6
	filePositionMax = 1<<48 - 1
)

var errIndexFile = errors.New("not an index file")

// loadIndexFile reads an index and the position that belongs to it.
func loadIndexFile(name string) (*index, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	p := &pickleReader{r: bufio.NewReaderSize(f, 1<<20)}
	first, err := p.load()
	if err != nil {
		return nil, 0, err
	}
	x := newIndex()
	switch first := first.(type) {
	case int64:
		return x, first, x.loadBuckets(p)
	case pickleDict:
		pos, ok := first["pos"].(int64)
		if !ok {
			return nil, 0, errIndexFile
		}
		return x, pos, x.loadOldForm(first["index"])
	}
	return nil, 0, errIndexFile
}

// loadBuckets reads the tuples up to None.
func (x *index) loadBuckets(p *pickleReader) error {
	for {
		v, err := p.load()
		if err != nil {
			return err
		}
		if v == nil {
			return nil
		}
		if err := x.loadPair(v); err != nil {
			return err
		}
	}
}

// loadPair adds the objects of one tuple (prefix, bucket).
func (x *index) loadPair(v any) error {
	pair, ok := v.(pickleTuple)
	if !ok || len(pair) != 2 {
		return errIndexFile
	}
	prefix, ok1 := pair[0].(string)
	bucket, ok2 := pair[1].(string)
	const entryLen = fileSuffixLen + filePositionLen
	if !ok1 || !ok2 || len(prefix) != filePrefixLen || len(bucket)%entryLen != 0 {
		return errIndexFile
	}
	x.setBucket(prefix, bucket, len(bucket)/entryLen)
	return nil
}

// setBucket stores the n objects of a bucket of the file. They come in order
// unless somebody else wrote the file; those of one bucket of the index are
// then stored at once.
func (x *index) setBucket(prefix, bucket string, n int) {
	var b [8]byte
	copy(b[:], prefix)
	base := binary.BigEndian.Uint64(b[:])
	suffix := func(i int) uint64 { return uint64(bucket[fileSuffixLen*i])<<8 | uint64(bucket[fileSuffixLen*i+1]) }
	position := func(i int) int64 { return position48(bucket[fileSuffixLen*n+filePositionLen*i:]) }
	for start, end := 0, 0; start < n; start = end {
		for end = start + 1; end < n && suffix(end) > suffix(end-1) && suffix(end)>>suffixBits == suffix(start)>>suffixBits; {
			end++
		}
		entries := make([]uint64, end-start)
		for i := range entries {
			entries[i] = entry(suffix(start+i), position(start+i))
		}
		x.setSorted((base|suffix(start))>>suffixBits, entries)
	}
}

// position48 reads a 6-byte number.
func position48(s string) int64 {
	_ = s[filePositionLen-1]
	return int64(s[0])<<40 | int64(s[1])<<32 | int64(s[2])<<24 | int64(s[3])<<16 | int64(s[4])<<8 | int64(s[5])
}

// loadOldForm reads the index of the older form: a dict from oids to
// positions, or a pickled fsIndex object.
func (x *index) loadOldForm(v any) error {
	switch v := v.(type) {
	case pickleDict:
		for key, value := range v {
			oid, err := zeolite.OIDFromBytes([]byte(key.(string)))
			pos, ok := value.(int64)
			if err != nil || !ok || pos < 0 || pos > filePositionMax {
				return errIndexFile
			}
			x.set(oid, pos)
		}
		return nil
	case *pickleObject:
		state, ok := v.state.(pickleDict)
		if !ok {
			return errIndexFile
		}
		data, ok := state["_data"].(*pickleList)
		if !ok {
			return errIndexFile
		}
		for _, pair := range data.items {
			if err := x.loadPair(pair); err != nil {
				return err
			}
		}
		return nil
	}
	return errIndexFile
}

// saveIndexFile writes an index whose entries come in oid order and are valid
// for a file that ends at pos. It replaces the file name at once.
func saveIndexFile(fsys FileSystem, name string, entries iter.Seq2[zeolite.OID, int64], pos int64) (size int64, err error) {
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
	w := bufio.NewWriterSize(at, 1<<20)
	b := append(appendPickleInt(appendPickleStart(nil), pos), '.')
	w.Write(b)

	var suffixes, positions []byte
	var prefix uint64
	flush := func() {
		if len(suffixes) == 0 {
			return
		}
		var p [8]byte
		binary.BigEndian.PutUint64(p[:], prefix<<(8*fileSuffixLen))
		b = appendPickleBytes(appendPickleStart(b[:0]), p[:filePrefixLen])
		b = appendPickleBytes(b, append(suffixes, positions...))
		w.Write(append(b, 0x86, '.')) // TUPLE2, STOP
		suffixes, positions = suffixes[:0], positions[:0]
	}
	for oid, at := range entries {
		if at > filePositionMax {
			return 0, fmt.Errorf("position %d does not fit an index file", at)
		}
		if p := uint64(oid) >> (8 * fileSuffixLen); p != prefix {
			flush()
			prefix = p
		}
		suffixes = binary.BigEndian.AppendUint16(suffixes, uint16(oid))
		var p [8]byte
		binary.BigEndian.PutUint64(p[:], uint64(at))
		positions = append(positions, p[8-filePositionLen:]...)
	}
	flush()
	w.Write(append(appendPickleStart(b[:0]), 'N', '.'))
	if err := w.Flush(); err != nil {
		return 0, err
	}
	// The index is only a convenience, but a name that points to a file
	// whose contents were lost would make the next start slow.
	return at.off, f.Sync()
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
