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

// indexModel is what an index should have.
type indexModel map[zeolite.OID]int64

// compare compares all of it, and what is at random places.
func (m indexModel) compare(t *testing.T, x *index, rnd *rand.Rand, limit uint64) {
	t.Helper()
	if x.len() != len(m) {
		t.Fatalf("len is %d, want %d", x.len(), len(m))
	}
	oids := slices.Sorted(maps.Keys(m))
	i := 0
	for oid, pos := range x.all() {
		if i == len(oids) || oid != oids[i] || pos != m[oid] {
			t.Fatalf("all yields %v at %d in place %d", oid, pos, i)
		}
		i++
	}
	if i != len(oids) {
		t.Fatalf("all yields %d objects, want %d", i, len(oids))
	}
	for range 1000 {
		from := zeolite.OID(rnd.Uint64N(limit))
		if len(oids) > 0 && rnd.IntN(2) == 0 {
			from = oids[rnd.IntN(len(oids))] + zeolite.OID(rnd.IntN(2))
		}
		j, found := slices.BinarySearch(oids, from)
		if pos, ok := x.get(from); ok != found || ok && pos != m[from] {
			t.Fatalf("get(%v) is %d, %v", from, pos, ok)
		}
		oid, pos, ok := x.next(from)
		if ok != (j < len(oids)) || ok && (oid != oids[j] || pos != m[oid]) {
			t.Fatalf("next(%v) is %v, %d, %v", from, oid, pos, ok)
		}
	}
	newest, ok := x.max()
	if ok != (len(oids) > 0) || ok && newest != oids[len(oids)-1] {
		t.Fatalf("max is %v, %v", newest, ok)
	}
}

// The index does what a map does, in order: also one that comes from a file, and
// one that comes from the file that was made of that.
func TestIndexIsAMap(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			x, model := newIndex(), indexModel{}
			limit := []uint64{100, 5000, 1 << 17, 1 << 20, 1 << 62}[seed%5]
			model.compare(t, x, rnd, limit)
			for life := range 4 {
				// Some lives change little, so that there is the old beside the new.
				for range []int{5000, 3, 300, 2000}[life] {
					oid, pos := zeolite.OID(rnd.Uint64N(limit)), rnd.Int64N(filePositionMax)
					switch rnd.IntN(50) {
					case 0:
						x.next(0) // sorts new buckets in
					case 1:
						x.remove(oid)
						delete(model, oid)
						continue
					case 2:
						const bit = 1 << 40
						was, ok := x.mark(oid, bit)
						if want, known := model[oid]; was != want || ok != known {
							t.Fatalf("mark(%v) is %d, %v", oid, was, ok)
						} else if known {
							model[oid] = want | bit
						}
						continue
					}
					x.set(oid, pos)
					model[oid] = pos
				}
				model.compare(t, x, rnd, limit)
				x = savedAndLoaded(t, x)
				model.compare(t, x, rnd, limit)
			}
		})
	}
}

// Who reads while others write finds what was there, or what is; and what was
// found once is not lost again.
func TestIndexReadersAndWriter(t *testing.T) {
	const n = 20000
	for _, saved := range []int{0, 100, n / 2, n} {
		t.Run(fmt.Sprint(saved), func(t *testing.T) {
			x := newIndex()
			for oid := range zeolite.OID(saved) {
				x.set(oid, int64(oid)*10+4)
			}
			x = savedAndLoaded(t, x)
			done := make(chan struct{})
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					for oid := zeolite.OID(0); oid < n; {
						if pos, ok := x.get(oid); ok {
							if pos != int64(oid)*10+4 && pos != int64(oid)*10+5 {
								t.Errorf("get(%v) is %d", oid, pos)
								return
							}
							oid++
						} else {
							if oid < zeolite.OID(saved) {
								t.Errorf("%v is not found", oid)
								return
							}
							runtime.Gosched()
						}
					}
				})
			}
			wg.Go(func() {
				for ended := false; !ended; {
					select {
					case <-done:
						ended = true
					default:
					}
					count, next := 0, zeolite.OID(0)
					for oid := range x.all() {
						// What is new may be missed.
						if count++; oid < next || oid > next && next < zeolite.OID(saved) {
							t.Errorf("%v after %d objects, want %v", oid, count-1, next)
							return
						}
						next = oid + 1
					}
					if count < saved || ended && count != n {
						t.Errorf("all yields %d objects", count)
					}
					if oid, _, ok := x.next(zeolite.OID(saved) / 2); saved > 0 && (!ok || oid != zeolite.OID(saved)/2) {
						t.Errorf("next is %v, %v", oid, ok)
					}
					if newest, _ := x.max(); int(newest) < saved-1 {
						t.Errorf("max is %v", newest)
					}
				}
			})
			// First what is new, then what was saved.
			for oid := zeolite.OID(saved); oid < n; oid++ {
				x.set(oid, int64(oid)*10+4)
			}
			for oid := range zeolite.OID(saved) {
				x.set(oid, int64(oid)*10+5)
				if pos, ok := x.get(oid); !ok || pos != int64(oid)*10+5 {
					t.Fatalf("get(%v) is %d, %v", oid, pos, ok)
				}
			}
			close(done)
			wg.Wait()
		})
	}
}

// savedAndLoaded is what comes of an index when it was in a file.
func savedAndLoaded(t testing.TB, x *index) *index {
	t.Helper()
	name := filepath.Join(t.TempDir(), "index")
	if _, err := saveIndexFile(OSFileSystem{}, name, filePositionMax, writes(x)); err != nil {
		t.Fatal(err)
	}
	x, _, err := loadIndexFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return x
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
	const n = 1 << 20
	x := newIndex()
	for oid := range zeolite.OID(n) {
		x.set(oid, int64(oid))
	}
	get := func(x *index) func(b *testing.B) {
		return func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				rnd := rand.New(rand.NewPCG(1, rand.Uint64()))
				for pb.Next() {
					x.get(zeolite.OID(rnd.Uint64N(n)))
				}
			})
		}
	}
	b.Run("saved", get(savedAndLoaded(b, x)))
	b.Run("changed", get(x))
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

// without yields the objects but for one in each n.
func without(n zeolite.OID, objects iter.Seq2[zeolite.OID, int64]) iter.Seq2[zeolite.OID, int64] {
	return func(yield func(zeolite.OID, int64) bool) {
		for oid, pos := range objects {
			if oid%n != n-1 && !yield(oid, pos) {
				return
			}
		}
	}
}

// How long it takes to read a saved index, of oids without gaps and with many, and
// how much memory an object needs in what comes of it: what is mapped is not counted.
func BenchmarkIndexLoad(b *testing.B) {
	for _, c := range []struct {
		name    string
		objects iter.Seq2[zeolite.OID, int64]
	}{
		{"1000000", sequence(1e6)},
		{"10000000", sequence(1e7)},
		{"gaps/9000000", without(10, sequence(1e7))},
	} {
		b.Run(c.name, func(b *testing.B) {
			name := filepath.Join(b.TempDir(), "Data.fs.index")
			if _, err := saveIndexFile(OSFileSystem{}, name, 1<<40, adds(c.objects)); err != nil {
				b.Fatal(err)
			}
			var perObject float64
			var n int
			for b.Loop() {
				b.StopTimer()
				x, heap := heapOf(func() *index {
					b.StartTimer()
					x, _, err := loadIndexFile(name)
					b.StopTimer()
					if err != nil {
						b.Fatal(err)
					}
					return x
				})
				n = x.len()
				perObject = float64(heap) / float64(n)
				runtime.KeepAlive(x)
				b.StartTimer()
			}
			b.ReportMetric(perObject, "bytes/object")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/object")
		})
	}
}

// Saving an index that has not changed, and one that has everywhere.
func BenchmarkIndexSave(b *testing.B) {
	x := newIndex()
	for oid, pos := range sequence(1e6) {
		x.set(oid, pos)
	}
	for name, x := range map[string]*index{"saved": savedAndLoaded(b, x), "changed": x} {
		b.Run(name, func(b *testing.B) {
			file := filepath.Join(b.TempDir(), "Data.fs.index")
			for b.Loop() {
				if _, err := saveIndexFile(OSFileSystem{}, file, 1<<40, writes(x)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
