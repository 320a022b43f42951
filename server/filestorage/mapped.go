package filestorage

import (
	"encoding/binary"
	"runtime"
	"runtime/debug"
	"sort"
	"sync/atomic"

	"github.com/zeolite-go/zeolite"
)

// mappedIndex is the part of an index that is still as it was saved: the large
// buckets of Data.fs.index, looked up where they lie in the file. So opening
// does not take the longer the more objects there are, and what is not looked
// up takes no memory. An index copies from it what it is about to change, a
// bucket of its own size at a time, and from then on does not ask here for that
// any more. It may be used by any number of goroutines at once, and by each
// without a lock; nil is one without buckets.
//
// The file is mapped into memory. This relies on nobody writing to an index file
// once it has its name: Python, too, writes another one and renames it, and a
// file that was replaced or removed stays as it was for who has mapped it. If
// somebody does write to it, or the disk cannot be read any more, there may be
// anything in it: a position is only ever a hint, and the record there is
// compared with the object (generation.readHeader). If the memory cannot be
// read at all (the file was cut short, the disk fails), what is asked for is said to
// be at the position unreadable.
type mappedIndex struct {
	data    []byte         // of the file
	buckets []mappedBucket // in the order of their prefixes, none empty
	objects int
}

// mappedBucket are the objects whose oids begin with the same 48 bits: n
// suffixes of 16 bits in order, then n positions of 48 bits.
type mappedBucket struct {
	prefix uint64
	off, n int // in data, of the suffixes
	// moved has a bit for each bucket of index that lies in this one: whether
	// it has been copied.
	moved atomic.Uint32
}

const (
	// unreadable is the position of an object if the index cannot be read. No
	// file is that long, and it does not fit into an index file.
	unreadable = positionMax

	// A mapped bucket is 16 buckets of index.
	partBits = 8*fileSuffixLen - suffixBits
	partMask = 1<<partBits - 1
)

var errUnreadable = &zeolite.StorageError{Message: "the saved index, Data.fs.index, cannot be read any more; " +
	"remove it, and start the server again"}

// newMappedIndex takes a mapped file, and its buckets. unmap is called when it
// is not used any more.
func newMappedIndex(data []byte, buckets []mappedBucket, unmap func([]byte)) *mappedIndex {
	m := &mappedIndex{data: data, buckets: buckets}
	for i := range buckets {
		m.objects += buckets[i].n
	}
	if unmap != nil {
		runtime.AddCleanup(m, unmap, data)
	}
	return m
}

// bucket returns the bucket that has the oids of a bucket of index, or had them
// before they were copied; nil if there is none.
func (m *mappedIndex) bucket(prefix uint64) *mappedBucket {
	if m == nil {
		return nil
	}
	// Where there are no gaps the prefix says the place.
	want := prefix >> partBits
	if i := want - m.buckets[0].prefix; i < uint64(len(m.buckets)) && m.buckets[i].prefix == want {
		return &m.buckets[i]
	}
	if i := m.from(want); i < len(m.buckets) && m.buckets[i].prefix == want {
		return &m.buckets[i]
	}
	return nil
}

// from returns the place of the first bucket whose prefix is at least that.
func (m *mappedIndex) from(prefix uint64) int {
	return sort.Search(len(m.buckets), func(i int) bool { return m.buckets[i].prefix >= prefix })
}

// has says whether a bucket of index is still here.
func (b *mappedBucket) has(prefix uint64) bool {
	return b != nil && b.moved.Load()&(1<<(prefix&partMask)) == 0
}

// setMoved says that a bucket of index has been copied.
func (b *mappedBucket) setMoved(prefix uint64) { b.moved.Or(1 << (prefix & partMask)) }

// partStart is the suffix with which a bucket of index begins.
func partStart(prefix uint64) int { return int(prefix&partMask) << suffixBits }

// read calls f, which may read the mapped memory. It fails if that cannot be
// read.
func (m *mappedIndex) read(f func()) (ok bool) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		runtime.KeepAlive(m) // and with it the mapping
		if !ok {
			r := recover()
			if _, fault := r.(interface{ Addr() uintptr }); !fault {
				panic(r)
			}
		}
	}()
	f()
	return true
}

// suffix and position are those of the object i of b. They are called by what
// read calls.
func (m *mappedIndex) suffix(b *mappedBucket, i int) int {
	return int(binary.BigEndian.Uint16(m.data[b.off+fileSuffixLen*i:]))
}

func (m *mappedIndex) position(b *mappedBucket, i int) int64 {
	// The two bytes before it are always there, and one read is faster.
	at := b.off + fileSuffixLen*b.n + filePositionLen*i
	return int64(binary.BigEndian.Uint64(m.data[at-2:]) & filePositionMax)
}

// search returns where the first object of b is whose suffix is at least that.
func (m *mappedIndex) search(b *mappedBucket, suffix int) int {
	if suffix < b.n && m.suffix(b, suffix) == suffix {
		return suffix // no gaps
	}
	low, high := 0, min(b.n, suffix)
	for low < high {
		i := int(uint(low+high) / 2)
		if m.suffix(b, i) < suffix {
			low = i + 1
		} else {
			high = i
		}
	}
	return low
}

// get returns the position of the object of b with that suffix.
func (m *mappedIndex) get(b *mappedBucket, suffix int) (pos int64, known bool) {
	if !m.read(func() {
		i := m.search(b, suffix)
		if known = i < b.n && m.suffix(b, i) == suffix; known {
			pos = m.position(b, i)
		}
	}) {
		return unreadable, true
	}
	return pos, known
}

// writeUnchanged writes the bucket of the file that has a bucket of index, if none
// of it was copied.
func (m *mappedIndex) writeUnchanged(w *indexWriter, prefix uint64) (done bool, err error) {
	b := m.bucket(prefix)
	if b == nil || b.moved.Load() != 0 {
		return false, nil
	}
	if !m.read(func() { w.addBucket(b.prefix, m.data[b.off:][:fileEntryLen*b.n]) }) {
		return false, errUnreadable
	}
	return true, nil
}

// next returns the first object of b with at least that suffix that belongs to
// the same bucket of index.
func (m *mappedIndex) next(b *mappedBucket, suffix int) (found int, pos int64, ok bool) {
	if !m.read(func() {
		i := m.search(b, suffix)
		if i == b.n {
			return
		}
		found, pos = m.suffix(b, i), m.position(b, i)
		ok = found>>suffixBits == suffix>>suffixBits
	}) {
		return suffix, unreadable, true
	}
	return found, pos, ok
}

// appendTo appends the objects of a bucket of index as that has them. If they cannot
// all be read, ok is false, and any that might be there is said to be unreadable.
func (m *mappedIndex) appendTo(entries []uint64, b *mappedBucket, prefix uint64) (all []uint64, ok bool) {
	n := len(entries)
	if m.read(func() {
		start := partStart(prefix)
		i, end := m.search(b, start), b.n
		if start+1<<suffixBits <= 0xffff {
			end = m.search(b, start+1<<suffixBits)
		}
		if cap(entries)-n < end-i {
			entries = append(make([]uint64, 0, n+end-i), entries...)
		}
		for ; i < end; i++ {
			entries = append(entries, uint64(m.suffix(b, i))<<(64-suffixBits)|uint64(m.position(b, i)))
		}
	}) {
		return entries, true
	}
	entries = entries[:n]
	for suffix := range uint64(suffixMask + 1) {
		entries = append(entries, suffix<<(64-suffixBits)|unreadable)
	}
	return entries, false
}

// prefixFrom returns the first bucket of index from prefix on that has objects
// here.
func (m *mappedIndex) prefixFrom(prefix uint64) (found uint64, ok bool) {
	if m == nil {
		return 0, false
	}
	for i := m.from(prefix >> partBits); i < len(m.buckets); i++ {
		b := &m.buckets[i]
		for prefix = max(prefix, b.prefix<<partBits); prefix>>partBits == b.prefix; prefix++ {
			if !b.has(prefix) {
				continue
			}
			if !m.read(func() {
				at := m.search(b, partStart(prefix))
				if ok = at < b.n; ok {
					found = b.prefix<<partBits | uint64(m.suffix(b, at)>>suffixBits)
				}
			}) {
				return prefix, true
			}
			if !ok {
				break
			}
			if found == prefix {
				return found, true
			}
			prefix = max(prefix, found-1) // which may have been copied
		}
	}
	return 0, false
}

// last returns the largest oid that is still here.
func (m *mappedIndex) last() (oid uint64, ok bool) {
	if m == nil {
		return 0, false
	}
	for i := len(m.buckets) - 1; i >= 0; i-- {
		b := &m.buckets[i]
		for part := partMask; part >= 0; part-- {
			prefix := b.prefix<<partBits | uint64(part)
			if !b.has(prefix) {
				continue
			}
			end := partStart(prefix) + suffixMask
			suffix := -1
			if !m.read(func() {
				at := b.n
				if end < 0xffff {
					at = m.search(b, end+1)
				}
				if at > 0 {
					suffix = m.suffix(b, at-1)
				}
			}) {
				suffix = end
			}
			if suffix>>suffixBits == part {
				return b.prefix<<(8*fileSuffixLen) | uint64(suffix), true
			}
		}
	}
	return 0, false
}
