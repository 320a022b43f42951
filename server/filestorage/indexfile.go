package filestorage

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

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
	fileEntryLen    = fileSuffixLen + filePositionLen
	filePositionMax = 1<<48 - 1
)

var errIndexFile = errors.New("not an index file")

// Buckets of at least minMapped bytes stay in the file: for smaller ones it costs
// as much to remember where they are as to read them. Tests map them, too.
var minMapped = 4 << 10

// loadIndexFile reads an index and the position that belongs to it. Of most of
// it only the order of the oids is looked at: where they lead is checked when a record
// is read.
func loadIndexFile(name string) (*index, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	l := &indexLoader{file: f, size: st.Size(), minMapped: minMapped, x: newIndex()}
	pos, err := l.load()
	if err == nil && len(l.buckets) > 0 {
		var data []byte
		var unmap func([]byte)
		if data, unmap, err = mapFile(f, l.size); err == nil {
			l.x.mapped = newMappedIndex(data, l.buckets, unmap)
		}
	}
	return l.x, pos, err
}

// indexLoader makes an index of an index file. It is used by one goroutine.
type indexLoader struct {
	file      io.ReaderAt
	size      int64
	minMapped int
	x         *index

	next    uint64         // the least prefix that may follow
	buckets []mappedBucket // that stay in the file
}

func (l *indexLoader) load() (pos int64, err error) {
	file := &cursor{file: l.file, size: l.size}
	// A small buffer: what follows a prefix is mostly passed over.
	p := &pickleReader{r: bufio.NewReaderSize(file, 4<<10), file: file, leave: l.minMapped}
	first, err := p.load()
	if err != nil {
		return 0, err
	}
	switch first := first.(type) {
	case int64:
		pos, err = first, l.loadBuckets(p)
	case pickleDict:
		var ok bool
		if pos, ok = first["pos"].(int64); !ok {
			return 0, errIndexFile
		}
		err = l.loadOldForm(first["index"])
	default:
		return 0, errIndexFile
	}
	if err == nil {
		err = l.checkOrder()
	}
	return pos, err
}

// loadBuckets reads the tuples up to None.
func (l *indexLoader) loadBuckets(p *pickleReader) error {
	for {
		v, err := p.load()
		if err != nil {
			return err
		}
		if v == nil {
			return nil
		}
		if err := l.loadPair(v); err != nil {
			return err
		}
	}
}

// loadPair adds the objects of one tuple (prefix, bucket).
func (l *indexLoader) loadPair(v any) error {
	pair, ok := v.(pickleTuple)
	if !ok || len(pair) != 2 {
		return errIndexFile
	}
	text, ok := pair[0].(string)
	if !ok || len(text) != filePrefixLen {
		return errIndexFile
	}
	prefix := uint64(position48(text))
	if prefix < l.next {
		return fmt.Errorf("%w: its prefixes are not in order", errIndexFile)
	}
	l.next = prefix + 1
	switch bucket := pair[1].(type) {
	case string:
		if len(bucket)%fileEntryLen != 0 {
			return errIndexFile
		}
		return l.addBucket(prefix, []byte(bucket))
	case pickleSpan:
		if bucket.n%fileEntryLen != 0 {
			return errIndexFile
		}
		return l.leaveBucket(prefix, bucket)
	}
	return errIndexFile
}

var errOrder = fmt.Errorf("%w: its oids are not in order", errIndexFile)

// leaveBucket lets a bucket stay where it is.
func (l *indexLoader) leaveBucket(prefix uint64, s pickleSpan) error {
	if int64(int(s.off)) != s.off {
		return errors.ErrUnsupported // too long to be mapped
	}
	l.buckets = append(l.buckets, mappedBucket{prefix: prefix, off: int(s.off), n: s.n / fileEntryLen})
	return nil
}

// orderWorkers is how many goroutines check the order of oids at most.
const orderWorkers = 4

// checkOrder checks the order of the oids in the buckets that stay in the file. It
// is most of the work of opening.
func (l *indexLoader) checkOrder() error {
	var next atomic.Int64
	var failure atomic.Pointer[error]
	work := func() {
		var suffixes []byte
		for failure.Load() == nil {
			i := int(next.Add(1)) - 1
			if i >= len(l.buckets) {
				return
			}
			b := &l.buckets[i]
			suffixes = slices.Grow(suffixes[:0], fileSuffixLen*b.n)[:fileSuffixLen*b.n]
			_, err := l.file.ReadAt(suffixes, int64(b.off))
			if err == nil && !inOrder(suffixes) {
				err = errOrder
			}
			if err != nil {
				err = unexpectedEOF(err)
				failure.Store(&err)
			}
		}
	}
	var wg sync.WaitGroup
	for range min(orderWorkers, runtime.GOMAXPROCS(0), len(l.buckets)) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	if err := failure.Load(); err != nil {
		return *err
	}
	return nil
}

// inOrder says whether each of the 2-byte numbers in b is larger than the one
// before.
func inOrder(b []byte) bool {
	const (
		four         = 4 * fileSuffixLen
		plus4        = 0x0004_0004_0004_0004
		fullSuffixes = fileSuffixLen << (8 * fileSuffixLen)
	)
	if len(b) == fullSuffixes {
		return bytes.Equal(b, allSuffixes()) // several times as fast
	}
	last := -1
	var expected uint64
	for ; len(b) >= four; b = b[four:] {
		// Mostly there are no gaps: four numbers that are each 4 more than
		// those before, and did not overflow.
		v := binary.BigEndian.Uint64(b)
		if v != expected || uint16(v) <= 3 {
			for i := 48; i >= 0; i -= 16 {
				n := int(uint16(v >> i))
				if n <= last {
					return false
				}
				last = n
			}
		}
		last = int(uint16(v))
		expected = v + plus4
	}
	for ; len(b) >= fileSuffixLen; b = b[fileSuffixLen:] {
		n := int(binary.BigEndian.Uint16(b))
		if n <= last {
			return false
		}
		last = n
	}
	return true
}

// allSuffixes are those of a full bucket, in order.
var allSuffixes = sync.OnceValue(func() []byte {
	b := make([]byte, 0, fileSuffixLen<<(8*fileSuffixLen))
	for i := range 1 << (8 * fileSuffixLen) {
		b = binary.BigEndian.AppendUint16(b, uint16(i))
	}
	return b
})

// addBucket adds the objects of a bucket of the file: the buckets of the index
// that lie in it, one after the other.
func (l *indexLoader) addBucket(prefix uint64, bucket []byte) error {
	n := len(bucket) / fileEntryLen
	suffixes, positions := bucket[:fileSuffixLen*n], bucket[fileSuffixLen*n:]
	if !inOrder(suffixes) {
		return errOrder
	}
	suffix := func(i int) uint64 { return uint64(binary.BigEndian.Uint16(suffixes[fileSuffixLen*i:])) }
	var entries []uint64
	for i := 0; i < n; {
		part := suffix(i) >> suffixBits
		entries = entries[:0]
		for ; i < n && suffix(i)>>suffixBits == part; i++ {
			entries = append(entries, suffix(i)<<(64-suffixBits)|uint64(position48(positions[filePositionLen*i:])))
		}
		l.x.addBucket(prefix<<partBits|part, entries)
	}
	return nil
}

// position48 reads a 6-byte number.
func position48[T string | []byte](s T) int64 {
	_ = s[filePositionLen-1]
	return int64(s[0])<<40 | int64(s[1])<<32 | int64(s[2])<<24 | int64(s[3])<<16 | int64(s[4])<<8 | int64(s[5])
}

// loadOldForm reads the index of the older form: a dict from oids to
// positions, or a pickled fsIndex object.
func (l *indexLoader) loadOldForm(v any) error {
	switch v := v.(type) {
	case pickleDict:
		for key, value := range v {
			oid, err := zeolite.OIDFromBytes([]byte(key.(string)))
			pos, ok := value.(int64)
			if err != nil || !ok || pos < 0 || pos > filePositionMax {
				return errIndexFile
			}
			l.x.set(oid, pos)
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
			if err := l.loadPair(pair); err != nil {
				return err
			}
		}
		return nil
	}
	return errIndexFile
}

// readFile reads a file into memory.
func readFile(f io.ReaderAt, size int64) ([]byte, error) {
	if int64(int(size)) != size {
		return nil, fmt.Errorf("%w: %d bytes do not fit into memory", errIndexFile, size)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, unexpectedEOF(err)
	}
	return b, nil
}
