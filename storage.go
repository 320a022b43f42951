package zeolite

import (
	"context"
	"io"
	"iter"
	"time"
)

// Storage is a ZODB database as bytes: it loads revisions and commits
// transactions. Back ends implement it; so does the network client, and the
// server serves whatever implements it.
//
// All methods may be called from any number of goroutines at once. A method
// that takes a context gives up when the context ends, as soon as it can
// without leaving anything half-done. Byte slices in results belong to the
// caller, unless a method says otherwise.
//
// Some storages can do more: [Undoer], [Packer], [BlobStorage],
// [SharedBlobStorage], [QuickLoader], [QuickCommitter], [Watcher] and [Follower]
// are the optional abilities, and [Rewriter] and [Holder] those of a [Txn]. A
// wrapper that cannot tell by its type whether it has one answers ErrUnsupported
// and says so in [Info].
type Storage interface {
	// Info describes the storage as it is now. It is cheap and never fails.
	Info() Info

	// LastTID returns the TID of the last transaction that is visible, zero
	// if there is none (lastTransaction).
	LastTID() TID

	// LoadBefore returns the newest revision of oid with a TID smaller than
	// before. It fails with *NotFoundError if the object is unknown or that
	// revision is a deletion, and with ErrNotYet if all of its revisions are
	// later (where ZEO's loadBefore answers None).
	LoadBefore(ctx context.Context, oid OID, before TID) (Revision, error)

	// LoadSerial returns the bytes of exactly the revision of oid that
	// transaction serial wrote, else *NotFoundError.
	LoadSerial(ctx context.Context, oid OID, serial TID) ([]byte, error)

	// CurrentTID returns the serial of the current revision of oid, else
	// *NotFoundError (getTid).
	CurrentTID(ctx context.Context, oid OID) (TID, error)

	// History describes up to n revisions of oid, newest first, by the
	// transactions that wrote them, else *NotFoundError. Size is the number
	// of bytes of the revision's own record, 0 if it shares the data of
	// another one.
	History(ctx context.Context, oid OID, n int) ([]TransactionInfo, error)

	// NewOIDs returns n oids (n > 0) that this storage never handed out
	// before and that no object has, also not across restarts, unless the
	// process died before any object with them was stored.
	NewOIDs(ctx context.Context, n int) ([]OID, error)

	// NextRecord returns the current revision of the object with the
	// smallest oid that is at least from, and the oid to go on with
	// (record_iternext). More is false after the last object; *NotFoundError
	// says there is no such object at all. Deleted objects are passed over.
	NextRecord(ctx context.Context, from OID) (rec CurrentRecord, err error)

	// Transactions yields the visible transactions with start <= TID <= stop,
	// in TID order, until the consumer stops or an error was yielded.
	// Transactions that commit meanwhile may or may not be included. The
	// record and its Records stay usable until the storage is packed.
	Transactions(ctx context.Context, start, stop TID) iter.Seq2[*TransactionRecord, error]

	// Changes yields, in TID order, which objects each transaction later
	// than after changed (stored, restored, undone or deleted). It is
	// answered from what is stored, so it reaches back to the last pack at
	// least. The OIDs of a Change are valid until the next step only.
	Changes(ctx context.Context, after TID) iter.Seq2[Change, error]

	// Begin starts a transaction. It does not block and takes no locks.
	// It fails with ErrReadOnly on a read-only storage.
	Begin(ctx context.Context, meta TxnMeta) (Txn, error)

	// Close releases everything. Calls under way may fail with ErrClosed; a
	// transaction that was not finished is aborted. A second Close does
	// nothing.
	Close() error
}

// Txn is one transaction being built: stores, Vote, then Finish or Abort. It
// is used by one goroutine at a time.
//
// The caller (the server's commit locks, in a server) makes sure that from the
// first store to Finish or Abort no other open transaction of this process
// touches the same objects, and that a transaction that calls Undo or Restore,
// or whose meta names its TID, is open alone. Transactions on other objects
// may be open, and voted, at the same time: the TID is chosen in Finish.
//
// Record data given to a Txn must not be modified until Finish or Abort
// returned; the Txn may keep referring to it until then.
//
// A method that fails leaves the transaction as it was before the call, so a
// caller may collect a *ConflictError, store other objects, and abort in the
// end. Storing an object again replaces what this transaction stored before.
type Txn interface {
	// Store adds a revision of oid. serial is the one the writer read, zero
	// for a new object; if it is not current the error is *ConflictError.
	Store(ctx context.Context, oid OID, serial TID, data []byte) error

	// StoreBlob is Store with a blob that CreateBlob (or AdoptBlob) of the
	// same storage returned and the caller finished writing. The upload
	// remains the caller's until Finish succeeds, which consumes it: an
	// aborted transaction leaves it intact, to be stored again.
	StoreBlob(ctx context.Context, oid OID, serial TID, data []byte, blob BlobUpload) error

	// Delete adds a revision of oid that says the object is gone
	// (deleteObject). Errors: *NotFoundError, *ConflictError.
	Delete(ctx context.Context, oid OID, serial TID) error

	// CheckCurrent fails with *ConflictError (Read set) unless serial is the
	// current serial of oid (checkCurrentSerialInTransaction); with
	// *NotFoundError if there is no such object.
	CheckCurrent(ctx context.Context, oid OID, serial TID) error

	// Restore adds a revision without any check, to copy a database
	// (IStorageRestoreable.restore). A nil data says the object is gone. If
	// prev is not zero, data equals that of the revision prev, and the
	// storage may store a reference instead.
	Restore(ctx context.Context, oid OID, data []byte, prev TID) error

	// RestoreBlob is Restore with a blob, owned as in StoreBlob.
	RestoreBlob(ctx context.Context, oid OID, data []byte, prev TID, blob BlobUpload) error

	// Undo adds revisions that give every object that transaction tid
	// changed the state it had before, and returns their oids. It fails with
	// *UndoError or *MultipleUndoErrors; with ErrUnsupported if the storage
	// is not an Undoer.
	//
	// If a later transaction changed an object, too, a storage may leave it to
	// the caller to merge the two changes: then Vote fails with a
	// *ConflictError that has Data, until the object is stored with the
	// serial Committed.
	Undo(ctx context.Context, tid TID) ([]OID, error)

	// Vote ends the first phase: everything that can fail has been done,
	// space is reserved, and Finish will succeed unless the machine fails.
	// A storage that others commit to may find conflicts here that Store did
	// not see; it reports all of them, joined (see Conflicts), so that they
	// can be resolved in a transaction that is begun anew. Of those that an
	// Undo met it may leave some to the next Vote.
	Vote(ctx context.Context) error

	// Finish commits: the transaction gets its TID, becomes durable, is
	// published, and is visible when Finish returns. Finish never leaves a
	// transaction half visible; if it fails, the transaction is aborted
	// unless the error wraps ErrInDoubt.
	Finish(ctx context.Context, publish Publish) (TID, error)

	// Abort forgets the transaction, in any state but finished; after Finish
	// it does nothing.
	Abort()
}

// Rewriter is a Txn that learns only from Vote which objects get another state
// than was stored: those that an Undo changes, which Undo does not return then,
// or that a server behind it resolved.
type Rewriter interface {
	// Rewritten returns these objects, once Vote succeeded.
	Rewritten() []OID
}

// Holder is a Txn of a storage that others commit to. It can keep them away
// from objects while a conflict is resolved: or whoever resolves it might meet
// the next one, for ever.
type Holder interface {
	// Hold takes back all that the open transaction was given, as if it had
	// just begun, and keeps everybody else from changing these objects until
	// it ends. If it fails, the transaction can only be aborted.
	Hold(ctx context.Context, oids []OID) error
}

// Publish is called by a storage exactly once for each transaction it commits,
// in TID order over all transactions, when the transaction is durable and
// before any load can show it. oids are the objects that changed, each once.
// Publish must call visible, which makes the transaction loadable and LastTID
// count it, before it returns. A nil Publish stands for one that only does so.
//
// So whoever publishes can queue invalidations first, and can hold off answers
// for exactly the moment in which old and new state are both about.
// Publish and visible do no I/O and must be quick: commits wait for them.
type Publish func(tid TID, oids []OID, visible func())

// Info describes a storage.
type Info struct {
	// Name is for people: a path, an address.
	Name string
	// Objects is the number of objects, Size the bytes they occupy on disk
	// or in memory; both may be estimates.
	Objects, Size int64
	// ReadOnly storages refuse Begin and NewOIDs.
	ReadOnly bool
	// Undo, Pack, Blobs say which optional abilities work.
	Undo, Pack, Blobs bool
	// RecordIteration says whether NextRecord works.
	RecordIteration bool
}

// Revision is one stored state of an object, and the half-open range of TIDs
// in which it was current.
type Revision struct {
	Data []byte
	// TID wrote the revision: its serial.
	TID TID
	// End is the TID of the next revision, zero if this one is current.
	End TID
}

// CurrentRecord is one step of a walk over all current revisions.
type CurrentRecord struct {
	OID  OID
	TID  TID
	Data []byte
	// Next is the oid to ask for next; More is false if there is none.
	Next OID
	More bool
}

// TransactionInfo describes a stored transaction.
type TransactionInfo struct {
	TID TID
	// Status is ' ' for a normal transaction, 'p' for one that was packed.
	Status byte
	// User, Description and Extension are as in TxnMeta.
	User, Description, Extension []byte
	// Size is the number of bytes the transaction occupies, as undoLog
	// reports it; zero if the storage cannot tell.
	Size int64
}

// TransactionRecord is a stored transaction with its records.
type TransactionRecord struct {
	TransactionInfo
	// Records yields the records in the order they were stored. It may be
	// ranged over repeatedly.
	Records iter.Seq2[DataRecord, error]
	// Borrowed, if not nil, yields the same records at less cost. See Each.
	Borrowed iter.Seq2[DataRecord, error]
}

// Each is Records for those who look at the records as they come: it is to be
// used before the next step to a transaction, by the same goroutine, and the Data
// of a record is valid until the next one only.
func (t *TransactionRecord) Each() iter.Seq2[DataRecord, error] {
	if t.Borrowed != nil {
		return t.Borrowed
	}
	return t.Records
}

// DataRecord is one record of a stored transaction.
type DataRecord struct {
	OID OID
	TID TID
	// Data is the state, nil if the record says that the object is gone.
	Data []byte
	// DataTID is not zero if the record shares its data with that earlier
	// revision (undo writes such records).
	DataTID TID
}

// Change says which objects a transaction changed.
type Change struct {
	TID  TID
	OIDs []OID
}

// Undoer is a storage that can undo; its transactions' Undo works.
type Undoer interface {
	// UndoLog yields the transactions that may be undone, newest first, and
	// ends at the last pack. Those whose status is not ' ' are passed over.
	UndoLog(ctx context.Context) iter.Seq2[*TransactionInfo, error]
}

// Packer is a storage that can forget.
type Packer interface {
	// Pack removes revisions that were superseded at or before the moment
	// tid stands for and, with opts.GC, objects that were unreachable from
	// the root then. Readers and writers go on meanwhile. Packing to an
	// earlier moment than before does nothing. If it fails or the process
	// dies, the database is as before.
	Pack(ctx context.Context, tid TID, opts PackOptions) error
}

// PackOptions are the options of Pack.
type PackOptions struct {
	// GC chooses garbage collection; nil means the storage's configured
	// default.
	GC *bool
	// Progress, if not nil, is told now and then how far packing is.
	Progress func(PackProgress)
}

// PackProgress says how far a pack is: Done of Total units of the named phase.
type PackProgress struct {
	Phase       string
	Done, Total int64
	// Remaining estimates the time the phase still takes, zero if unknown.
	Remaining time.Duration
}

// BlobStorage is a storage that keeps blobs.
type BlobStorage interface {
	// OpenBlob opens the blob of the revision tid of oid, else
	// *NotFoundError with Blob set. What can fail fails here, but costly
	// resources may be acquired at the first read.
	OpenBlob(ctx context.Context, oid OID, tid TID) (Blob, error)

	// CreateBlob starts an upload.
	CreateBlob(ctx context.Context) (BlobUpload, error)
}

// SharedBlobStorage is a BlobStorage whose blob directory clients may write to
// themselves (storeBlobShared).
type SharedBlobStorage interface {
	// AdoptBlob makes an upload of a file that a client has put into the
	// blob directory of oid. name is a file name without any separator. A
	// bad name or missing file is an error.
	AdoptBlob(ctx context.Context, oid OID, name string) (BlobUpload, error)
}

// QuickLoader is a storage that answers most loads from memory: the server then
// has them answered by the goroutine that reads the connection.
type QuickLoader interface {
	// LoadNow is LoadBefore for as long as it need not wait, for a disk or a
	// lock that is held for long. It answers false if it would have to, if the
	// answer is not a revision, or if the revision does not fit into buf; then
	// LoadBefore is to be asked. Data is within buf.
	LoadNow(oid OID, before TID, buf []byte) (Revision, bool)
}

// QuickCommitter is a storage whose transactions seldom wait for long: the server
// then has small ones voted and finished by the goroutine that reads the
// connection.
type QuickCommitter interface {
	// VoteNow says whether a transaction that stores, deletes or checks these
	// objects, with records of size bytes in all, could be begun, given them
	// and voted right now without waiting, for a disk or a lock that is held
	// for long.
	VoteNow(oids []OID, size int) bool

	// FinishNow says whether a small transaction that has been voted, with these
	// blobs, would be finished, as far as can be known, without waiting for more
	// than a disk that takes less than a millisecond.
	FinishNow(blobs map[OID]BlobUpload) bool
}

// Blob is an open, immutable blob: its size and its bytes at any offset. It is
// used by one goroutine at a time. A Blob that is a file also has a method
// File() *os.File, whose result may be read by offset until Close.
type Blob interface {
	io.ReaderAt
	Size() int64
	Close() error
}

// BlobUpload is a blob being written. It is used by one goroutine at a time.
type BlobUpload interface {
	io.Writer
	// Size is the number of bytes written so far.
	Size() int64
	// Complete ends writing: what can fail at all has failed after it. An
	// upload must be complete before StoreBlob.
	Complete() error
	// Discard removes the upload. It does nothing after a Finish consumed
	// it.
	Discard() error
}

// Watcher is a storage in which others commit too: another server on the same
// database, or the server behind a client.
type Watcher interface {
	// Watch has publish called, besides by Finish, for transactions that
	// others committed. It is called once, before the storage is used.
	// If the storage had to skip over transactions whose changes it cannot
	// tell, it calls lost, and then publishes a transaction at or after them:
	// everything read before may be stale.
	Watch(publish Publish, lost func())
}

// Follower is a Watcher that can make sure that it knows what others committed.
// A server does so when a client registers, which may come from another server
// on the same database: it must not find itself in the future.
type Follower interface {
	Watcher
	// CatchUp publishes all that has been committed up to now, by anybody.
	CatchUp(ctx context.Context) error
}
