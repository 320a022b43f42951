package server

import (
	"context"
	"errors"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// observed is a session that counts bytes, and the calls that are answered with
// an exception. It is used as the session is.
//
// Methods that cannot fail are the session's own. So are those that reply
// themselves, which call replyError.
type observed struct{ *session }

// note counts err, if it is an exception for the client, and returns it.
func (o observed) note(method string, err error) error {
	if err != nil && !errors.Is(err, zeolite.ErrNotYet) {
		o.server.counters.failed(method)
	}
	return err
}

func (o observed) GetInvalidations(ctx context.Context, tid zeolite.TID) (*stubs.Invalidations, error) {
	v, err := o.session.GetInvalidations(ctx, tid)
	return v, o.note("getInvalidations", err)
}

func (o observed) NewOIDs(ctx context.Context, n int64) ([]zeolite.OID, error) {
	v, err := o.session.NewOIDs(ctx, n)
	return v, o.note("new_oids", err)
}

func (o observed) LoadSerial(ctx context.Context, oid zeolite.OID, serial zeolite.TID) ([]byte, error) {
	v, err := o.session.LoadSerial(ctx, oid, serial)
	o.counters.loaded.Add(int64(len(v)))
	return v, o.note("loadSerial", err)
}

func (o observed) GetTid(ctx context.Context, oid zeolite.OID) (zeolite.TID, error) {
	v, err := o.session.GetTid(ctx, oid)
	return v, o.note("getTid", err)
}

func (o observed) History(ctx context.Context, oid zeolite.OID, size int64) (zrpc.Value, error) {
	v, err := o.session.History(ctx, oid, size)
	return v, o.note("history", err)
}

func (o observed) RecordIternext(ctx context.Context, next stubs.OptionalOID) (zeolite.CurrentRecord, error) {
	v, err := o.session.RecordIternext(ctx, next)
	return v, o.note("record_iternext", err)
}

func (o observed) UndoLog(ctx context.Context, first, last int64) (zrpc.Value, error) {
	v, err := o.session.UndoLog(ctx, first, last)
	return v, o.note("undoLog", err)
}

func (o observed) UndoInfo(ctx context.Context, first, last int64, spec zrpc.Value) (zrpc.Value, error) {
	v, err := o.session.UndoInfo(ctx, first, last, spec)
	return v, o.note("undoInfo", err)
}

func (o observed) TpcBegin(ctx context.Context, id stubs.TxnID, user, desc stubs.Text, ext zrpc.Value,
	tid stubs.OptionalTID, status string) error {
	return o.note("tpc_begin", o.session.TpcBegin(ctx, id, user, desc, ext, tid, status))
}

func (o observed) Storea(ctx context.Context, oid stubs.StoredOID, serial stubs.Serial, data []byte,
	id stubs.TxnID) error {
	o.counters.stored.Add(int64(len(data)))
	return o.note("storea", o.session.Storea(ctx, oid, serial, data, id))
}

func (o observed) Restorea(ctx context.Context, oid zeolite.OID, serial stubs.Serial, data stubs.OptionalBytes,
	prev stubs.OptionalTID, id stubs.TxnID) error {
	o.counters.stored.Add(int64(len(data)))
	return o.note("restorea", o.session.Restorea(ctx, oid, serial, data, prev, id))
}

func (o observed) DeleteObject(ctx context.Context, oid zeolite.OID, serial stubs.Serial, id stubs.TxnID) error {
	return o.note("deleteObject", o.session.DeleteObject(ctx, oid, serial, id))
}

func (o observed) CheckCurrentSerialInTransaction(ctx context.Context, oid zeolite.OID, serial stubs.Serial,
	id stubs.TxnID) error {
	return o.note("checkCurrentSerialInTransaction", o.session.CheckCurrentSerialInTransaction(ctx, oid, serial, id))
}

func (o observed) Undoa(ctx context.Context, transID []byte, id stubs.TxnID) error {
	return o.note("undoa", o.session.Undoa(ctx, transID, id))
}

func (o observed) StoreBlobStart(ctx context.Context) error {
	return o.note("storeBlobStart", o.session.StoreBlobStart(ctx))
}

func (o observed) StoreBlobChunk(ctx context.Context, chunk []byte) error {
	o.counters.uploadedBytes.Add(int64(len(chunk)))
	return o.note("storeBlobChunk", o.session.StoreBlobChunk(ctx, chunk))
}

func (o observed) StoreBlobEnd(ctx context.Context, oid stubs.StoredOID, serial stubs.Serial, data []byte,
	id stubs.TxnID) error {
	o.counters.stored.Add(int64(len(data)))
	err := o.session.StoreBlobEnd(ctx, oid, serial, data, id)
	if err == nil {
		o.counters.uploads.Add(1)
	}
	return o.note("storeBlobEnd", err)
}

func (o observed) StoreBlobShared(ctx context.Context, oid stubs.StoredOID, serial stubs.Serial, data []byte,
	filename string, id stubs.TxnID) error {
	o.counters.stored.Add(int64(len(data)))
	err := o.session.StoreBlobShared(ctx, oid, serial, data, filename, id)
	if err == nil {
		o.counters.uploads.Add(1)
	}
	return o.note("storeBlobShared", err)
}

func (o observed) StoreEmptyBlob(ctx context.Context, oid stubs.StoredOID, serial stubs.Serial, data []byte,
	id stubs.LegacyTxnID) error {
	o.counters.stored.Add(int64(len(data)))
	err := o.session.StoreEmptyBlob(ctx, oid, serial, data, id)
	if err == nil {
		o.counters.uploads.Add(1)
	}
	return o.note("storeEmptyBlob", err)
}

func (o observed) Vote(ctx context.Context, id stubs.TxnID) (stubs.VoteResult, error) {
	v, err := o.session.Vote(ctx, id)
	return v, o.note("vote", err)
}

func (o observed) TpcAbort(ctx context.Context, id stubs.TxnID) error {
	return o.note("tpc_abort", o.session.TpcAbort(ctx, id))
}

func (o observed) IteratorStart(ctx context.Context, start, stop stubs.OptionalTID) (int64, error) {
	v, err := o.session.IteratorStart(ctx, start, stop)
	return v, o.note("iterator_start", err)
}

func (o observed) IteratorNext(ctx context.Context, iid int64) (*stubs.TransactionEntry, error) {
	v, err := o.session.IteratorNext(ctx, iid)
	return v, o.note("iterator_next", err)
}

func (o observed) IteratorRecordStart(ctx context.Context, iid int64, tid zeolite.TID) (int64, error) {
	v, err := o.session.IteratorRecordStart(ctx, iid, tid)
	return v, o.note("iterator_record_start", err)
}

func (o observed) IteratorRecordNext(ctx context.Context, iid int64) (*zeolite.DataRecord, error) {
	v, err := o.session.IteratorRecordNext(ctx, iid)
	return v, o.note("iterator_record_next", err)
}

func (o observed) Pack(ctx context.Context, seconds float64, wait bool) error {
	return o.note("pack", o.session.Pack(ctx, seconds, wait))
}

func (o observed) BlobInfo(ctx context.Context, oid zeolite.OID, tid zeolite.TID) (stubs.BlobInfo, error) {
	v, err := o.session.BlobInfo(ctx, oid, tid)
	return v, o.note("blobInfo", err)
}
