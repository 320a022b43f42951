package zrpc

import "sync"

// Buffer is a byte slice from a pool. It has one owner at a time, who may pass
// it on and who releases it once.
type Buffer struct {
	B     []byte
	class int8
}

// bufferClasses are the capacities that are pooled. A larger buffer is left to
// the garbage collector, so that one huge record does not stay around.
var bufferClasses = [...]int{512, 4 << 10, 16 << 10, 72 << 10, 1 << 20}

var bufferPools [len(bufferClasses)]sync.Pool

// GetBuffer returns a buffer with len(B) == n and undefined content.
func GetBuffer(n int) *Buffer {
	for i, size := range bufferClasses {
		if n <= size {
			if b, ok := bufferPools[i].Get().(*Buffer); ok {
				b.B = b.B[:n]
				return b
			}
			return &Buffer{B: make([]byte, n, size), class: int8(i)}
		}
	}
	return &Buffer{B: make([]byte, n), class: -1}
}

// Release gives the buffer back. Releasing nil does nothing.
func (b *Buffer) Release() {
	if b == nil || b.class < 0 {
		return
	}
	bufferPools[b.class].Put(b)
}
