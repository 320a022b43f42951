package filestorage

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// The index does what a map does, in order.
func TestIndexIsAMap(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		x, model := newIndex(), map[zeolite.OID]int64{}
		limit := []uint64{100, 5000, 1 << 20, 1 << 62}[seed%4]
		for range 5000 {
			oid, pos := zeolite.OID(rnd.Uint64N(limit)), rnd.Int64N(positionMax)
			x.set(oid, pos)
			model[oid] = pos
			if rnd.IntN(50) == 0 {
				x.next(0) // sorts new buckets in
			}
		}
		if x.len() != len(model) {
			t.Fatalf("seed %d: len is %d, want %d", seed, x.len(), len(model))
		}
		oids := slices.Sorted(maps.Keys(model))
		i := 0
		for oid, pos := range x.all() {
			if oid != oids[i] || pos != model[oid] {
				t.Fatalf("seed %d: all yields %v at %d, want %v at %d", seed, oid, pos, oids[i], model[oids[i]])
			}
			i++
		}
		for range 1000 {
			from := zeolite.OID(rnd.Uint64N(limit))
			j, found := slices.BinarySearch(oids, from)
			if pos, ok := x.get(from); ok != found || ok && pos != model[from] {
				t.Fatalf("seed %d: get(%v) is %d, %v", seed, from, pos, ok)
			}
			oid, pos, ok := x.next(from)
			if ok != (j < len(oids)) || ok && (oid != oids[j] || pos != model[oid]) {
				t.Fatalf("seed %d: next(%v) is %v, %d, %v", seed, from, oid, pos, ok)
			}
		}
		if newest, _ := x.max(); newest != oids[len(oids)-1] {
			t.Fatalf("seed %d: max is %v", seed, newest)
		}
	}
	if _, ok := newIndex().max(); ok {
		t.Error("an empty index has a largest oid")
	}
}

func TestIndexReadersAndWriter(t *testing.T) {
	x := newIndex()
	const n = 20000
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for oid := zeolite.OID(0); oid < n; {
				if pos, ok := x.get(oid); ok {
					if pos != int64(oid)*10 {
						t.Errorf("get(%v) is %d", oid, pos)
						return
					}
					oid++
				} else {
					runtime.Gosched()
				}
			}
			last := zeolite.OID(0)
			for oid := range x.all() {
				if oid < last {
					t.Errorf("%v after %v", oid, last)
				}
				last = oid
			}
		})
	}
	for oid := range zeolite.OID(n) {
		x.set(oid, int64(oid)*10)
	}
	wg.Wait()
}

// heapOf measures what build allocates and keeps.
func heapOf[T any](build func() T) (T, uint64) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	v := build()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return v, after.HeapAlloc - before.HeapAlloc
}

func TestIndexMemory(t *testing.T) {
	const n = 1 << 18
	build := func(oid func(i uint64) uint64) func() *index {
		return func() *index {
			x := newIndex()
			for i := range uint64(n) {
				x.set(zeolite.OID(oid(i)), int64(i))
			}
			return x
		}
	}
	for _, c := range []struct {
		name  string
		oid   func(i uint64) uint64
		limit float64
	}{
		{"dense", func(i uint64) uint64 { return i }, 12},
		{"every third", func(i uint64) uint64 { return 3 * i }, 14},
		{"one in a bucket", func(i uint64) uint64 { return i << suffixBits }, 160},
	} {
		x, bytes := heapOf(build(c.oid))
		per := float64(bytes) / n
		t.Logf("%s: %.1f bytes an object", c.name, per)
		if per > c.limit {
			t.Errorf("%s: %.1f bytes an object, more than %v", c.name, per, c.limit)
		}
		runtime.KeepAlive(x)
	}
}

func BenchmarkIndexGet(b *testing.B) {
	x := newIndex()
	const n = 1 << 20
	for oid := range zeolite.OID(n) {
		x.set(oid, int64(oid))
	}
	b.RunParallel(func(pb *testing.PB) {
		rnd := rand.New(rand.NewPCG(1, rand.Uint64()))
		for pb.Next() {
			x.get(zeolite.OID(rnd.Uint64N(n)))
		}
	})
}

func BenchmarkIndexSet(b *testing.B) {
	x := newIndex()
	for i := range b.N {
		x.set(zeolite.OID(i), int64(i))
	}
}

// sequence yields n objects that were created one after the other, at places
// that fit records of a few hundred bytes.
func sequence(n int) iter.Seq2[zeolite.OID, int64] {
	return func(yield func(zeolite.OID, int64) bool) {
		for i := range n {
			if !yield(zeolite.OID(i), magicLen+300*int64(i)) {
				return
			}
		}
	}
}

// How long it takes to read a saved index, and how much memory an object needs
// in what comes of it.
func BenchmarkIndexLoad(b *testing.B) {
	for _, n := range []int{1e6, 1e7} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			name := filepath.Join(b.TempDir(), "Data.fs.index")
			if _, err := saveIndexFile(OSFileSystem{}, name, sequence(n), 1<<40); err != nil {
				b.Fatal(err)
			}
			var perObject float64
			for b.Loop() {
				b.StopTimer()
				x, heap := heapOf(func() *index {
					b.StartTimer()
					x, _, err := loadIndexFile(name)
					b.StopTimer()
					if err != nil || x.len() != n {
						b.Fatal(x.len(), err)
					}
					return x
				})
				perObject = float64(heap) / float64(n)
				runtime.KeepAlive(x)
				b.StartTimer()
			}
			b.ReportMetric(perObject, "bytes/object")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/object")
		})
	}
}
