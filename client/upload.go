package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/zeolite-go/zeolite"
)

// upload is a blob that the caller writes: a temporary file in the blob
// directory, locked for as long as this process may want it. Beyond what
// zeolite.BlobUpload asks for, it is safe for concurrent use, since a commit
// may still be under way when its caller has given up.
type upload struct {
	b *blobCache

	mu       sync.Mutex
	file     *os.File
	path     string
	size     int64
	complete bool
	consumed bool // by a commit: it is no longer the caller's
	gone     bool // discarded, or moved into the cache
}

// Uploads, and downloads under way, are files in tmp that their process has
// locked.
const (
	uploadPrefix = "zeolite-"
	uploadSuffix = ".upload"
)

// Why openLocked fails: somebody is quicker.
var (
	errLocked  = errors.New("the file is locked by another process")
	errRemoved = errors.New("the file was removed by another process")
)

// removeStale removes the uploads and downloads of processes that are gone.
func (b *blobCache) removeStale() {
	dir := filepath.Join(b.dir, "tmp")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), uploadPrefix) || !strings.HasSuffix(e.Name(), uploadSuffix) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		// It may be that another file gets this name meanwhile: AdoptFile.
		f, err := openLocked(path, os.O_RDONLY)
		if err != nil {
			continue
		}
		if os.Remove(path) == nil {
			b.s.log.Info("removed what a process left behind", "file", path)
		}
		f.Close()
	}
}

// CreateBlob implements zeolite.BlobStorage. The bytes go to a temporary file
// in the blob directory, which becomes part of the cache when its transaction
// is committed.
func (s *Storage) CreateBlob(ctx context.Context) (zeolite.BlobUpload, error) {
	if err := s.canBlob(ctx); err != nil {
		return nil, err
	}
	return s.blobs.create()
}

// AdoptFile makes an upload of a file, which is moved into the blob directory,
// or copied if that is in another file system. On success the file is gone
// from its place. It must be a regular file, and not a link to one.
func (s *Storage) AdoptFile(ctx context.Context, path string) (zeolite.BlobUpload, error) {
	if err := s.canBlob(ctx); err != nil {
		return nil, err
	}
	u, err := s.blobs.create()
	if err != nil {
		return nil, err
	}
	if err := u.adopt(path); err != nil {
		return nil, errors.Join(blobError("cannot take over a file as a blob", err), u.Discard())
	}
	return u, nil
}

func (s *Storage) canBlob(ctx context.Context) error {
	switch {
	case s.ctx.Err() != nil:
		return zeolite.ErrClosed
	case s.blobs == nil:
		return zeolite.ErrUnsupported
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := s.connection(ctx); err != nil {
		return err
	}
	if !s.Info().Blobs {
		return zeolite.ErrUnsupported
	}
	return nil
}

// ownUpload checks an upload that is to be stored.
func (s *Storage) ownUpload(blob zeolite.BlobUpload) (*upload, error) {
	u, ok := blob.(*upload)
	if !ok || u.b != s.blobs {
		return nil, &zeolite.StorageError{Message: "the upload of the blob belongs to another storage"}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone || u.consumed || !u.complete {
		return nil, &zeolite.StorageError{Message: "the upload of the blob is not complete, or was used or discarded before"}
	}
	return u, nil
}

func blobError(what string, err error) error {
	return &zeolite.StorageError{Message: what, Err: err}
}

var errUploadEnded = &zeolite.StorageError{Message: "the upload of the blob has ended"}

// Write follows zeolite.BlobUpload.
func (u *upload) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone || u.complete {
		return 0, errUploadEnded
	}
	n, err := u.file.Write(p)
	u.size += int64(n)
	if err != nil {
		err = blobError("cannot write a blob", err)
	}
	return n, err
}

// Size follows zeolite.BlobUpload.
func (u *upload) Size() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.size
}

// Complete follows zeolite.BlobUpload. There is nothing to make durable here:
// the server does that.
func (u *upload) Complete() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		return errUploadEnded
	}
	u.complete = true
	return nil
}

// Discard follows zeolite.BlobUpload.
func (u *upload) Discard() error { return u.discard(false) }

// discard removes the upload, for the caller or for the commit that consumed it.
func (u *upload) discard(consumer bool) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone || u.consumed && !consumer {
		return nil
	}
	u.gone = true
	err := os.Remove(u.path)
	u.file.Close() // releases the lock
	if err != nil && !os.IsNotExist(err) {
		return blobError("cannot remove a blob", err)
	}
	return nil
}

// consume takes the upload from the caller: it is part of a commit, which may
// return before the file has its place in the cache.
func (u *upload) consume() {
	u.mu.Lock()
	u.consumed = true
	u.mu.Unlock()
}

// adopt takes over the content of a file.
func (u *upload) adopt(path string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	// What is moved is what path names, and what is opened where a link leads.
	named, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !named.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	// Locked before it is moved: the lock stays with the file.
	src, err := openLocked(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	if err := os.Rename(path, u.path); err == nil {
		u.file.Close()
		u.file = src
	} else {
		defer src.Close()
		if _, err := io.Copy(u.file, src); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	st, err := u.file.Stat()
	if err != nil {
		return err
	}
	u.size, u.complete = st.Size(), true
	return nil
}

// moveTo makes the file one of the cache. The lock is kept until it has its
// place, so that nobody takes it for left over.
func (u *upload) moveTo(path string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		return nil
	}
	u.gone = true
	err := protect(u.path)
	if err == nil {
		err = os.Rename(u.path, path)
	}
	if err != nil {
		os.Remove(u.path)
	}
	return errors.Join(err, u.file.Close())
}

// outgoing is an upload on its way to the server: the zeolite.Blob that the
// connection's writing goroutine reads.
type outgoing struct {
	file *os.File
	size atomic.Int64
	done chan struct{}
}

// sendBlob queues an upload, or, if the server shares the blob directory, tells
// it the name of the file.
func (t *Txn) sendBlob(o *op, serial zeolite.TID, data []byte) error {
	up := o.blob
	if t.s.opt.SharedBlobDir {
		name, err := t.s.blobs.share(up, o.OID, serial)
		if err != nil {
			return err
		}
		t.shared = append(t.shared, filepath.Join(t.s.blobs.dirOf(o.OID), name))
		return lostBefore(t.link.stub.StoreBlobShared(context.Background(), o.OID, serial, data, name, t.id))
	}
	// A file of our own: the caller may discard the upload while what is
	// left of an aborted transaction is still being sent.
	file, err := os.Open(up.path)
	if err != nil {
		return blobError("cannot read a blob", err)
	}
	out := &outgoing{file: file, done: make(chan struct{})}
	total := up.Size()
	out.size.Store(total)
	var sent func(int64)
	if report := t.s.opt.Progress; report != nil {
		oid := o.OID
		report(BlobProgress{OID: oid, Upload: true, Total: total})
		sent = func(n int64) { report(BlobProgress{OID: oid, Upload: true, Done: n, Total: total}) }
	}
	t.uploads = append(t.uploads, out)
	return lostBefore(t.link.stub.StoreBlob(o.OID, serial, data, t.id, out, sent, func(error) { close(out.done) }))
}

// unshare removes the names of uploads that the server did not take over.
func unshare(paths []string) {
	for _, path := range paths {
		_ = os.Remove(path) // not there, if all went well
	}
}

// cut ends the stream early. The server gets less than the blob, in a
// transaction that is to be aborted.
func (o *outgoing) cut() { o.size.Store(0) }

// waitFor waits until nothing reads the records and files of streams any more.
func waitFor(uploads []*outgoing) {
	for _, o := range uploads {
		<-o.done
	}
}

func (o *outgoing) ReadAt(p []byte, off int64) (int, error) { return o.file.ReadAt(p, off) }
func (o *outgoing) Size() int64                             { return o.size.Load() }
func (o *outgoing) Close() error                            { return o.file.Close() }
func (o *outgoing) File() *os.File                          { return o.file }
