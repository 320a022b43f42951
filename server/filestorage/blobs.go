package filestorage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/zeolite-go/zeolite"
)

// upload implements zeolite.BlobUpload: a file in the blob directory that a
// transaction may take. It is used by one goroutine at a time.
type upload struct {
	s    *Storage
	path string
	size int64
	file *blobWriter // nil once complete

	// loose says that the contents may not be durable, although the upload is
	// complete: committing it sees to that (blobsync.go). contents is all of it,
	// or nil.
	loose    bool
	contents *blobBuffer
	// taken is the name a transaction that is being committed gave the file;
	// gone says that a transaction kept it, or that it was discarded.
	taken string
	gone  bool
}

// CreateBlob implements zeolite.BlobStorage.
func (s *Storage) CreateBlob(ctx context.Context) (zeolite.BlobUpload, error) {
	if err := s.writable(ctx); err != nil {
		return nil, err
	}
	if s.blobs == nil {
		return nil, zeolite.ErrUnsupported
	}
	path := s.blobs.newUploadName()
	f, err := s.fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, blobError("cannot create a blob", err)
	}
	return s.newUpload(path, &blobWriter{file: f, routes: &s.routes}, 0), nil
}

func (d *blobDir) newUploadName() string {
	return filepath.Join(d.tmp(), uploadPrefix+rand.Text()+uploadSuffix)
}

// AdoptBlob implements zeolite.SharedBlobStorage.
func (s *Storage) AdoptBlob(ctx context.Context, oid zeolite.OID, name string) (zeolite.BlobUpload, error) {
	if err := s.writable(ctx); err != nil {
		return nil, err
	}
	if s.blobs == nil {
		return nil, zeolite.ErrUnsupported
	}
	if strings.ContainsRune(name, filepath.Separator) || strings.ContainsAny(name, "/\\\x00") || !isSharedName(name) {
		return nil, &zeolite.StorageError{Message: fmt.Sprintf("%q is not the name of a blob that a client shares", name)}
	}
	path := filepath.Join(s.blobs.oidDir(oid), name)
	f, err := openRegular(s.fs, path)
	if err != nil {
		return nil, blobError("cannot take over a blob", err)
	}
	size, err := f.Size()
	if err != nil {
		f.Close()
		return nil, blobError("cannot take over a blob", err)
	}
	return s.newUpload(path, &blobWriter{file: f, routes: &s.routes}, size), nil
}

// isSharedName says whether name, or name without its last character, ends in
// ".tmp": what Python's clients call the files they share.
func isSharedName(name string) bool {
	return len(name) > len(uploadSuffix) &&
		(strings.HasSuffix(name, uploadSuffix) || strings.HasSuffix(name[:len(name)-1], uploadSuffix))
}

func (u *upload) Write(p []byte) (int, error) {
	if u.gone || u.file == nil {
		return 0, &zeolite.StorageError{Message: "the upload of the blob has ended"}
	}
	n, err := u.file.Write(p)
	u.size += int64(n)
	return n, blobError("cannot write a blob", err)
}

func (u *upload) Size() int64 { return u.size }

// Complete makes the contents durable, unless committing them will.
func (u *upload) Complete() error {
	if u.gone {
		return &zeolite.StorageError{Message: "the upload of the blob has ended"}
	}
	if u.file == nil {
		return nil
	}
	err := u.file.flush()
	switch {
	case err != nil:
	case u.stayLoose():
		u.contents = u.file.takeAll()
	default:
		err = u.file.sync()
	}
	if err != nil {
		return blobError("cannot write a blob", err)
	}
	err = u.file.close()
	u.file = nil
	return blobError("cannot write a blob", err)
}

func (u *upload) Discard() error {
	if u.gone {
		return nil
	}
	u.end()
	if u.file != nil {
		u.file.close()
		u.file = nil
	}
	if err := u.s.fs.Remove(u.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return blobError("cannot remove a blob", err)
	}
	return nil
}

// usable says whether the upload can be committed.
func (u *upload) usable() error {
	if u.gone || u.file != nil {
		return &zeolite.StorageError{Message: "the upload of a blob is not complete, or it was used or discarded before"}
	}
	st, err := os.Lstat(u.path)
	if err == nil && !st.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		return blobError("the upload of a blob is not there", err)
	}
	return nil
}

// ownUpload checks an upload that is to be stored.
func (s *Storage) ownUpload(blob zeolite.BlobUpload) (*upload, error) {
	u, ok := blob.(*upload)
	if !ok || u.s != s {
		return nil, &zeolite.StorageError{Message: "the upload of the blob belongs to another storage"}
	}
	return u, u.usable()
}

// giveBlobs renames the blobs of the transaction to what they are called when
// it is committed.
func (t *Txn) giveBlobs(blobs *groupBlobs) error {
	d := t.s.blobs
	for i := range t.recs {
		r := &t.recs[i]
		if r.blob == nil || r.dead {
			continue
		}
		u := r.blob
		// Packing may have removed the directory since the vote.
		name, err := d.place(u.path, r.oid, t.tid)
		if err != nil {
			return blobError("cannot commit a blob", err)
		}
		u.taken = name
		if u.loose {
			blobs.loose = append(blobs.loose, newBlob{oid: r.oid, tid: t.tid, size: u.size, file: name, contents: u.contents})
		} else {
			blobs.syncs.addDir(filepath.Dir(name))
		}
	}
	return nil
}

// takeBackBlobs undoes giveBlobs.
func (t *Txn) takeBackBlobs() {
	for i := range t.recs {
		if u := t.recs[i].blob; u != nil && u.taken != "" {
			if err := t.s.fs.Rename(u.taken, u.path); err != nil {
				t.s.log.Error("cannot take back the blob of a transaction that failed", "file", u.taken, "error", err)
			}
			u.taken = ""
		}
	}
}

// OpenBlob implements zeolite.BlobStorage.
func (s *Storage) OpenBlob(ctx context.Context, oid zeolite.OID, tid zeolite.TID) (zeolite.Blob, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if s.blobs == nil {
		return nil, zeolite.ErrUnsupported
	}
	missing := &zeolite.NotFoundError{OID: oid, TID: tid, Blob: true}
	if tid > s.LastTID() {
		return nil, missing // a transaction that is being committed has it
	}
	b, err := zeolite.OpenFileBlob(s.blobs.file(oid, tid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing
	}
	if err != nil {
		return nil, blobError("cannot open a blob", err)
	}
	return b, nil
}

// copyBlob makes an upload with the contents of a committed blob: another name
// of the same file, or a copy where that is not possible.
func (s *Storage) copyBlob(oid zeolite.OID, tid zeolite.TID) (*upload, error) {
	from := s.blobs.file(oid, tid)
	path := s.blobs.newUploadName()
	var size int64
	if st, err := os.Stat(from); err == nil {
		size = st.Size()
	}
	// The log may be the only one that has it, and under the first name. It is not
	// synced under the second: if that failed, nobody would learn of it who syncs it
	// under the first.
	if err := s.data.blobsNow(); err != nil {
		return nil, blobError("cannot copy a blob", err)
	}
	err := s.fs.Link(from, path)
	if err == nil {
		return s.newUpload(path, nil, size), nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &zeolite.NotFoundError{OID: oid, TID: tid, Blob: true}
	}
	src, err := zeolite.OpenFileBlob(from)
	if err != nil {
		return nil, blobError("cannot copy a blob", err)
	}
	defer src.Close()
	f, err := s.fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, blobError("cannot copy a blob", err)
	}
	u := s.newUpload(path, &blobWriter{file: f, routes: &s.routes}, 0)
	if _, err = io.Copy(u, src.File()); err == nil {
		err = u.Complete()
	}
	if err != nil {
		u.Discard()
		return nil, blobError("cannot copy a blob", err)
	}
	return u, nil
}

func blobError(what string, err error) error {
	if err == nil {
		return nil
	}
	return &zeolite.StorageError{Message: what, Err: err}
}
