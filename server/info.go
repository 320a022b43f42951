package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// This file makes the dicts of the protocol.

// GetInfo follows stubs.StorageServer. A client learns from the interfaces
// which abilities the storage has; each must be a tuple of module and name.
func (s *session) GetInfo(context.Context) (zrpc.Value, error) {
	info := s.storage.Info()
	interfaces := zrpc.Tuple{}
	add := func(has bool, names ...string) {
		for _, name := range names {
			if has {
				interfaces = append(interfaces, zrpc.Tuple{"ZODB.interfaces", name})
			}
		}
	}
	add(s.blobs != nil, "IBlobStorageRestoreable", "IBlobStorage")
	add(s.undoer != nil, "IStorageRestoreable")
	add(true, "IStorageIteration")
	add(s.undoer != nil, "IStorageUndoable")
	add(info.RecordIteration, "IStorageCurrentRecordIteration")
	add(s.undoer != nil, "IExternalGC")
	add(true, "IStorage")
	interfaces = append(interfaces, zrpc.Tuple{"zope.interface", "Interface"})
	extensions := zrpc.List{}
	for _, name := range stubs.Extensions {
		if s.blobs != nil || name == "loadMany" {
			extensions = append(extensions, name)
		}
	}
	return zrpc.NewDict(
		"length", info.Objects,
		"size", info.Size,
		"name", strings.ToValidUTF8(info.Name, "\ufffd"), // a path can have any bytes
		"supportsUndo", s.undoer != nil,
		"supports_record_iternext", info.RecordIteration,
		"interfaces", interfaces,
		"extensions", extensions), nil
}

// size is what clients are told of the storage's length and size.
func (e *export) size() *zrpc.Dict {
	info := e.storage.Info()
	return zrpc.NewDict("length", info.Objects, "size", info.Size)
}

// extensionLimits are for the pickles of transaction extensions, which are as
// old as the database and small.
var extensionLimits = zrpc.Limits{AllowProto5: true}

// pickledExtension makes the bytes that are stored of the extension that a
// client sent: a dict, or bytes that are a pickled one. Others will unpickle
// them, some of them in Python, so nothing but plain values is let through:
// the instance of a class, or a class, is replaced by a text that names it.
func pickledExtension(ext zrpc.Value) ([]byte, error) {
	given, isBytes := ext.([]byte)
	if isBytes && len(given) > 0 {
		var err error
		if ext, _, err = zrpc.ParsePickle(given, extensionLimits); err != nil {
			return nil, stubs.Exception(stubs.ClassValueError, "transaction extension: "+err.Error())
		}
	}
	switch dict := calledDict(ext).(type) {
	case nil, []byte:
		return nil, nil
	case *zrpc.Dict:
		if dict.Len() == 0 {
			return nil, nil
		}
		plain, err := zrpc.AppendPickle(nil, zrpc.Plain(dict))
		if err != nil {
			return nil, stubs.Exception(stubs.ClassValueError, "transaction extension: "+err.Error())
		}
		if same, err := zrpc.AppendPickle(nil, dict); isBytes && err == nil && bytes.Equal(same, plain) {
			return clone(given), nil
		}
		return plain, nil
	}
	return nil, stubs.Exception(stubs.ClassTypeError, "transaction extension is not a dict")
}

// calledDict turns a dict that Python wrote as the call dict(pairs), for one of a
// subclass, into a dict.
func calledDict(v zrpc.Value) zrpc.Value {
	call, ok := v.(*zrpc.Object)
	if !ok || (call.Class != zrpc.Global{Module: "builtins", Name: "dict"}) {
		return v
	}
	args, ok := call.Args.(zrpc.Tuple)
	if !ok || len(args) != 1 {
		return v
	}
	pairs, _ := zrpc.Sequence(args[0])
	dict := zrpc.NewDict()
	for _, p := range pairs {
		pair, ok := p.(zrpc.Tuple)
		if !ok || len(pair) != 2 {
			return v
		}
		dict.Set(pair[0], pair[1])
	}
	return dict
}

// extensionDict reads a stored extension for a client. What a client could not
// decode (the instance of some class, say) is given as text.
func extensionDict(ext []byte) *zrpc.Dict {
	if len(ext) == 0 {
		return zrpc.NewDict()
	}
	v, _, err := zrpc.ParsePickle(ext, extensionLimits)
	if err != nil {
		return zrpc.NewDict()
	}
	if dict, ok := zrpc.Plain(v).(*zrpc.Dict); ok {
		return dict
	}
	return zrpc.NewDict()
}

// describe makes a dict of the extension, with pairs that go before it or
// replace what is in it.
func describe(ext []byte, keysAndValues ...zrpc.Value) *zrpc.Dict {
	d := zrpc.NewDict()
	for _, pair := range extensionDict(ext).Pairs {
		d.Set(pair.Key, pair.Val)
	}
	for i := 0; i < len(keysAndValues); i += 2 {
		d.Set(keysAndValues[i], keysAndValues[i+1])
	}
	return d
}

// History follows stubs.StorageServer.
func (s *session) History(ctx context.Context, oid zeolite.OID, size int64) (zrpc.Value, error) {
	size = min(max(size, 0), maxListed+1)
	// The storage gives a whole list, of any number of bytes: it is asked for a
	// longer one when the shorter has been weighed.
	for n := min(size, firstHistory); ; {
		entries, err := s.storage.History(ctx, oid, int(n))
		if err != nil {
			s.logError("history", err)
			return nil, err
		}
		l := listing{list: zrpc.List{}}
		for _, e := range entries {
			err := l.add(describe(e.Extension,
				"time", e.TID.UnixSeconds(),
				"user_name", bytesValue(e.User),
				"description", bytesValue(e.Description),
				"tid", e.TID.Bytes(),
				"size", e.Size))
			if err != nil {
				return nil, err
			}
		}
		if n == size || int64(len(entries)) < n {
			return l.list, nil
		}
		fits := n * maxListedBytes / int64(l.bytes)
		n = min(size, max(2*n, min(fits, 10*n)))
	}
}

// firstHistory is how many entries of a history a storage is asked for at first.
const firstHistory = 100

// A client says how long a list it wants. Beyond maxListed entries, or
// maxListedBytes, it is told to ask for less.
const (
	maxListed      = 100_000
	maxListedBytes = 64 << 20
)

// listing is a list that grows up to these bounds.
type listing struct {
	list  zrpc.List
	bytes int
}

func (l *listing) add(d *zrpc.Dict) error {
	l.bytes += weight(d)
	if len(l.list) == maxListed || l.bytes > maxListedBytes {
		return stubs.Exception(stubs.ClassValueError,
			fmt.Sprintf("more than %d entries, or %d bytes of them: ask for fewer at a time", maxListed, maxListedBytes))
	}
	l.list = append(l.list, d)
	return nil
}

// weight is roughly how many bytes a value has on the wire. The pickle of an
// extension may have far fewer.
func weight(v zrpc.Value) int {
	const each = 16
	n := each
	switch v := v.(type) {
	case string:
		n += len(v)
	case []byte:
		n += len(v)
	case zrpc.Tuple:
		for _, item := range v {
			n += weight(item)
		}
	case zrpc.List:
		for _, item := range v {
			n += weight(item)
		}
	case *zrpc.Dict:
		for _, p := range v.Pairs {
			n += weight(p.Key) + weight(p.Val)
		}
	}
	return n
}

// bytesValue makes bytes of what may be nil, which would be None.
func bytesValue(b []byte) zrpc.Value {
	if b == nil {
		return []byte{}
	}
	return b
}

// UndoLog follows stubs.StorageServer.
func (s *session) UndoLog(ctx context.Context, first, last int64) (zrpc.Value, error) {
	return s.undoLog(ctx, first, last, nil)
}

// UndoInfo follows stubs.StorageServer: spec is a dict of values that an entry
// must have.
func (s *session) UndoInfo(ctx context.Context, first, last int64, spec zrpc.Value) (zrpc.Value, error) {
	dict, ok := spec.(*zrpc.Dict)
	if spec != nil && !ok {
		return nil, stubs.Exception(stubs.ClassTypeError, "undoInfo: the specification must be a dict")
	}
	return s.undoLog(ctx, first, last, dict)
}

func (s *session) undoLog(ctx context.Context, first, last int64, spec *zrpc.Dict) (zrpc.Value, error) {
	l := listing{list: zrpc.List{}}
	if s.undoer == nil {
		return l.list, nil
	}
	if last < 0 {
		// As in ZODB: a negative last is a number of entries.
		last = first - last
	}
	i := int64(0)
	for txn, err := range s.undoer.UndoLog(ctx) {
		if err != nil {
			s.logError("undoLog", err)
			return nil, err
		}
		if i >= last {
			break
		}
		d := zrpc.NewDict(
			"id", []byte(base64.StdEncoding.EncodeToString(txn.TID.Bytes())),
			"time", txn.TID.UnixSeconds(),
			"user_name", bytesValue(txn.User),
			"size", txn.Size,
			"description", bytesValue(txn.Description))
		for _, pair := range extensionDict(txn.Extension).Pairs {
			d.Set(pair.Key, pair.Val)
		}
		if !matches(d, spec) {
			continue
		}
		if i >= first {
			if err := l.add(d); err != nil {
				return nil, err
			}
		}
		i++
	}
	return l.list, nil
}

// matches tells whether a dict has all the values that spec asks for.
func matches(d, spec *zrpc.Dict) bool {
	if spec == nil {
		return true
	}
	for _, pair := range spec.Pairs {
		key, ok := pair.Key.(string)
		if !ok {
			return false
		}
		v, ok := d.Get(key)
		if !ok || !equal(v, pair.Val) {
			return false
		}
	}
	return true
}

func equal(a, b zrpc.Value) bool {
	if x, ok := a.([]byte); ok {
		y, ok := b.([]byte)
		return ok && bytes.Equal(x, y)
	}
	switch a.(type) {
	case nil, bool, int64, uint64, float64, string:
		return a == b
	}
	return false
}
