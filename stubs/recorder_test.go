package stubs

import (
	"context"
	"sync"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// recorder implements both interfaces: it writes down what it is asked, and
// answers all with result, or with err if that is set.
type recorder struct {
	result any
	err    error

	mu    sync.Mutex
	calls []string
}

// record writes down a call in the words of the wire. It does so at once,
// since the bytes belong to the message.
func (r *recorder) record(name string, args ...any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, name+show(args))
	return r.err
}

// take returns what was recorded since the last time.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.calls = nil
	return calls
}

// answer is record for methods with a result: the zero value if none of its
// type was set.
func answer[T any](r *recorder, name string, args ...any) (v T, err error) {
	if err := r.record(name, args...); err != nil {
		return v, err
	}
	v, _ = r.result.(T)
	return v, nil
}

func (r *recorder) Register(_ context.Context, storage string, readOnly bool) (OptionalTID, error) {
	return answer[OptionalTID](r, "register", storage, readOnly)
}

func (r *recorder) GetInfo(context.Context) (zrpc.Value, error) {
	return answer[zrpc.Value](r, "get_info")
}

func (r *recorder) LastTransaction(context.Context) (zeolite.TID, error) {
	return answer[zeolite.TID](r, "lastTransaction")
}

func (r *recorder) GetInvalidations(_ context.Context, tid zeolite.TID) (*Invalidations, error) {
	return answer[*Invalidations](r, "getInvalidations", tid)
}

func (r *recorder) NewOIDs(_ context.Context, n int64) ([]zeolite.OID, error) {
	return answer[[]zeolite.OID](r, "new_oids", n)
}

func (r *recorder) LoadBefore(_ context.Context, oid zeolite.OID, before zeolite.TID) (zeolite.Revision, error) {
	return answer[zeolite.Revision](r, "loadBefore", oid, before)
}

func (r *recorder) LoadMany(_ context.Context, oids []zeolite.OID, before zeolite.TID) ([]Loaded, error) {
	return answer[[]Loaded](r, "loadMany", oids, before)
}

func (r *recorder) BlobInfo(_ context.Context, oid zeolite.OID, tid zeolite.TID) (BlobInfo, error) {
	return answer[BlobInfo](r, "blobInfo", oid, tid)
}

func (r *recorder) SendBlobFrom(_ context.Context, oid zeolite.OID, tid zeolite.TID, offset int64) error {
	return r.record("sendBlobFrom", oid, tid, offset)
}

func (r *recorder) LoadSerial(_ context.Context, oid zeolite.OID, serial zeolite.TID) ([]byte, error) {
	return answer[[]byte](r, "loadSerial", oid, serial)
}

func (r *recorder) GetTid(_ context.Context, oid zeolite.OID) (zeolite.TID, error) {
	return answer[zeolite.TID](r, "getTid", oid)
}

func (r *recorder) History(_ context.Context, oid zeolite.OID, size int64) (zrpc.Value, error) {
	return answer[zrpc.Value](r, "history", oid, size)
}

func (r *recorder) RecordIternext(_ context.Context, next OptionalOID) (zeolite.CurrentRecord, error) {
	return answer[zeolite.CurrentRecord](r, "record_iternext", next)
}

func (r *recorder) UndoLog(_ context.Context, first, last int64) (zrpc.Value, error) {
	return answer[zrpc.Value](r, "undoLog", first, last)
}

func (r *recorder) UndoInfo(_ context.Context, first, last int64, spec zrpc.Value) (zrpc.Value, error) {
	return answer[zrpc.Value](r, "undoInfo", first, last, spec)
}

func (r *recorder) TpcBegin(_ context.Context, id TxnID, user, desc []byte, ext zrpc.Value, tid OptionalTID, status string) error {
	return r.record("tpc_begin", id, user, desc, ext, tid, status)
}

func (r *recorder) Storea(_ context.Context, oid zeolite.OID, serial zeolite.TID, data []byte, id TxnID) error {
	return r.record("storea", oid, serial, data, id)
}

func (r *recorder) Restorea(_ context.Context, oid zeolite.OID, serial zeolite.TID, data OptionalBytes, prev OptionalTID, id TxnID) error {
	return r.record("restorea", oid, serial, data, prev, id)
}

func (r *recorder) DeleteObject(_ context.Context, oid zeolite.OID, serial zeolite.TID, id TxnID) error {
	return r.record("deleteObject", oid, serial, id)
}

func (r *recorder) CheckCurrentSerialInTransaction(_ context.Context, oid zeolite.OID, serial zeolite.TID, id TxnID) error {
	return r.record("checkCurrentSerialInTransaction", oid, serial, id)
}

func (r *recorder) Undoa(_ context.Context, transID []byte, id TxnID) error {
	return r.record("undoa", transID, id)
}

func (r *recorder) StoreBlobStart(context.Context) error { return r.record("storeBlobStart") }

func (r *recorder) StoreBlobChunk(_ context.Context, chunk []byte) error {
	return r.record("storeBlobChunk", chunk)
}

func (r *recorder) StoreBlobEnd(_ context.Context, oid zeolite.OID, serial zeolite.TID, data []byte, id TxnID) error {
	return r.record("storeBlobEnd", oid, serial, data, id)
}

func (r *recorder) StoreBlobShared(_ context.Context, oid zeolite.OID, serial zeolite.TID, data []byte, filename string, id TxnID) error {
	return r.record("storeBlobShared", oid, serial, data, filename, id)
}

func (r *recorder) StoreEmptyBlob(_ context.Context, oid zeolite.OID, serial zeolite.TID, data []byte, id LegacyTxnID) error {
	return r.record("storeEmptyBlob", oid, serial, data, id)
}

func (r *recorder) Vote(_ context.Context, id TxnID) (VoteResult, error) {
	return answer[VoteResult](r, "vote", id)
}

func (r *recorder) TpcFinish(_ context.Context, id TxnID) (OptionalTID, error) {
	return answer[OptionalTID](r, "tpc_finish", id)
}

func (r *recorder) TpcAbort(_ context.Context, id TxnID) error { return r.record("tpc_abort", id) }

func (r *recorder) SendBlob(_ context.Context, oid zeolite.OID, tid zeolite.TID) error {
	return r.record("sendBlob", oid, tid)
}

func (r *recorder) IteratorStart(_ context.Context, start, stop OptionalTID) (int64, error) {
	return answer[int64](r, "iterator_start", start, stop)
}

func (r *recorder) IteratorNext(_ context.Context, iid int64) (*TransactionEntry, error) {
	return answer[*TransactionEntry](r, "iterator_next", iid)
}

func (r *recorder) IteratorRecordStart(_ context.Context, iid int64, tid zeolite.TID) (int64, error) {
	return answer[int64](r, "iterator_record_start", iid, tid)
}

func (r *recorder) IteratorRecordNext(_ context.Context, iid int64) (*zeolite.DataRecord, error) {
	return answer[*zeolite.DataRecord](r, "iterator_record_next", iid)
}

func (r *recorder) IteratorGC(_ context.Context, iids []int64) error {
	return r.record("iterator_gc", iids)
}

func (r *recorder) Pack(_ context.Context, seconds float64, wait bool) error {
	return r.record("pack", seconds, wait)
}

func (r *recorder) ServerStatus(context.Context) (zrpc.Value, error) {
	return answer[zrpc.Value](r, "server_status")
}

func (r *recorder) SetClientLabel(_ context.Context, label string) error {
	return r.record("set_client_label", label)
}

func (r *recorder) Ping(context.Context) error { return r.record("ping") }

func (r *recorder) Info(_ context.Context, info zrpc.Value) error { return r.record("info", info) }

func (r *recorder) InvalidateTransaction(_ context.Context, tid zeolite.TID, oids []zeolite.OID) error {
	return r.record("invalidateTransaction", tid, oids)
}

func (r *recorder) ReceiveBlobStart(_ context.Context, oid zeolite.OID, tid zeolite.TID) error {
	return r.record("receiveBlobStart", oid, tid)
}

func (r *recorder) ReceiveBlobChunk(_ context.Context, oid zeolite.OID, tid zeolite.TID, chunk []byte) error {
	return r.record("receiveBlobChunk", oid, tid, chunk)
}

func (r *recorder) ReceiveBlobStop(_ context.Context, oid zeolite.OID, tid zeolite.TID) error {
	return r.record("receiveBlobStop", oid, tid)
}
