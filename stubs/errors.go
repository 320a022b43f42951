package stubs

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// Exceptions cross the wire as the name of a Python class, matched as text,
// and its state. Python clients raise these classes as they are, and everything
// else as ZEO.Exceptions.ServerException.
const (
	classPOSKeyError        = "ZODB.POSException.POSKeyError"
	classReadOnly           = "ZODB.POSException.ReadOnlyError"
	classConflict           = "ZODB.POSException.ConflictError"
	classReadConflict       = "ZODB.POSException.ReadConflictError"
	classUndo               = "ZODB.POSException.UndoError"
	classMultipleUndoErrors = "ZODB.POSException.MultipleUndoErrors"
	classUnsupported        = "ZODB.POSException.Unsupported"
	classStorageError       = "ZODB.POSException.StorageError"

	// ClassTransaction is the class of errors about the state of a
	// transaction.
	ClassTransaction = "ZODB.POSException.StorageTransactionError"

	// ClassValueError, ClassKeyError, ClassTypeError and ClassAttributeError
	// are Python's own.
	ClassValueError     = "builtins.ValueError"
	ClassKeyError       = "builtins.KeyError"
	ClassTypeError      = "builtins.TypeError"
	ClassAttributeError = "builtins.AttributeError"
	classOSError        = "builtins.OSError"
)

// Exception makes an error that is raised at the peer as the given Python
// class with these arguments.
func Exception(class string, args ...zrpc.Value) error {
	return &zrpc.RemoteError{Class: class, State: zrpc.Tuple(args)}
}

// ToRemote returns the Python exception that an error stands for. The state is
// the exception's arguments as a tuple, or its attributes as a dict, whichever
// Python clients need to build it again.
func ToRemote(err error) (class string, state zrpc.Value) {
	var (
		remote    *zrpc.RemoteError
		notFound  *zeolite.NotFoundError
		conflict  *zeolite.ConflictError
		txn       *zeolite.TransactionError
		undo      *zeolite.UndoError
		undos     *zeolite.MultipleUndoErrors
		storage   *zeolite.StorageError
		osFailure syscall.Errno
	)
	switch {
	case errors.As(err, &undos):
		// Before what came from a peer, which may hold pickled exceptions:
		// they cannot be passed on, but their reasons can.
		return undosToRemote(undos)
	case errors.As(err, &remote):
		return remote.Class, remote.State
	case errors.As(err, &notFound):
		if notFound.Blob {
			return classPOSKeyError, zrpc.Tuple{"No blob file", notFound.OID.Bytes(), notFound.TID.Bytes()}
		}
		return classPOSKeyError, zrpc.Tuple{notFound.OID.Bytes()}
	case errors.As(err, &conflict):
		return conflictToRemote(conflict)
	case errors.As(err, &txn):
		return ClassTransaction, zrpc.Tuple{txn.Message}
	case errors.As(err, &undo):
		dict := zrpc.NewDict("_reason", undo.Reason, "_oid", nil)
		if undo.HasOID {
			dict = zrpc.NewDict("_reason", undo.Reason, "_oid", undo.OID.Bytes())
		}
		return classUndo, dict
	case errors.As(err, &storage):
		class := storage.Class
		if class == "" {
			class = classStorageError
		}
		return class, zrpc.Tuple{storage.Error()}
	case errors.Is(err, zeolite.ErrReadOnly):
		return classReadOnly, zrpc.Tuple{}
	case errors.Is(err, zeolite.ErrUnsupported):
		return classUnsupported, zrpc.Tuple{err.Error()}
	case errors.As(err, &osFailure):
		return classOSError, zrpc.Tuple{int64(osFailure), err.Error()}
	}
	return classStorageError, zrpc.Tuple{err.Error()}
}

func conflictToRemote(c *zeolite.ConflictError) (string, zrpc.Value) {
	class, message := classConflict, "database conflict error"
	if c.Read {
		class, message = classReadConflict, "database read conflict error"
	}
	if c.Message != "" {
		message = c.Message
	}
	var className zrpc.Value
	if c.ClassName != "" {
		className = c.ClassName
	}
	// A Python client needs all of message, oid and serials: without one of
	// them its call would never return.
	return class, zrpc.NewDict(
		"message", message,
		"oid", c.OID.Bytes(),
		"class_name", className,
		"serials", zrpc.Tuple{c.Committed.Bytes(), c.Seen.Bytes()})
}

// undosToRemote gives the reasons as text: nested exceptions would reach a
// client of either encoding as something that it cannot print.
func undosToRemote(u *zeolite.MultipleUndoErrors) (string, zrpc.Value) {
	if len(u.Errs) == 0 {
		return classUndo, zrpc.NewDict("_reason", "undo failed", "_oid", nil)
	}
	errs := make(zrpc.List, len(u.Errs))
	for i, e := range u.Errs {
		errs[i] = zrpc.Tuple{e.OID.Bytes(), e.Reason}
	}
	return classMultipleUndoErrors, zrpc.NewDict(
		"_reason", u.Errs[0].Reason,
		"_oid", u.Errs[0].OID.Bytes(),
		"_errs", errs)
}

// FromRemote turns a *zrpc.RemoteError into the error of the field that it
// stands for; the RemoteError stays reachable by errors.As. Exceptions without
// a Go error, and errors of other types, are returned as they are.
func FromRemote(err error) error {
	// Only what the call itself raised: the reason for which a connection was
	// lost may hold a RemoteError too, of a call of the peer.
	remote, ok := err.(*zrpc.RemoteError)
	if !ok {
		return err
	}
	if meant := meaning(remote); meant != nil {
		return &remoteFailure{error: meant, remote: remote}
	}
	return err
}

// remoteFailure is an error of the field that came as an exception.
type remoteFailure struct {
	error
	remote *zrpc.RemoteError
}

func (e *remoteFailure) Unwrap() []error { return []error{e.error, e.remote} }

func meaning(r *zrpc.RemoteError) error {
	args, _ := zrpc.Sequence(r.State)
	dict, _ := r.State.(*zrpc.Dict)
	switch r.Class {
	case classPOSKeyError:
		return notFoundFrom(args)
	case classReadOnly:
		return zeolite.ErrReadOnly
	case classConflict, classReadConflict:
		return conflictFrom(dict, r.Class == classReadConflict)
	case ClassTransaction:
		return &zeolite.TransactionError{Message: text(args)}
	case classUndo:
		return undoFrom(dict, args)
	case classMultipleUndoErrors:
		return undosFrom(dict)
	case classUnsupported:
		return fmt.Errorf("%w: %s", zeolite.ErrUnsupported, text(args))
	case classStorageError:
		return &zeolite.StorageError{Class: r.Class, Message: text(args)}
	}
	return nil
}

// notFoundFrom reads (oid,), (oid, tid) or (text, oid, tid).
func notFoundFrom(args []zrpc.Value) error {
	e := &zeolite.NotFoundError{}
	if len(args) == 3 {
		e.Blob = true
		args = args[1:]
	}
	if len(args) > 0 {
		b, _ := args[0].([]byte)
		e.OID, _ = zeolite.OIDFromBytes(b)
	}
	if len(args) > 1 {
		b, _ := args[1].([]byte)
		e.TID, _ = zeolite.TIDFromBytes(b)
	}
	return e
}

func conflictFrom(dict *zrpc.Dict, read bool) error {
	e := &zeolite.ConflictError{Read: read}
	if dict == nil {
		return e
	}
	e.OID, _ = zeolite.OIDFromBytes(bytesAt(dict, "oid"))
	e.Message, e.ClassName = textAt(dict, "message"), textAt(dict, "class_name")
	e.Committed, e.Seen, _ = serialsFrom(at(dict, "serials"))
	return e
}

func undoFrom(dict *zrpc.Dict, args []zrpc.Value) error {
	e := &zeolite.UndoError{Reason: text(args)}
	if dict != nil {
		e.Reason = textAt(dict, "_reason")
		if b := bytesAt(dict, "_oid"); b != nil {
			e.OID, _ = zeolite.OIDFromBytes(b)
			e.HasOID = true
		}
	}
	return e
}

func undosFrom(dict *zrpc.Dict) error {
	all := &zeolite.MultipleUndoErrors{}
	if dict == nil {
		return all
	}
	errs, _ := zrpc.Sequence(at(dict, "_errs"))
	for _, item := range errs {
		pair, _ := zrpc.Sequence(item)
		if len(pair) != 2 {
			continue
		}
		e := &zeolite.UndoError{HasOID: true}
		if b, ok := pair[0].([]byte); ok {
			e.OID, _ = zeolite.OIDFromBytes(b)
		}
		e.Reason = reasonOf(pair[1])
		all.Errs = append(all.Errs, e)
	}
	return all
}

// reasonOf reads the reason of one failure: text from us; from Python's server
// the pair (class, state) in msgpack, or a pickled exception, which is built of
// the same pair.
func reasonOf(v zrpc.Value) string {
	if s, ok := v.(string); ok {
		return s
	}
	parts := v
	if object, ok := v.(*zrpc.Object); ok {
		parts = object.Args
	}
	if pair, ok := zrpc.Sequence(parts); ok && len(pair) == 2 {
		if dict, ok := pair[1].(*zrpc.Dict); ok {
			if s := textAt(dict, "_reason"); s != "" {
				return s
			}
		}
	}
	return fmt.Sprint(zrpc.Plain(v))
}

// text joins the arguments of an exception for a message.
func text(args []zrpc.Value) string {
	if len(args) == 1 {
		if s, ok := args[0].(string); ok {
			return s
		}
	}
	return fmt.Sprint(args)
}
