package client

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/zeolite-go/zeolite"
)

// blobFlight is the download of a blob under way in this process. err may be
// read when done is closed.
type blobFlight struct {
	done chan struct{}
	err  error
}

// fetch brings a blob into the cache, or waits until somebody else has done so.
func (b *blobCache) fetch(ctx context.Context, k blobKey) error {
	b.mu.Lock()
	f := b.flights[k]
	if f == nil {
		f = &blobFlight{done: make(chan struct{})}
		b.flights[k] = f
		b.mu.Unlock()
		b.s.spawn(func() {
			f.err = b.bring(k)
			b.mu.Lock()
			delete(b.flights, k)
			b.mu.Unlock()
			close(f.done)
		})
	} else {
		b.mu.Unlock()
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return b.s.ctxErr(ctx)
	}
}

// bring downloads a blob, under the lock of its directory. Whoever waits for
// the lock finds the blob there afterwards.
func (b *blobCache) bring(k blobKey) error {
	// The download does not end with whoever wanted it first: the protocol
	// cannot stop it, and others may be waiting.
	ctx := b.s.ctx
	unlock, waited, err := b.lock(ctx, b.dirOf(k.oid))
	if err != nil {
		if ctx.Err() != nil {
			return zeolite.ErrClosed
		}
		return blobError("cannot lock the blob cache", err)
	}
	defer unlock()
	if waited {
		b.removeStale() // whoever had the lock may have been killed
	}
	path := b.path(k)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// What a killed Python process left behind.
	if err := os.Remove(path + ".dl"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return blobError("cannot remove what is left of a download", err)
	}
	// A temporary file like that of an upload: were it the ".dl" file of
	// Python's client, one that we leave when we are killed would become part
	// of the blob that a Python process downloads next.
	u, err := b.create()
	if err != nil {
		return err
	}
	defer u.Discard() // does nothing if all went well
	size := int64(0)
	for {
		before := size
		err := b.s.read(ctx, func(l *link) (err error) {
			// Each attempt has a download of its own: what a connection that
			// was given up still brings goes to one that has ended.
			d := &download{file: u.file, key: k, report: b.s.opt.Progress, size: size}
			err = b.download(ctx, l, d)
			size = d.bytes()
			return err
		})
		if err == nil {
			break
		}
		if !SafeToRepeat(err) || size <= before {
			return err
		}
		// It gets on, however often the connection breaks.
	}
	if err := u.moveTo(path); err != nil {
		return blobError("cannot write to the blob cache", err)
	}
	b.grew(size)
	return nil
}

// download asks for a blob once: for the rest of it, if an earlier attempt
// brought some and the server knows how.
func (b *blobCache) download(ctx context.Context, l *link, d *download) error {
	resume := d.bytes() > 0 && l.has("blobInfo", "sendBlobFrom")
	if err := d.begin(resume); err != nil {
		return blobError("cannot write to the blob cache", err)
	}
	if !l.expect(d) {
		return lostBefore(l.conn.Err())
	}
	defer l.unexpect(d)
	var err error
	if resume {
		var whole bool
		if whole, err = l.resume(ctx, d.key, d); err == nil && !whole {
			if err := d.begin(false); err != nil {
				return blobError("cannot write to the blob cache", err)
			}
			err = l.stub.SendBlob(ctx, d.key.oid, d.key.tid)
		}
	} else {
		err = l.stub.SendBlob(ctx, d.key.oid, d.key.tid)
	}
	werr := d.end()
	var notFound *zeolite.NotFoundError
	switch {
	case errors.As(err, &notFound):
		return &zeolite.NotFoundError{OID: d.key.oid, TID: d.key.tid, Blob: true}
	case err != nil:
		return err
	case werr != nil:
		return blobError("cannot write to the blob cache", werr)
	}
	return nil
}

// download is a blob on its way from the server. The goroutine that reads the
// connection writes it to the file, so that the server sends no faster than
// the disk is.
type download struct {
	key    blobKey
	report func(BlobProgress)

	file *os.File

	mu      sync.Mutex
	size    int64 // bytes in the file
	open    bool  // between begin and end
	started bool
	stopped bool
	err     error
}

// begin prepares for an attempt, which either goes on where the one before
// stopped, or begins anew.
func (d *download) begin(resume bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open, d.started, d.stopped, d.err = true, false, false, nil
	if !resume {
		d.size = 0
	}
	if err := d.file.Truncate(d.size); err != nil {
		return err
	}
	_, err := d.file.Seek(d.size, io.SeekStart)
	return err
}

// bytes returns how many bytes are in the file.
func (d *download) bytes() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size
}

var (
	errOrder      = errors.New("the messages of a blob came out of order")
	errIncomplete = errors.New("the server said that a blob is complete, but did not end it")
)

func (d *download) start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.started {
		d.failLocked(errOrder)
	}
	d.started = true
}

func (d *download) write(chunk []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.started || d.stopped {
		d.failLocked(errOrder)
	}
	if d.err != nil || !d.open {
		return
	}
	n, err := d.file.Write(chunk)
	d.size += int64(n)
	if err != nil {
		d.failLocked(err)
		return
	}
	if d.report != nil {
		d.report(BlobProgress{OID: d.key.oid, TID: d.key.tid, Done: d.size, Total: -1})
	}
}

func (d *download) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.started || d.stopped {
		d.failLocked(errOrder)
	}
	d.stopped = true
}

func (d *download) failLocked(err error) {
	if d.err == nil {
		d.err = err
	}
}

// end ends writing, and returns what went wrong with it.
func (d *download) end() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = false
	if !d.stopped {
		d.failLocked(errIncomplete)
	}
	if d.err == nil && d.report != nil {
		d.report(BlobProgress{OID: d.key.oid, TID: d.key.tid, Done: d.size, Total: d.size})
	}
	return d.err
}

// expect makes the link give a blob to a download; false if it has ended.
func (l *link) expect(d *download) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.downloads == nil {
		return false
	}
	l.downloads[d.key] = d
	return true
}

func (l *link) unexpect(d *download) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.downloads, d.key)
}

func (l *link) download(oid zeolite.OID, tid zeolite.TID) *download {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.downloads[blobKey{oid, tid}]
}

// ReceiveBlobStart follows stubs.ClientStorage.
func (l *link) ReceiveBlobStart(_ context.Context, oid zeolite.OID, tid zeolite.TID) error {
	if d := l.download(oid, tid); d != nil {
		d.start()
	}
	return nil
}

// ReceiveBlobChunk follows stubs.ClientStorage.
func (l *link) ReceiveBlobChunk(_ context.Context, oid zeolite.OID, tid zeolite.TID, chunk []byte) error {
	if d := l.download(oid, tid); d != nil {
		d.write(chunk)
	}
	return nil
}

// ReceiveBlobStop follows stubs.ClientStorage.
func (l *link) ReceiveBlobStop(_ context.Context, oid zeolite.OID, tid zeolite.TID) error {
	if d := l.download(oid, tid); d != nil {
		d.stop()
	}
	return nil
}
