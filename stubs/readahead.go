package stubs

import (
	"io"
	"sync"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// readAhead opens a blob and, unless it is a file, reads it one chunk ahead of
// the connection's writing goroutine, in goroutines of its own: neither a slow
// database nor a slow disk must hold up what else the connection has to send.
// There is never more than one such goroutine, and none while the chunk waits to
// be taken. Its methods are called by the writing goroutine.
type readAhead struct {
	open func() (zeolite.Blob, error)
	from int64  // where to begin
	wake func() // tells the writing goroutine to ask again

	mu     sync.Mutex // guards what follows
	asked  bool       // open was called
	busy   bool       // a goroutine opens or reads
	closed bool
	blob   zeolite.Blob
	chunks chunks // of a blob that is a file
	err    error
	off    int64 // where next begins
	next   *zrpc.Buffer
	n      int // bytes in next, zero until they are there
	taken  *zrpc.Buffer
}

// opened returns nil when the blob is open, zrpc.ErrNotReady while it is being
// opened, and else why it cannot be.
func (r *readAhead) opened() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.asked:
		r.asked, r.busy = true, true
		go r.openBlob()
		return zrpc.ErrNotReady
	case r.busy && r.blob == nil:
		return zrpc.ErrNotReady
	case r.blob == nil:
		return r.err
	}
	return nil
}

func (r *readAhead) openBlob() {
	blob, err := r.open()
	r.mu.Lock()
	if err == nil && r.closed {
		r.mu.Unlock()
		blob.Close()
		return
	}
	r.busy = false
	r.err = err
	if err == nil {
		r.blob = blob
		r.chunks = newChunks(blob)
		r.chunks.off = r.from
		if r.chunks.file == nil {
			r.startReading()
		}
	}
	r.mu.Unlock()
	r.wake()
}

// startReading reads the next chunk, if there is one. It is called with mu held,
// and not busy.
func (r *readAhead) startReading() {
	n := min(r.blob.Size()-r.off, ChunkSize)
	if n <= 0 {
		return
	}
	if r.next == nil {
		r.next = zrpc.GetBuffer(ChunkSize)
	}
	r.busy = true
	go r.read(r.next.B[:n], r.off)
}

func (r *readAhead) read(p []byte, off int64) {
	n, err := r.blob.ReadAt(p, off)
	switch {
	case n == len(p):
		err = nil
	case err == nil || err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	r.mu.Lock()
	r.busy = false
	r.n, r.err = n, err
	if r.closed {
		r.release()
	}
	r.mu.Unlock()
	r.wake()
}

// take returns the next chunk as a body for m, valid until the next call, and false at
// the end; zrpc.ErrNotReady while it is being read.
func (r *readAhead) take(m *zrpc.Message) (zrpc.Body, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.chunks.file != nil:
		return r.chunks.next(m)
	case r.busy:
		return zrpc.Body{}, false, zrpc.ErrNotReady
	case r.err != nil:
		return zrpc.Body{}, false, r.err
	case r.n == 0:
		return zrpc.Body{}, false, nil
	}
	r.taken, r.next = r.next, r.taken
	body := zrpc.Body{Bytes: r.taken.B[:r.n], N: r.n}
	r.off += int64(r.n)
	r.n = 0
	r.startReading()
	return body, true, nil
}

// sent returns how many bytes were taken.
func (r *readAhead) sent() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.chunks.file != nil {
		return r.chunks.off - r.from
	}
	return r.off - r.from
}

// close closes the blob, or lets the goroutine that uses it do so.
func (r *readAhead) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if !r.busy {
		r.release()
	}
}

// release gives up everything. It is called with mu held, once.
func (r *readAhead) release() {
	r.next.Release()
	r.taken.Release()
	r.next, r.taken = nil, nil
	if r.blob != nil {
		r.blob.Close()
	}
}
