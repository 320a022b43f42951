package zrpc

import (
	"sync"
	"testing"
)

func TestBuffers(t *testing.T) {
	for _, n := range []int{0, 1, 511, 512, 513, 4 << 10, 4<<10 + 1, 16 << 10, 72 << 10, 72<<10 + 1, 1 << 20, 1<<20 + 1, 5 << 20} {
		b := GetBuffer(n)
		if len(b.B) != n {
			t.Errorf("asked for %d bytes, got %d", n, len(b.B))
		}
		if n > 1<<20 && cap(b.B) > 2*n {
			t.Errorf("%d bytes cost %d", n, cap(b.B))
		}
		if pooled := b.class >= 0; pooled != (n <= 1<<20) {
			t.Errorf("%d bytes: pooled %v", n, pooled)
		}
		for i := range b.B {
			b.B[i] = 0xff
		}
		b.Release()
	}
	(*Buffer)(nil).Release()
}

// TestBuffersHaveOneOwner has many goroutines write to their buffers.
func TestBuffersHaveOneOwner(t *testing.T) {
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				b := GetBuffer(100 + i*100%5000)
				for k := range b.B {
					b.B[k] = byte(g)
				}
				for k := range b.B {
					if b.B[k] != byte(g) {
						t.Errorf("somebody else wrote %d into the buffer of %d", b.B[k], g)
						return
					}
				}
				b.Release()
			}
		})
	}
	wg.Wait()
}
