package storagetest

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/zeolite-go/zeolite"
)

// Copy copies all transactions of src to dst, which must be older than the
// first of them, with their TIDs, metadata and blobs.
func Copy(ctx context.Context, dst, src zeolite.Storage) error {
	for t, err := range src.Transactions(ctx, zeolite.ZeroTID, zeolite.MaxTID) {
		if err != nil {
			return err
		}
		if err := copyTransaction(ctx, dst, src, t); err != nil {
			return fmt.Errorf("copying transaction %v: %w", t.TID, err)
		}
	}
	return nil
}

func copyTransaction(ctx context.Context, dst, src zeolite.Storage, t *zeolite.TransactionRecord) error {
	tx, err := dst.Begin(ctx, zeolite.TxnMeta{
		User:        t.User,
		Description: t.Description,
		Extension:   t.Extension,
		TID:         t.TID,
		Status:      t.Status,
	})
	if err != nil {
		return err
	}
	defer tx.Abort()
	for r, err := range t.Records {
		if err != nil {
			return err
		}
		up, err := copyBlob(ctx, dst, src, r)
		if err != nil {
			return err
		}
		if up == nil {
			err = tx.Restore(ctx, r.OID, r.Data, r.DataTID)
		} else {
			defer up.Discard()
			err = tx.RestoreBlob(ctx, r.OID, r.Data, r.DataTID, up)
		}
		if err != nil {
			return err
		}
	}
	if err := tx.Vote(ctx); err != nil {
		return err
	}
	_, err = tx.Finish(ctx, nil)
	return err
}

// copyBlob uploads the blob of a record to dst. It returns nil if there is no
// blob.
func copyBlob(ctx context.Context, dst, src zeolite.Storage, r zeolite.DataRecord) (zeolite.BlobUpload, error) {
	from, ok := src.(zeolite.BlobStorage)
	if !ok || !src.Info().Blobs || r.Data == nil {
		return nil, nil
	}
	blob, err := from.OpenBlob(ctx, r.OID, r.TID)
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	to, ok := dst.(zeolite.BlobStorage)
	if !ok {
		return nil, zeolite.ErrUnsupported
	}
	up, err := to.CreateBlob(ctx)
	if err != nil {
		return nil, err
	}
	if _, err = io.Copy(up, io.NewSectionReader(blob, 0, blob.Size())); err == nil {
		err = up.Complete()
	}
	if err != nil {
		return nil, errors.Join(err, up.Discard())
	}
	return up, nil
}
