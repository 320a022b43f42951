package memory

import (
	"context"
	"os"

	"github.com/zeolite-go/zeolite"
)

// upload is a blob being written, and later the file of a committed one. It is
// used by one goroutine at a time.
type upload struct {
	s        *Storage
	file     *os.File
	size     int64
	complete bool
	gone     bool // discarded, or consumed by a commit
}

// CreateBlob implements zeolite.BlobStorage.
func (s *Storage) CreateBlob(ctx context.Context) (zeolite.BlobUpload, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock() // also against Close, which removes the directory
	defer s.mu.Unlock()
	if s.closed {
		return nil, zeolite.ErrClosed
	}
	if s.blobDir == "" {
		dir, err := os.MkdirTemp(s.blobsIn, "zeolite-memory-*")
		if err != nil {
			return nil, &zeolite.StorageError{Message: "cannot make a directory for blobs", Err: err}
		}
		s.blobDir = dir
	}
	f, err := os.CreateTemp(s.blobDir, "*.blob")
	if err != nil {
		return nil, &zeolite.StorageError{Message: "cannot create a blob", Err: err}
	}
	return &upload{s: s, file: f}, nil
}

func (u *upload) Write(p []byte) (int, error) {
	if u.gone || u.complete {
		return 0, &zeolite.StorageError{Message: "the upload of the blob has ended"}
	}
	n, err := u.file.Write(p)
	u.size += int64(n)
	if err != nil {
		err = &zeolite.StorageError{Message: "cannot write a blob", Err: err}
	}
	return n, err
}

func (u *upload) Size() int64 { return u.size }

// Complete closes the file; there is nothing to make durable.
func (u *upload) Complete() error {
	if u.gone {
		return &zeolite.StorageError{Message: "the upload of the blob has ended"}
	}
	if u.complete {
		return nil
	}
	if err := u.file.Close(); err != nil {
		return &zeolite.StorageError{Message: "cannot write a blob", Err: err}
	}
	u.complete = true
	return nil
}

func (u *upload) Discard() error {
	if u.gone {
		return nil
	}
	u.gone = true
	if !u.complete {
		u.file.Close() // what was written does not matter any more
	}
	if err := os.Remove(u.file.Name()); err != nil && !os.IsNotExist(err) {
		return &zeolite.StorageError{Message: "cannot remove a blob", Err: err}
	}
	return nil
}

// usable tells whether the upload can be committed.
func (u *upload) usable() error {
	if u.gone || !u.complete {
		return &zeolite.StorageError{Message: "the upload of the blob is not complete, or was used or discarded before"}
	}
	return nil
}

// consume makes the file that of a committed blob and returns its path. It
// stays where it is: the names of blob files mean nothing here.
func (u *upload) consume() string {
	u.gone = true
	return u.file.Name()
}

// ownUpload checks an upload that is to be stored.
func (s *Storage) ownUpload(blob zeolite.BlobUpload) (*upload, error) {
	u, ok := blob.(*upload)
	if !ok || u.s != s {
		return nil, &zeolite.StorageError{Message: "the upload of the blob belongs to another storage"}
	}
	return u, u.usable()
}

// OpenBlob implements zeolite.BlobStorage.
func (s *Storage) OpenBlob(ctx context.Context, oid zeolite.OID, tid zeolite.TID) (zeolite.Blob, error) {
	if err := s.rlock(ctx); err != nil {
		return nil, err
	}
	// The lock is kept while the file is opened, so that a pack cannot
	// remove it in between. An open file outlives its removal.
	defer s.mu.RUnlock()
	r := s.revision(oid, tid)
	if r == nil || r.blob == "" {
		return nil, &zeolite.NotFoundError{OID: oid, TID: tid, Blob: true}
	}
	b, err := zeolite.OpenFileBlob(r.blob)
	if err != nil {
		return nil, &zeolite.StorageError{Message: "cannot open a blob", Err: err}
	}
	return b, nil
}
