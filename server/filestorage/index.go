package filestorage

import (
	"iter"
	"slices"
	"sync"

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
// object far from all others costs its bucket, about 80 bytes.
type index struct {
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
	count   int
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

// get returns the position of the newest record of oid.
func (x *index) get(oid zeolite.OID) (pos int64, ok bool) {
	prefix, suffix := uint64(oid)>>suffixBits, uint64(oid)&suffixMask
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
	e := entry(suffix, pos)
	sh := x.shard(prefix)
	sh.Lock()
	bucket, known := sh.buckets[prefix]
	i, ok := find(bucket, suffix)
	if ok {
		bucket[i] = e
		sh.Unlock()
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
	bucket[i] = e
	sh.buckets[prefix] = bucket
	sh.count++
	sh.Unlock()
	if !known {
		x.order.Lock()
		x.order.fresh = append(x.order.fresh, prefix)
		x.order.Unlock()
	}
}

// entry packs an oid, of which only the low bits count, and a position.
func entry(oid uint64, pos int64) uint64 { return oid<<(64-suffixBits) | uint64(pos) }

// setSorted stores objects of the bucket prefix: their entries in order, none
// twice. The slice belongs to the index then.
func (x *index) setSorted(prefix uint64, entries []uint64) {
	sh := x.shard(prefix)
	sh.Lock()
	if _, known := sh.buckets[prefix]; known {
		sh.Unlock()
		for _, e := range entries {
			x.set(zeolite.OID(prefix<<suffixBits|e>>(64-suffixBits)), int64(e&positionMax))
		}
		return
	}
	sh.buckets[prefix] = entries
	sh.count += len(entries)
	sh.Unlock()
	x.order.Lock()
	x.order.fresh = append(x.order.fresh, prefix)
	x.order.Unlock()
}

// remove forgets oid, if it is known.
func (x *index) remove(oid zeolite.OID) {
	prefix, suffix := uint64(oid)>>suffixBits, uint64(oid)&suffixMask
	sh := x.shard(prefix)
	sh.Lock()
	defer sh.Unlock()
	bucket := sh.buckets[prefix]
	if i, ok := find(bucket, suffix); ok {
		sh.buckets[prefix] = slices.Delete(bucket, i, i+1)
		sh.count--
	}
}

// len returns the number of objects.
func (x *index) len() int {
	n := 0
	for i := range x.shards {
		sh := &x.shards[i]
		sh.RLock()
		n += sh.count
		sh.RUnlock()
	}
	return n
}

// next returns the smallest oid that is at least from.
func (x *index) next(from zeolite.OID) (oid zeolite.OID, pos int64, ok bool) {
	prefix, suffix := uint64(from)>>suffixBits, uint64(from)&suffixMask
	for {
		sh := x.shard(prefix)
		sh.RLock()
		bucket := sh.buckets[prefix]
		if i, _ := find(bucket, suffix); i < len(bucket) {
			entry := bucket[i]
			sh.RUnlock()
			return zeolite.OID(prefix<<suffixBits | entry>>(64-suffixBits)), int64(entry & positionMax), true
		}
		sh.RUnlock()
		if prefix, ok = x.prefixAfter(prefix); !ok {
			return 0, 0, false
		}
		suffix = 0
	}
}

// max returns the largest oid.
func (x *index) max() (zeolite.OID, bool) {
	for _, prefix := range slices.Backward(x.prefixes()) {
		sh := x.shard(prefix)
		sh.RLock()
		bucket := sh.buckets[prefix]
		if n := len(bucket); n > 0 {
			entry := bucket[n-1]
			sh.RUnlock()
			return zeolite.OID(prefix<<suffixBits | entry>>(64-suffixBits)), true
		}
		sh.RUnlock()
	}
	return 0, false
}

// all yields every object with its position, in oid order. Objects that are
// set meanwhile may appear with their old or their new position, or, if they
// are new, not at all.
func (x *index) all() iter.Seq2[zeolite.OID, int64] {
	return func(yield func(zeolite.OID, int64) bool) {
		var copied []uint64
		for _, prefix := range x.prefixes() {
			sh := x.shard(prefix)
			sh.RLock()
			copied = append(copied[:0], sh.buckets[prefix]...)
			sh.RUnlock()
			for _, entry := range copied {
				if !yield(zeolite.OID(prefix<<suffixBits|entry>>(64-suffixBits)), int64(entry&positionMax)) {
					return
				}
			}
		}
	}
}

func (x *index) prefixAfter(prefix uint64) (uint64, bool) {
	sorted := x.prefixes()
	i, found := slices.BinarySearch(sorted, prefix)
	if found {
		i++
	}
	if i == len(sorted) {
		return 0, false
	}
	return sorted[i], true
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
