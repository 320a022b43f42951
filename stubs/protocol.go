package stubs

import (
	"context"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// This file is the one place where a method of the protocol is declared. A
// directive above each method gives what its Go signature does not: whether a
// caller waits (call) or not (send), the name on the wire, the lane in which a
// server runs it, and flags:
//
//	hook      the stub has a variant with a hook that runs in wire order
//	respond   a server may implement a Responder and reply by itself
//	behind    the stub queues the call behind the connection's upload streams
//	x=v       the default of the trailing argument x, if a caller leaves it out
//
// The order of arguments is their order on the wire. "go generate" writes the
// callers (zstubs.go) and dispatchers (zdispatch.go) from it.

//go:generate go run generate.go

// StorageServer is what a client may ask of a server. Each connection has its
// own; a session of the server implements it, and so does the stub over a
// connection.
type StorageServer interface {
	// Register chooses a storage by name, and must be the first call. It
	// returns the last tid; invalidations of later transactions follow.
	// Errors: ErrReadOnly if a writable connection is asked for in vain; an
	// unknown name is a ValueError.
	//zeo:call register inline respond
	Register(ctx context.Context, storage string, readOnly bool) (OptionalTID, error)

	// GetInfo returns a dict that describes the storage: length, size, name,
	// supportsUndo, supports_record_iternext, interfaces, extensions.
	//zeo:call get_info free
	GetInfo(ctx context.Context) (zrpc.Value, error)

	// LastTransaction returns the tid of the last transaction of which the
	// client has been told.
	//zeo:call lastTransaction inline
	LastTransaction(ctx context.Context) (zeolite.TID, error)

	// GetInvalidations returns which objects changed after tid; nil if the
	// server cannot tell.
	//zeo:call getInvalidations free
	GetInvalidations(ctx context.Context, tid zeolite.TID) (*Invalidations, error)

	// NewOIDs returns up to n unused oids; n is clamped to 1..100.
	//zeo:call new_oids free n=100
	NewOIDs(ctx context.Context, n int64) ([]zeolite.OID, error)

	// LoadBefore returns the newest revision of oid whose tid is smaller than
	// before. Errors: *NotFoundError, ErrNotYet.
	//zeo:call loadBefore free hook respond
	LoadBefore(ctx context.Context, oid zeolite.OID, before zeolite.TID) (zeolite.Revision, error)

	// LoadSerial returns the bytes of one revision, else *NotFoundError.
	//zeo:call loadSerial free
	LoadSerial(ctx context.Context, oid zeolite.OID, serial zeolite.TID) ([]byte, error)

	// GetTid returns the current serial of oid, else *NotFoundError.
	//zeo:call getTid free
	GetTid(ctx context.Context, oid zeolite.OID) (zeolite.TID, error)

	// History returns a list of dicts that describe revisions, newest first.
	//zeo:call history free size=1
	History(ctx context.Context, oid zeolite.OID, size int64) (zrpc.Value, error)

	// RecordIternext returns the current record of the first object at or
	// after next.
	//zeo:call record_iternext free next=None
	RecordIternext(ctx context.Context, next OptionalOID) (zeolite.CurrentRecord, error)

	// UndoLog returns a list of dicts that describe undoable transactions,
	// newest first: those from number first on up to number last; a negative
	// last is a count.
	//zeo:call undoLog free
	UndoLog(ctx context.Context, first, last int64) (zrpc.Value, error)

	// UndoInfo is UndoLog of the transactions that have the given values.
	//zeo:call undoInfo free spec=None
	UndoInfo(ctx context.Context, first, last int64, spec zrpc.Value) (zrpc.Value, error)

	// TpcBegin opens a transaction under an id of the client's choice. ext is
	// a dict, or bytes: a pickled dict. tid and status are given when a
	// transaction is copied with its identity.
	//zeo:send tpc_begin ordered tid=None status=' '
	TpcBegin(ctx context.Context, id TxnID, user, desc Text, ext zrpc.Value, tid OptionalTID, status string) error

	// Storea adds a record to the transaction. serial is the revision that
	// the client read, zero for a new object. A conflict is told by Vote.
	//zeo:send storea ordered
	Storea(ctx context.Context, oid StoredOID, serial Serial, data Text, id TxnID) error

	// Restorea adds a record without any check. A nil data is a deletion.
	//zeo:send restorea ordered
	Restorea(ctx context.Context, oid zeolite.OID, serial Serial, data OptionalBytes, prev OptionalTID, id TxnID) error

	// DeleteObject marks an object as gone.
	//zeo:send deleteObject ordered
	DeleteObject(ctx context.Context, oid zeolite.OID, serial Serial, id TxnID) error

	// CheckCurrentSerialInTransaction makes Vote fail with a read conflict
	// unless serial is current then.
	//zeo:send checkCurrentSerialInTransaction ordered
	CheckCurrentSerialInTransaction(ctx context.Context, oid zeolite.OID, serial Serial, id TxnID) error

	// Undoa undoes the transaction whose tid, in base64, is transID.
	//zeo:send undoa ordered
	Undoa(ctx context.Context, transID Text, id TxnID) error

	// StoreBlobStart begins the upload of a blob. One at a time is possible.
	//zeo:send storeBlobStart ordered
	StoreBlobStart(ctx context.Context) error

	// StoreBlobChunk adds bytes to the blob.
	//zeo:send storeBlobChunk ordered
	StoreBlobChunk(ctx context.Context, chunk []byte) error

	// StoreBlobEnd ends the upload and stores record and blob.
	//zeo:send storeBlobEnd ordered
	StoreBlobEnd(ctx context.Context, oid StoredOID, serial Serial, data Text, id TxnID) error

	// StoreBlobShared stores a record and a blob that the client has put
	// under the given name into the blob directory of oid.
	//zeo:send storeBlobShared ordered
	StoreBlobShared(ctx context.Context, oid StoredOID, serial Serial, data Text, filename string, id TxnID) error

	// StoreEmptyBlob stores a record and a blob of no bytes. Today's clients
	// send StoreBlobStart and StoreBlobEnd instead.
	//zeo:send storeEmptyBlob ordered
	StoreEmptyBlob(ctx context.Context, oid StoredOID, serial Serial, data Text, id LegacyTxnID) error

	// Vote ends the first phase. The result lists the conflicts to resolve
	// before voting again, or the objects whose new state the client cannot
	// know. Errors: *ConflictError, *NotFoundError, *UndoError and others.
	//zeo:call vote ordered behind
	Vote(ctx context.Context, id TxnID) (VoteResult, error)

	// TpcFinish commits and returns the new tid; none if no such transaction
	// is open.
	//zeo:call tpc_finish ordered hook respond
	TpcFinish(ctx context.Context, id TxnID) (OptionalTID, error)

	// TpcAbort forgets the transaction; an unknown id does nothing.
	//zeo:call tpc_abort ordered behind
	TpcAbort(ctx context.Context, id TxnID) error

	// SendBlob has the server send the blob of a revision by
	// ReceiveBlobStart, -Chunk and -Stop, and returns when all have arrived.
	// If there is no such blob it fails with *NotFoundError and sends none.
	//zeo:call sendBlob free respond
	SendBlob(ctx context.Context, oid zeolite.OID, tid zeolite.TID) error

	// IteratorStart opens an iterator over transactions, both ends included,
	// and returns its id.
	//zeo:call iterator_start free start=None stop=None
	IteratorStart(ctx context.Context, start, stop OptionalTID) (int64, error)

	// IteratorNext returns the next transaction, nil at the end, where the
	// iterator ceases to exist.
	//zeo:call iterator_next free
	IteratorNext(ctx context.Context, iid int64) (*TransactionEntry, error)

	// IteratorRecordStart opens an iterator over the records of transaction
	// tid, which must be the one that iterator iid returned last.
	//zeo:call iterator_record_start free
	IteratorRecordStart(ctx context.Context, iid int64, tid zeolite.TID) (int64, error)

	// IteratorRecordNext returns the next record, nil at the end.
	//zeo:call iterator_record_next free
	IteratorRecordNext(ctx context.Context, iid int64) (*zeolite.DataRecord, error)

	// IteratorGC closes iterators; unknown ids are ignored.
	//zeo:send iterator_gc inline
	IteratorGC(ctx context.Context, iids []int64) error

	// Pack packs to a moment, in seconds since 1970. Unless wait is set it
	// returns at once and packing goes on.
	//zeo:call pack free wait=true
	Pack(ctx context.Context, seconds float64, wait bool) error

	// ServerStatus returns a dict of counters.
	//zeo:call server_status free
	ServerStatus(ctx context.Context) (zrpc.Value, error)

	// SetClientLabel names the client in the server's log.
	//zeo:send set_client_label ordered
	SetClientLabel(ctx context.Context, label string) error

	// Ping returns when everything sent before it has been received.
	//zeo:call ping inline
	Ping(ctx context.Context) error

	// The rest are extensions: a client may call them if GetInfo lists their
	// names under the key "extensions".

	// LoadMany is LoadBefore of many objects, all of them as the database was
	// at one moment. The result has an entry for each oid, in order, but may
	// stop short if it grows large: the client asks for the rest then.
	//zeo:call loadMany free hook respond
	LoadMany(ctx context.Context, oids []zeolite.OID, before zeolite.TID) ([]Loaded, error)

	// BlobInfo returns size and checksum of the blob of a revision, else
	// *NotFoundError.
	//zeo:call blobInfo free
	BlobInfo(ctx context.Context, oid zeolite.OID, tid zeolite.TID) (BlobInfo, error)

	// SendBlobFrom is SendBlob of the bytes from an offset on: the rest of a
	// download that was interrupted.
	//zeo:call sendBlobFrom free respond
	SendBlobFrom(ctx context.Context, oid zeolite.OID, tid zeolite.TID, offset int64) error
}

// Extensions are the names of the methods beyond ZEO.
var Extensions = []string{"loadMany", "blobInfo", "sendBlobFrom"}

// ClientStorage is what a server tells a client. All of it is one-way.
type ClientStorage interface {
	// Info updates the dict of GetInfo: length and size. It comes before the
	// reply to TpcFinish, and after a pack.
	//zeo:send info inline
	Info(ctx context.Context, info zrpc.Value) error

	// InvalidateTransaction says that another client's transaction changed
	// the given objects.
	//zeo:send invalidateTransaction inline
	InvalidateTransaction(ctx context.Context, tid zeolite.TID, oids []zeolite.OID) error

	// ReceiveBlobStart begins a download that SendBlob asked for.
	//zeo:send receiveBlobStart inline
	ReceiveBlobStart(ctx context.Context, oid zeolite.OID, tid zeolite.TID) error

	// ReceiveBlobChunk brings the next bytes. They may be used only until it
	// returns.
	//zeo:send receiveBlobChunk inline
	ReceiveBlobChunk(ctx context.Context, oid zeolite.OID, tid zeolite.TID, chunk []byte) error

	// ReceiveBlobStop ends the download.
	//zeo:send receiveBlobStop inline
	ReceiveBlobStop(ctx context.Context, oid zeolite.OID, tid zeolite.TID) error
}
