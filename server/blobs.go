package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/stubs/spool"
	"github.com/zeolite-go/zeolite/zrpc"
)

var errNoBlobs = stubs.Exception(stubs.ClassTypeError, "Blobs are not supported")

// StoreBlobStart follows stubs.StorageServer.
func (s *session) StoreBlobStart(ctx context.Context) error {
	switch {
	case s.readOnly:
		return zeolite.ErrReadOnly
	case s.blobs == nil:
		return errNoBlobs
	case s.upload != nil:
		return stubs.Exception("builtins.AssertionError", "storeBlobStart: another upload is under way")
	case s.txn == nil:
		return &zeolite.TransactionError{Message: "storeBlobStart: no transaction is open"}
	}
	upload, err := s.blobs.CreateBlob(ctx)
	if err != nil {
		// Vote tells it. What follows of this upload goes nowhere.
		s.fail(err)
		upload = failedUpload{}
	}
	s.upload = upload
	return nil
}

// fail makes the open transaction's vote fail. The client may go on for as long as
// it likes: the first failure counts.
func (s *session) fail(err error) {
	if s.txn.failed == nil {
		s.log.Error("blob upload failed", "error", brief(err))
		s.txn.failed = err
	}
}

// failedUpload swallows an upload that cannot succeed any more.
type failedUpload struct{}

func (failedUpload) Write(p []byte) (int, error) { return len(p), nil }
func (failedUpload) Size() int64                 { return 0 }
func (failedUpload) Complete() error             { return nil }
func (failedUpload) Discard() error              { return nil }

// StoreBlobChunk follows stubs.StorageServer.
func (s *session) StoreBlobChunk(_ context.Context, chunk []byte) error {
	s.counters.uploadedBytes.Add(int64(len(chunk)))
	if s.upload == nil {
		return stubs.Exception(stubs.ClassTypeError, "storeBlobChunk without storeBlobStart")
	}
	if _, err := s.upload.Write(chunk); err != nil {
		s.fail(err)
		s.dropUpload()
		s.upload = failedUpload{}
	}
	return nil
}

// StoreBlobEnd follows stubs.StorageServer.
func (s *session) StoreBlobEnd(_ context.Context, oid zeolite.OID, serial zeolite.TID, data []byte, id stubs.TxnID) error {
	if s.upload == nil {
		return stubs.Exception(stubs.ClassTypeError, "storeBlobEnd without storeBlobStart")
	}
	upload := s.upload
	s.upload = nil
	if err := upload.Complete(); err != nil {
		s.fail(err)
	}
	return s.addBlob(oid, serial, data, upload, id)
}

// StoreEmptyBlob follows stubs.StorageServer.
func (s *session) StoreEmptyBlob(ctx context.Context, oid zeolite.OID, serial zeolite.TID, data []byte, id stubs.LegacyTxnID) error {
	if err := s.StoreBlobStart(ctx); err != nil {
		return err
	}
	return s.StoreBlobEnd(ctx, oid, serial, data, stubs.TxnID(id))
}

// StoreBlobShared follows stubs.StorageServer.
func (s *session) StoreBlobShared(ctx context.Context, oid zeolite.OID, serial zeolite.TID, data []byte,
	filename string, id stubs.TxnID) error {
	switch {
	case s.readOnly:
		return zeolite.ErrReadOnly
	case s.shared == nil:
		return errNoBlobs
	}
	t, err := s.growing(id)
	if err != nil {
		return err
	}
	upload, err := s.shared.AdoptBlob(ctx, oid, filename)
	if err == nil {
		if err = upload.Complete(); err != nil {
			_ = upload.Discard()
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// As in ZEO, vote tells it.
		t.refuse(stubs.Exception("builtins.FileNotFoundError", int64(syscall.ENOENT), "no such blob file: "+filename))
		return nil
	case err != nil:
		return stubs.Exception(stubs.ClassValueError, err.Error())
	}
	return s.addBlob(oid, serial, data, upload, id)
}

// addBlob takes down a store with a blob, which becomes the transaction's.
func (s *session) addBlob(oid zeolite.OID, serial zeolite.TID, data []byte, upload zeolite.BlobUpload, id stubs.TxnID) error {
	if err := s.add(id, spool.Op{Kind: spool.StoreBlob, OID: oid, Serial: serial}, data); err != nil {
		_ = upload.Discard()
		return err
	}
	s.counters.stored.Add(int64(len(data)))
	s.counters.uploads.Add(1)
	t := s.txn
	if t.failed != nil {
		// The vote tells it. No more blobs are kept for that.
		if err := upload.Discard(); err != nil {
			s.log.Error("cannot remove an uploaded blob", "error", err)
		}
		return nil
	}
	if t.blobs == nil {
		t.blobs = map[zeolite.OID]zeolite.BlobUpload{}
	}
	if earlier := t.blobs[oid]; earlier != nil {
		_ = earlier.Discard()
	}
	t.blobs[oid] = upload
	return nil
}

// dropUpload removes an upload that was not ended.
func (s *session) dropUpload() {
	if s.upload != nil {
		if err := s.upload.Discard(); err != nil {
			s.log.Error("cannot remove an unfinished upload", "error", err)
		}
		s.upload = nil
	}
}

// SendBlob follows stubs.StorageServer; RespondSendBlob is what is called.
func (s *session) SendBlob(context.Context, zeolite.OID, zeolite.TID) error {
	return errors.New("sendBlob needs its call")
}

// RespondSendBlob queues the blob as a stream that ends with the reply.
func (s *session) RespondSendBlob(ctx context.Context, call *zrpc.Call, oid zeolite.OID, tid zeolite.TID) {
	s.sendBlob(ctx, call, oid, tid, 0)
}

// SendBlobFrom follows stubs.StorageServer; RespondSendBlobFrom is what is
// called.
func (s *session) SendBlobFrom(context.Context, zeolite.OID, zeolite.TID, int64) error {
	return errors.New("sendBlobFrom needs its call")
}

// RespondSendBlobFrom queues the rest of the blob.
func (s *session) RespondSendBlobFrom(ctx context.Context, call *zrpc.Call, oid zeolite.OID, tid zeolite.TID, offset int64) {
	if offset < 0 {
		stubs.ReplyError(call, stubs.Exception(stubs.ClassValueError, "sendBlobFrom: the offset is negative"))
		return
	}
	s.sendBlob(ctx, call, oid, tid, offset)
}

func (s *session) sendBlob(ctx context.Context, call *zrpc.Call, oid zeolite.OID, tid zeolite.TID, from int64) {
	if s.blobs == nil {
		stubs.ReplyError(call, errNoBlobs)
		return
	}
	open := func() (zeolite.Blob, error) { return s.openBlob(ctx, oid, tid) }
	_ = s.conn.Stream(stubs.NewBlobDownload(call, oid, tid, from, open, s.download()), zrpc.InTurns)
}

func (s *session) openBlob(ctx context.Context, oid zeolite.OID, tid zeolite.TID) (zeolite.Blob, error) {
	blob, err := s.blobs.OpenBlob(ctx, oid, tid)
	s.logError("sendBlob", err)
	return blob, err
}

// BlobInfo follows stubs.StorageServer. It reads the whole blob.
func (s *session) BlobInfo(ctx context.Context, oid zeolite.OID, tid zeolite.TID) (info stubs.BlobInfo, err error) {
	if s.blobs == nil {
		return info, errNoBlobs
	}
	blob, err := s.openBlob(ctx, oid, tid)
	if err != nil {
		return info, err
	}
	defer blob.Close()
	info.Size = blob.Size()
	h := sha256.New()
	var buf [64 << 10]byte
	for off := int64(0); off < info.Size; {
		if ctx.Err() != nil {
			return info, context.Cause(ctx)
		}
		n := min(int64(len(buf)), info.Size-off)
		if k, err := blob.ReadAt(buf[:n], off); int64(k) < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			err = fmt.Errorf("cannot read the blob of %v at %v: %w", oid, tid, err)
			s.logError("blobInfo", err)
			return info, err
		}
		h.Write(buf[:n])
		off += n
	}
	h.Sum(info.SHA256[:0])
	return info, nil
}
