package filestorage

import (
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/zeolite-go/zeolite"
)

const (
	// An entry packs the low bits of an oid above a file position, so that
	// entries of one bucket sort by oid: 8 bytes for an object.
	suffixBits  = 12
	positionMax = 1<<(64-suffixBits) - 1
	suffixMask  = 1<<suffixBits - 1

	indexShards = 64
)

// index maps each object to the file position of its newest record. It may be
// used by any number of goroutines at once.
//
// Objects are kept in buckets of 4096 neighbouring oids, each a sorted slice
// of entries without any pointers. Oids are handed out one after the other, so
// buckets fill up densely and cost little more than 8 bytes an object; an
// object far from all others costs its bucket, about 100 bytes.
//
// What was read from an index file stays as it is there (mapped.go) until it is
// to change: then its bucket is copied to the others.
type index struct {
	mapped *mappedIndex // set before others use the index
	added  atomic.Int64 // objects that mapped has not, and had not
	shards [indexShards]indexShard

	// order knows the buckets in oid order, for iteration. Prefixes arrive
	// in fresh and are sorted in when somebody iterates.
	order struct {
		sync.Mutex
		sorted, fresh []uint64
	}
}

type indexShard struct {
	sync.RWMutex
	buckets map[uint64][]uint64
	_       [64]byte // keeps neighbours' locks off this cache line
}

func newIndex() *index {
	x := &index{}
	for i := range x.shards {
		x.shards[i].buckets = make(map[uint64][]uint64)
	}
	return x
}

func (x *index) shard(prefix uint64) *indexShard { return &x.shards[prefix%indexShards] }

// find returns where suffix is in bucket, or where it would be.
func find(bucket []uint64, suffix uint64) (int, bool) {
	// In a bucket without gaps the suffix is the place.
	if suffix < uint64(len(bucket)) && bucket[suffix]>>(64-suffixBits) == suffix {
		return int(suffix), true
	}
	i, _ := slices.BinarySearch(bucket, suffix<<(64-suffixBits))
	return i, i < len(bucket) && bucket[i]>>(64-suffixBits) == suffix
}

// get returns the position of the newest record of oid; or unreadable, if what
// is in an index file cannot be read any more.
func (x *index) get(oid zeolite.OID) (pos int64, ok bool) {
	prefix, suffix := uint64(oid)>>suffixBits, uint64(oid)&suffixMask
	if b := x.mapped.bucket(prefix); b.has(prefix) {
		return x.mapped.get(b, int(uint16(oid)))
	}
	sh := x.shard(prefix)
	sh.RLock()
	bucket := sh.buckets[prefix]
	if i, ok := find(bucket, suffix); ok {
		pos = int64(bucket[i] & positionMax)
		sh.RUnlock()
		return pos, true
	}
	sh.RUnlock()
	return 0, false
}

// set stores the position of the newest record of oid; pos must be in
// 0..positionMax.
func (x *index) set(oid zeolite.OID, pos int64) {
	prefix, suffix := uint64(oid)>>suffixBits, uint64(oid)&suffixMask
	entry := suffix<<(64-suffixBits) | uint64(pos)
	sh := x.shard(prefix)
	sh.Lock()
	defer sh.Unlock()
	bucket, known := x.own(sh, prefix)
	i, ok := find(bucket, suffix)
	if ok {
		bucket[i] = entry
		return
	}
	if len(bucket) == cap(bucket) {
		// Slack counts with many millions of objects: grow by a quarter.
		grown := make([]uint64, len(bucket), min(len(bucket)+len(bucket)/4+1, suffixMask+1))
		copy(grown, bucket)
		bucket = grown
	}
	bucket = bucket[:len(bucket)+1]
	copy(bucket[i+1:], bucket[i:])
	bucket[i] = entry
	x.added.Add(1)
	if known {
		sh.buckets[prefix] = bucket
	} else {
		x.add(sh, prefix, bucket)
	}
}

// own returns a bucket to write to, if there is one. The caller holds the lock of
// its shard.
func (x *index) own(sh *indexShard, prefix uint64) (bucket []uint64, known bool) {
	if bucket, known = sh.buckets[prefix]; known {
		return bucket, true
	}
	b := x.mapped.bucket(prefix)
	if b == nil {
		return nil, false
	}
	bucket, _ = x.mapped.appendTo(nil, b, prefix)
	x.move(sh, b, prefix, bucket)
	return bucket, true
}

// move puts a copy of a bucket in the place of that in the file. The caller holds the
// lock of its shard.
func (x *index) move(sh *indexShard, b *mappedBucket, prefix uint64, bucket []uint64) {
	x.add(sh, prefix, bucket)
	// Who does not find it there any more must find it here.
	b.setMoved(prefix)
}

// inFile says whether the bucket of oid is still to be copied from the file before it
// can be written to, which may take reads from the disk.
func (x *index) inFile(oid zeolite.OID) bool {
	prefix := uint64(oid) >> suffixBits
	return x.mapped.bucket(prefix).has(prefix)
}

// expect copies the bucket of oid from the file, if it is still there, so that set
// need not. If not all of it can be read it stays there: as long as nothing is set, no
// object that can be found has to be given up for its neighbours.
func (x *index) expect(oid zeolite.OID) {
	if !x.inFile(oid) {
		return
	}
	prefix := uint64(oid) >> suffixBits
	sh, b := x.shard(prefix), x.mapped.bucket(prefix)
	sh.Lock()
	defer sh.Unlock()
	if !b.has(prefix) {
		return // somebody else has copied it
	}
	if bucket, ok := x.mapped.appendTo(nil, b, prefix); ok {
		x.move(sh, b, prefix, bucket)
	}
}

// add adds a new bucket. The caller holds the lock of its shard.
func (x *index) add(sh *indexShard, prefix uint64, bucket []uint64) {
	sh.buckets[prefix] = bucket
	x.order.Lock()
	x.order.fresh = append(x.order.fresh, prefix)
	x.order.Unlock()
}

// mark sets a bit in the position of oid and returns what it was.
func (x *index) mark(oid zeolite.OID, bit int64) (pos int64, ok bool) {
	prefix, suffix := uint64(oid)>>suffixBits, uint64(oid)&suffixMask
	sh := x.shard(prefix)
	sh.Lock()
	defer sh.Unlock()
	bucket, _ := x.own(sh, prefix)
	i, ok := find(bucket, suffix)
	if !ok {
		return 0, false
	}
	pos = int64(bucket[i] & positionMax)
	bucket[i] |= uint64(bit)
	return pos, true
}

// addBucket adds a whole bucket, in the order of its oids, of which nothing is
// known yet. The entries are copied.
func (x *index) addBucket(prefix uint64, entries []uint64) {
	bucket := make([]uint64, len(entries))
	copy(bucket, entries)
	sh := x.shard(prefix)
	sh.Lock()
	defer sh.Unlock()
	x.add(sh, prefix, bucket)
	x.added.Add(int64(len(entries)))
}

// remove forgets oid, if it is known.
func (x *index) remove(oid zeolite.OID) {
	prefix, suffix := uint64(oid)>>suffixBits, uint64(oid)&suffixMask
	sh := x.shard(prefix)
	sh.Lock()
	defer sh.Unlock()
	bucket, _ := x.own(sh, prefix)
	if i, ok := find(bucket, suffix); ok {
		sh.buckets[prefix] = slices.Delete(bucket, i, i+1)
		x.added.Add(-1)
	}
}

// len returns the number of objects.
func (x *index) len() int {
	n := int(x.added.Load())
	if x.mapped != nil {
		n += x.mapped.objects
	}
	return n
}

// next returns the smallest oid that is at least from.
func (x *index) next(from zeolite.OID) (oid zeolite.OID, pos int64, ok bool) {
	for prefix, suffix := uint64(from)>>suffixBits, uint64(from)&suffixMask; ; suffix = 0 {
		if suffix, pos, ok = x.nextIn(prefix, suffix); ok {
			return zeolite.OID(prefix<<suffixBits | suffix), pos, true
		}
		if prefix, ok = x.prefixFrom(prefix + 1); !ok {
			return 0, 0, false
		}
	}
}

// nextIn returns the first object of a bucket with at least that suffix.
func (x *index) nextIn(prefix, suffix uint64) (found uint64, pos int64, ok bool) {
	if b := x.mapped.bucket(prefix); b.has(prefix) {
		i, pos, ok := x.mapped.next(b, partStart(prefix)|int(suffix))
		return uint64(i) & suffixMask, pos, ok
	}
	sh := x.shard(prefix)
	sh.RLock()
	defer sh.RUnlock()
	bucket := sh.buckets[prefix]
	i, _ := find(bucket, suffix)
	if i == len(bucket) {
		return 0, 0, false
	}
	return bucket[i] >> (64 - suffixBits), int64(bucket[i] & positionMax), true
}

// max returns the largest oid.
func (x *index) max() (zeolite.OID, bool) {
	newest, ok := x.mapped.last()
	for _, prefix := range slices.Backward(x.prefixes()) {
		sh := x.shard(prefix)
		sh.RLock()
		bucket := sh.buckets[prefix]
		n := len(bucket)
		if n > 0 {
			newest, ok = max(newest, prefix<<suffixBits|bucket[n-1]>>(64-suffixBits)), true
		}
		sh.RUnlock()
		if n > 0 {
			break
		}
	}
	return zeolite.OID(newest), ok
}

// all yields every object with its position, in oid order. Objects that are
// set meanwhile may appear with their old or their new position, or, if they
// are new, not at all.
func (x *index) all() iter.Seq2[zeolite.OID, int64] {
	return func(yield func(zeolite.OID, int64) bool) {
		var copied []uint64
		for prefix, ok := x.prefixFrom(0); ok; prefix, ok = x.prefixFrom(prefix + 1) {
			copied = x.appendTo(copied[:0], prefix)
			for oid, pos := range entriesOf(prefix, copied) {
				if !yield(oid, pos) {
					return
				}
			}
		}
	}
}

// entriesOf yields the objects of a bucket.
func entriesOf(prefix uint64, entries []uint64) iter.Seq2[zeolite.OID, int64] {
	return func(yield func(zeolite.OID, int64) bool) {
		for _, entry := range entries {
			if !yield(zeolite.OID(prefix<<suffixBits|entry>>(64-suffixBits)), int64(entry&positionMax)) {
				return
			}
		}
	}
}

// appendTo appends the entries of a bucket.
func (x *index) appendTo(entries []uint64, prefix uint64) []uint64 {
	if b := x.mapped.bucket(prefix); b.has(prefix) {
		entries, _ = x.mapped.appendTo(entries, b, prefix)
		return entries
	}
	sh := x.shard(prefix)
	sh.RLock()
	defer sh.RUnlock()
	return append(entries, sh.buckets[prefix]...)
}

// prefixFrom returns the first bucket whose prefix is at least that.
func (x *index) prefixFrom(prefix uint64) (found uint64, ok bool) {
	// In this order: a bucket may be copied between the two.
	found, ok = x.mapped.prefixFrom(prefix)
	sorted := x.prefixes()
	if i, _ := slices.BinarySearch(sorted, prefix); i < len(sorted) && !(ok && found < sorted[i]) {
		found, ok = sorted[i], true
	}
	return found, ok
}

// prefixes returns the prefixes of all buckets in order. The slice is shared:
// it is replaced, never changed, when buckets are added.
func (x *index) prefixes() []uint64 {
	o := &x.order
	o.Lock()
	defer o.Unlock()
	if len(o.fresh) > 0 {
		slices.Sort(o.fresh)
		if n := len(o.sorted); n == 0 || o.fresh[0] > o.sorted[n-1] {
			// The usual case. Appending past the end is not seen by those
			// who hold the shorter slice.
			o.sorted = append(o.sorted, o.fresh...)
		} else {
			merged := make([]uint64, 0, n+len(o.fresh))
			merged = append(append(merged, o.sorted...), o.fresh...)
			slices.Sort(merged)
			o.sorted = merged
		}
		o.fresh = nil
	}
	return o.sorted
}
