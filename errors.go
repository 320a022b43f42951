package zeolite

import (
	"errors"
	"fmt"
	"strings"
)

// The errors of the field. Each names the Python exception it stands for on
// the wire (the table is in package stubs). Test for them with errors.Is and
// errors.As: the values that storages return carry details or are wrapped.
var (
	// ErrNotYet says that an object exists but had no revision at the time
	// asked for. It is not an exception in Python: loadBefore answers None.
	ErrNotYet = errors.New("the object did not exist yet")

	// ErrReadOnly refuses a write on a read-only storage or connection
	// (ZODB.POSException.ReadOnlyError).
	ErrReadOnly = errors.New("read-only")

	// ErrUnsupported says that a storage lacks an ability
	// (ZODB.POSException.Unsupported).
	ErrUnsupported = errors.New("not supported by this storage")

	// ErrClosed says that the storage, or the connection to it, was closed.
	ErrClosed = errors.New("storage is closed")
)

// NotFoundError says that an object, one of its revisions, or the blob of a
// revision does not exist (ZODB.POSException.POSKeyError).
type NotFoundError struct {
	OID OID
	// TID is the serial asked for, where one was asked for and the protocol
	// names it; else zero.
	TID TID
	// Blob is true when the record may exist but its blob does not.
	Blob bool
}

func (e *NotFoundError) Error() string {
	what := "object"
	if e.Blob {
		what = "blob of object"
	}
	if e.TID != 0 {
		return fmt.Sprintf("no %s %v at %v", what, e.OID, e.TID)
	}
	return fmt.Sprintf("no %s %v", what, e.OID)
}

// ConflictError says that a transaction wrote, or relied on, an object that
// another transaction changed meanwhile (ZODB.POSException.ConflictError, or
// ReadConflictError if Read is set).
type ConflictError struct {
	OID OID
	// Committed is the serial that is current in the storage, Seen the one
	// the transaction says it read. Both are zero when unknown.
	Committed, Seen TID
	// Data is set by an undo that met a later revision: the state to merge, which
	// the object had before the transaction to be undone. Seen is that transaction.
	Data []byte
	// Read marks a conflict of CheckCurrent: the object was only read.
	Read bool
	// ClassName is the class of the object, if known.
	ClassName string
	// Message is the text of a conflict that came from a peer; it may be empty.
	Message string
}

func (e *ConflictError) Error() string {
	kind := "conflict"
	if e.Read {
		kind = "read conflict"
	}
	if e.Message != "" {
		return fmt.Sprintf("%s: %s (oid %v, committed %v, transaction read %v)", kind, e.Message, e.OID, e.Committed, e.Seen)
	}
	return fmt.Sprintf("%s on oid %v: committed %v, transaction read %v", kind, e.OID, e.Committed, e.Seen)
}

// Conflicts returns every *ConflictError that an error wraps, however joined.
func Conflicts(err error) (conflicts []*ConflictError) {
	switch e := err.(type) {
	case nil:
	case *ConflictError:
		conflicts = append(conflicts, e)
	case interface{ Unwrap() []error }:
		for _, part := range e.Unwrap() {
			conflicts = append(conflicts, Conflicts(part)...)
		}
	default:
		return Conflicts(errors.Unwrap(err))
	}
	return conflicts
}

// TransactionError says that a call does not fit the state of its transaction:
// vote without begin, a second begin, another transaction's id
// (ZODB.POSException.StorageTransactionError).
type TransactionError struct{ Message string }

func (e *TransactionError) Error() string { return e.Message }

// UndoError says why a transaction cannot be undone
// (ZODB.POSException.UndoError).
type UndoError struct {
	Reason string
	// OID is the object that stands in the way; HasOID is false if the
	// failure concerns the whole transaction.
	OID    OID
	HasOID bool
}

func (e *UndoError) Error() string {
	if e.HasOID {
		return fmt.Sprintf("undo: %s (oid %v)", e.Reason, e.OID)
	}
	return "undo: " + e.Reason
}

// MultipleUndoErrors collects the objects that keep a transaction from being
// undone (ZODB.POSException.MultipleUndoErrors). Each element has an OID.
type MultipleUndoErrors struct{ Errs []*UndoError }

func (e *MultipleUndoErrors) Error() string {
	texts := make([]string, len(e.Errs))
	for i, u := range e.Errs {
		texts[i] = u.Error()
	}
	return strings.Join(texts, "; ")
}

// StorageError is any other failure that a storage reports about itself: the
// quota is exceeded, a file is damaged, packing runs already. Class is the
// Python exception class that a ZEO client is told
// ("ZODB.FileStorage.FileStorage.FileStorageQuotaError"); empty means
// ZODB.POSException.StorageError.
type StorageError struct {
	Class   string
	Message string
	Err     error
}

func (e *StorageError) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

// Unwrap returns the cause, if there is one.
func (e *StorageError) Unwrap() error { return e.Err }

// ErrInDoubt says that a commit was asked for but its outcome is unknown: the
// connection broke before the answer came.
var ErrInDoubt = errors.New("outcome of the commit is unknown")
