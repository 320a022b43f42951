package stubs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/tests/vectors"
	"github.com/zeolite-go/zeolite/zrpc"
)

const (
	oid11 = zeolite.OID(0x11)
	tidA  = zeolite.TID(0x0400000000000001)
	tidB  = zeolite.TID(0x0400000000000002)
)

// across sends an error through a dispatcher and a stub.
func across(t *testing.T, enc zrpc.Encoding, err error) error {
	t.Helper()
	conn, _ := linked(t, enc, clientSide(&recorder{}), serverSide(&recorder{err: err}))
	_, got := NewStorageServerStub(conn).Vote(bg, txn1)
	if got == nil {
		t.Fatalf("%v arrives as no error", err)
	}
	return got
}

// TestErrorsThereAndBack raises every error of the field at the other end.
func TestErrorsThereAndBack(t *testing.T) {
	undo := func(oid zeolite.OID, reason string) *zeolite.UndoError {
		return &zeolite.UndoError{Reason: reason, OID: oid, HasOID: true}
	}
	for _, tc := range []struct {
		err   error
		class string
		state string
		back  error // nil: as it went
	}{
		{&zeolite.NotFoundError{OID: oid11}, "ZODB.POSException.POSKeyError", `(b0000000000000011)`, nil},
		{&zeolite.NotFoundError{OID: oid11, TID: tidA}, "ZODB.POSException.POSKeyError", `(b0000000000000011)`,
			&zeolite.NotFoundError{OID: oid11}}, // the protocol does not tell the tid
		{&zeolite.NotFoundError{OID: oid11, TID: tidA, Blob: true}, "ZODB.POSException.POSKeyError",
			`("No blob file", b0000000000000011, b0400000000000001)`, nil},
		{&zeolite.ConflictError{OID: oid11, Committed: tidB, Seen: tidA, ClassName: "m.C", Message: "text"}, "ZODB.POSException.ConflictError",
			`{"class_name": "m.C", "message": "text", "oid": b0000000000000011, "serials": (b0400000000000002, b0400000000000001)}`, nil},
		{&zeolite.ConflictError{OID: oid11, Read: true, Committed: tidB, Seen: tidA}, "ZODB.POSException.ReadConflictError",
			`{"class_name": None, "message": "database read conflict error", "oid": b0000000000000011, "serials": (b0400000000000002, b0400000000000001)}`,
			&zeolite.ConflictError{OID: oid11, Read: true, Committed: tidB, Seen: tidA, Message: "database read conflict error"}},
		{&zeolite.TransactionError{Message: "no begin"}, "ZODB.POSException.StorageTransactionError", `("no begin")`, nil},
		{&zeolite.UndoError{Reason: "packed"}, "ZODB.POSException.UndoError", `{"_oid": None, "_reason": "packed"}`, nil},
		{undo(oid11, "changed"), "ZODB.POSException.UndoError", `{"_oid": b0000000000000011, "_reason": "changed"}`, nil},
		{&zeolite.MultipleUndoErrors{Errs: []*zeolite.UndoError{undo(oid11, "one"), undo(oid1, "two")}}, "ZODB.POSException.MultipleUndoErrors",
			`{"_errs": ((b0000000000000011, "one"), (b1122334455667788, "two")), "_oid": b0000000000000011, "_reason": "one"}`, nil},
		{&zeolite.MultipleUndoErrors{}, "ZODB.POSException.UndoError", `{"_oid": None, "_reason": "undo failed"}`,
			&zeolite.UndoError{Reason: "undo failed"}},
		{&zeolite.StorageError{Message: "full"}, "ZODB.POSException.StorageError", `("full")`,
			&zeolite.StorageError{Class: "ZODB.POSException.StorageError", Message: "full"}},
		{zeolite.ErrReadOnly, "ZODB.POSException.ReadOnlyError", `()`, nil},
	} {
		for _, sent := range []error{tc.err, fmt.Errorf("while voting: %w", tc.err)} {
			class, state := ToRemote(sent)
			if class != tc.class || show(state) != tc.state {
				t.Errorf("%v is raised as %s%s, want %s%s", sent, class, show(state), tc.class, tc.state)
			}
			back := tc.back
			if back == nil {
				back = tc.err
			}
			for _, enc := range encodings {
				got := across(t, enc, sent)
				var remote *zrpc.RemoteError
				if !errors.As(got, &remote) || remote.Class != tc.class || show(remote.State) != tc.state {
					t.Errorf("%v %v: the exception is not kept: %v", enc, sent, remote)
				}
				if !meant(got, back) {
					t.Errorf("%v %v arrives as %#v", enc, sent, got)
				}
				// What came from one peer goes to another unchanged.
				if c, s := ToRemote(got); c != class || show(s) != show(state) {
					t.Errorf("%v %v is passed on as %s%s", enc, sent, c, show(s))
				}
			}
		}
	}
}

// meant tells whether err is, or wraps, an error equal to want.
func meant(err, want error) bool {
	if errors.Is(err, want) {
		return true
	}
	target := reflect.New(reflect.TypeOf(want))
	return errors.As(err, target.Interface()) && reflect.DeepEqual(target.Elem().Interface(), want)
}

// TestErrorsWithoutException are raised as classes that clients do not know, or
// take for something more general.
func TestErrorsWithoutException(t *testing.T) {
	for _, tc := range []struct {
		err   error
		class string
		text  string
	}{
		{fmt.Errorf("loadSerial: %w", zeolite.ErrUnsupported), "ZODB.POSException.Unsupported", "loadSerial"},
		{&zeolite.StorageError{Class: "m.Quota", Message: "full", Err: errors.New("no space")}, "m.Quota", "full: no space"},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.ENOSPC}, "builtins.OSError", "no space"},
		{zeolite.ErrClosed, "ZODB.POSException.StorageError", "closed"},
		{errors.New("other"), "ZODB.POSException.StorageError", "other"},
		{Exception(ClassValueError, "a", int64(1)), "builtins.ValueError", `("a", 1)`},
		{fmt.Errorf("wrapped: %w", Exception(ClassKeyError, "k")), "builtins.KeyError", `("k")`},
	} {
		for _, enc := range encodings {
			got := across(t, enc, tc.err)
			var remote *zrpc.RemoteError
			if !errors.As(got, &remote) || remote.Class != tc.class || !strings.Contains(show(remote.State), tc.text) {
				t.Errorf("%v %v arrives as %v", enc, tc.err, got)
			}
		}
	}
	for _, enc := range encodings {
		if got := across(t, enc, fmt.Errorf("x: %w", zeolite.ErrUnsupported)); !errors.Is(got, zeolite.ErrUnsupported) {
			t.Errorf("unsupported arrives as %v", got)
		}
	}
}

// TestFromRemoteLeavesOthers: only exceptions of the call itself have a meaning.
func TestFromRemoteLeavesOthers(t *testing.T) {
	lost := &zrpc.ConnError{Err: &zrpc.OneWayError{Name: "info", Err: Exception("ZODB.POSException.ReadOnlyError")}}
	for _, err := range []error{nil, os.ErrClosed, lost, &zrpc.ConnError{Err: zrpc.ErrClosed}, Exception("m.C", "x")} {
		if got := FromRemote(err); got != err {
			t.Errorf("%v becomes %v", err, got)
		}
	}
	if err := FromRemote(lost); errors.Is(err, zeolite.ErrReadOnly) {
		t.Error("a lost connection is taken for a refusal")
	}
}

// everyClass says what the exceptions of the session errors_every_class mean,
// by the oid that was asked for. All others are left as exceptions.
var everyClass = map[zeolite.OID]error{
	0x00: &zeolite.NotFoundError{OID: oid11},
	0x01: &zeolite.NotFoundError{OID: oid11, TID: tidA, Blob: true},
	0x02: &zeolite.ConflictError{OID: oid11, Committed: tidB, Seen: tidA, ClassName: "BTrees.Length.Length", Message: "database conflict error"},
	0x03: &zeolite.ConflictError{Message: "database conflict error"},
	0x04: &zeolite.ConflictError{Message: "custom message"},
	0x05: &zeolite.ConflictError{OID: oid11, Committed: tidB, Seen: tidA, Read: true, Message: "database read conflict error"},
	0x07: &zeolite.UndoError{Reason: "some reason", OID: oid11, HasOID: true},
	0x08: &zeolite.UndoError{Reason: "Invalid transaction id"},
	0x09: &zeolite.MultipleUndoErrors{Errs: []*zeolite.UndoError{{Reason: "r1", OID: oid11, HasOID: true}, {Reason: "r2", OID: zeolite.OID(tidA), HasOID: true}}},
	0x0a: zeolite.ErrReadOnly,
	0x0b: &zeolite.TransactionError{Message: "[a 1]"},
	0x0d: &zeolite.StorageError{Class: "ZODB.POSException.StorageError", Message: "se"},
	0x0f: zeolite.ErrUnsupported,
	0x18: &zeolite.NotFoundError{},
}

func TestEveryRecordedException(t *testing.T) {
	checked := 0
	for _, conv := range conversations(t) {
		if conv.session != "errors_every_class" {
			continue
		}
		asked := map[string]zeolite.OID{}
		for _, f := range conv.frames {
			m := decode(t, conv.enc, f.Payload)
			args, _ := zrpc.Sequence(m.Args)
			if f.Dir == vectors.ClientToServer {
				if m.Name == zrpc.Value("loadSerial") {
					oid, _ := zeolite.OIDFromBytes(args[0].([]byte))
					asked[show(m.ID)] = oid
				}
				continue
			}
			oid, ok := asked[show(m.ID)]
			if !ok || show(m.Flag) != "2" {
				continue
			}
			checked++
			err := FromRemote(&zrpc.RemoteError{Class: args[0].(string), State: args[1]})
			want, known := everyClass[oid]
			var remote *zrpc.RemoteError
			switch {
			case !errors.As(err, &remote) || remote.Class != args[0].(string) || show(remote.State) != show(args[1]):
				t.Errorf("%v %v: the exception is not kept: %#v", conv.enc, oid, err)
			case known && !meant(err, want):
				t.Errorf("%v %v: %s%s means %#v", conv.enc, oid, args[0], show(args[1]), err)
			case !known && err != error(remote):
				t.Errorf("%v %v: %s%s is taken for %v", conv.enc, oid, args[0], show(args[1]), err)
			case err.Error() == "":
				t.Errorf("%v %v: an error without text", conv.enc, oid)
			}
		}
	}
	if checked < 80 {
		t.Errorf("only %d exceptions", checked)
	}
}
