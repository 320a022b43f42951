package demostorage

import (
	"context"

	"github.com/zeolite-go/zeolite"
)

// OpenBlob implements zeolite.BlobStorage. A base without blobs has none; that
// the changes keep no blobs makes it unsupported, as in ZODB.
func (s *Storage) OpenBlob(ctx context.Context, oid zeolite.OID, tid zeolite.TID) (zeolite.Blob, error) {
	if !s.changes.Info().Blobs {
		return nil, zeolite.ErrUnsupported
	}
	blob, err := openBlob(ctx, s.changes, oid, tid)
	if isNotFound(err) {
		return openBlob(ctx, s.base, oid, tid)
	}
	return blob, err
}

// openBlob opens a blob of one part.
func openBlob(ctx context.Context, part zeolite.Storage, oid zeolite.OID, tid zeolite.TID) (zeolite.Blob, error) {
	if b, ok := part.(zeolite.BlobStorage); ok && part.Info().Blobs {
		return b.OpenBlob(ctx, oid, tid)
	}
	return nil, &zeolite.NotFoundError{OID: oid, TID: tid, Blob: true}
}

// CreateBlob implements zeolite.BlobStorage: all uploads go to the changes.
func (s *Storage) CreateBlob(ctx context.Context) (zeolite.BlobUpload, error) {
	if b, ok := s.changes.(zeolite.BlobStorage); ok && s.changes.Info().Blobs {
		return b.CreateBlob(ctx)
	}
	return nil, zeolite.ErrUnsupported
}
