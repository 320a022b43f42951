package gateway

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/zeolite-go/zeolite"
)

// content is a blob as http.ServeContent wants it: something to read and seek.
// Nothing is read before the first byte is to be sent.
type content struct {
	seeker io.ReadSeeker
	file   *os.File    // a file of our own, if the blob is one
	reader *blobReader // otherwise
	blob   zeolite.Blob
}

// fileBlob is a blob that is a file.
type fileBlob interface{ File() *os.File }

// newContent takes over a blob. One that is a file is read through a file of
// our own, which has a position of its own, as sendfile wants it: Blob.File
// may be read by offset only.
func newContent(blob zeolite.Blob) *content {
	c := &content{blob: blob}
	if f, ok := blob.(fileBlob); ok {
		if own, err := reopen(f.File()); err == nil {
			c.file, c.seeker = own, own
			return c
		}
	}
	c.reader = &blobReader{blob: blob}
	c.seeker = io.NewSectionReader(c.reader, 0, blob.Size())
	return c
}

// failure is why reading the blob failed, nil if it did not.
func (c *content) failure() error {
	if c.reader == nil {
		return c.fileFailure()
	}
	c.reader.mu.Lock()
	defer c.reader.mu.Unlock()
	return c.reader.err
}

// fileFailure reads where the file was left: what is sent by sendfile(2) may have
// failed for the sake of the client as well.
func (c *content) fileFailure() error {
	off, err := c.file.Seek(0, io.SeekCurrent)
	if err == nil && off < c.blob.Size() {
		_, err = c.file.ReadAt(make([]byte, 1), off)
	}
	switch cause := new(fs.PathError); {
	case errors.Is(err, io.EOF): // it has become shorter
		err = io.ErrUnexpectedEOF
	case errors.As(err, &cause): // the path is that of a descriptor
		err = cause.Err
	}
	return err
}

// path is where the blob is, if it is a file.
func (c *content) path() string {
	if f, ok := c.blob.(fileBlob); ok {
		return f.File().Name()
	}
	return ""
}

// Close closes the blob.
func (c *content) Close() error {
	if c.file != nil {
		return errors.Join(c.file.Close(), c.blob.Close())
	}
	return c.reader.Close()
}

// blobReader reads a blob for http.ServeContent, which may leave a goroutine
// behind that is still reading one of several ranges. It is safe for
// concurrent use.
type blobReader struct {
	mu     sync.Mutex
	blob   zeolite.Blob
	closed bool
	err    error
}

func (b *blobReader) ReadAt(p []byte, off int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, os.ErrClosed
	}
	n, err := b.blob.ReadAt(p, off)
	if n < len(p) && (err == nil || errors.Is(err, io.EOF)) {
		err = io.ErrUnexpectedEOF // the section ends where the blob should
	}
	if err != nil && n < len(p) && b.err == nil {
		b.err = err
	}
	return n, err
}

func (b *blobReader) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return b.blob.Close()
}
