package server

import (
	"fmt"
	"testing"
	"unicode/utf8"

	"github.com/zeolite-go/zeolite/zrpc"
)

// This file reads messages as strictly as the strictest ZEO client does: a
// reply that a Python client cannot decode, or cannot build an exception from,
// leaves its caller waiting forever.

// strictMessage decodes a message from the server.
func strictMessage(enc zrpc.Encoding, payload []byte) (message, error) {
	var v zrpc.Value
	var rest []byte
	var err error
	if enc == zrpc.Pickle {
		v, rest, err = zrpc.ParsePickle(payload, zrpc.Limits{})
	} else {
		v, rest, err = zrpc.ParseMsgpack(payload, zrpc.Limits{})
	}
	if err != nil {
		return message{}, err
	}
	if len(rest) > 0 {
		return message{}, fmt.Errorf("%d bytes follow the message", len(rest))
	}
	four, ok := v.(zrpc.Tuple)
	if !ok || len(four) != 4 {
		return message{}, fmt.Errorf("not a tuple of four: %v", v)
	}
	name, ok := four[2].(string)
	if !ok {
		return message{}, fmt.Errorf("the name is no text: %v", four[2])
	}
	m := message{id: four[0], flag: four[1], name: name, value: four[3]}
	if err := strictValue(m.value); err != nil {
		return m, fmt.Errorf("%s: %w", name, err)
	}
	if name == ".reply" {
		return m, strictReply(m)
	}
	return m, strictCall(m)
}

// strictCall checks a one-way call to the client. No others exist.
func strictCall(m message) error {
	if m.id != int64(0) || m.flag != true {
		return fmt.Errorf("%s is not marked as one-way: id %v, flag %v", m.name, m.id, m.flag)
	}
	args, ok := m.value.(zrpc.Tuple)
	if !ok {
		return fmt.Errorf("%s: arguments are %T", m.name, m.value)
	}
	want := map[string]int{"info": 1, "invalidateTransaction": 2,
		"receiveBlobStart": 2, "receiveBlobChunk": 3, "receiveBlobStop": 2}
	n, known := want[m.name]
	if !known || len(args) != n {
		return fmt.Errorf("a client has no method %s of %d arguments", m.name, len(args))
	}
	return nil
}

// strictReply checks the flag, and what a client needs to build an exception.
func strictReply(m message) error {
	switch m.flag {
	case int64(0):
		return nil
	case int64(2):
	default:
		return fmt.Errorf("flag of a reply is %v (%T)", m.flag, m.flag)
	}
	pair, ok := m.value.(zrpc.Tuple)
	if !ok || len(pair) != 2 {
		return fmt.Errorf("an exception is not a pair: %v", m.value)
	}
	class, ok := pair[0].(string)
	if !ok {
		return fmt.Errorf("the class of an exception is %T", pair[0])
	}
	return strictException(class, pair[1])
}

// strictException follows the table by which ZEO's client builds exceptions.
func strictException(class string, state zrpc.Value) error {
	args, isArgs := state.(zrpc.Tuple)
	dict, isDict := state.(*zrpc.Dict)
	need := func(keys ...string) error {
		if !isDict {
			return fmt.Errorf("%s: the state is %T, want a dict", class, state)
		}
		for _, k := range keys {
			if _, ok := dict.Get(k); !ok {
				return fmt.Errorf("%s: no %s", class, k)
			}
		}
		return nil
	}
	switch class {
	case "builtins.KeyError", "builtins.TypeError", "ZODB.POSException.StorageTransactionError":
		if !isArgs {
			return fmt.Errorf("%s: the state is %T, want arguments", class, state)
		}
	case "ZODB.POSException.POSKeyError":
		switch {
		case len(args) == 1:
			return strictID(args[0])
		case len(args) == 3:
			if err := strictID(args[1]); err != nil {
				return err
			}
			return strictID(args[2])
		}
		return fmt.Errorf("%s: %d arguments", class, len(args))
	case "ZODB.POSException.ReadOnlyError":
		if !isArgs || len(args) != 0 {
			return fmt.Errorf("%s: state %v, want none", class, state)
		}
	case "ZODB.POSException.ConflictError", "ZODB.POSException.ReadConflictError":
		if err := need("message", "oid", "serials", "class_name"); err != nil {
			return err
		}
		oid, _ := dict.Get("oid")
		serials, _ := dict.Get("serials")
		pair, _ := serials.(zrpc.Tuple)
		if len(pair) != 2 {
			return fmt.Errorf("%s: serials are %v", class, serials)
		}
		for _, id := range []zrpc.Value{oid, pair[0], pair[1]} {
			if err := strictID(id); err != nil {
				return fmt.Errorf("%s: %w", class, err)
			}
		}
	case "ZODB.POSException.BTreesConflictError":
		return need("p1", "p2", "p3", "reason")
	case "ZODB.POSException.MultipleUndoErrors":
		if err := need("_errs"); err != nil {
			return err
		}
		errs, _ := dict.Get("_errs")
		list, ok := errs.(zrpc.List)
		if !ok {
			tuple, _ := errs.(zrpc.Tuple)
			list = zrpc.List(tuple)
		}
		if len(list) == 0 {
			return fmt.Errorf("%s: no failures", class)
		}
		for _, e := range list {
			if pair, _ := e.(zrpc.Tuple); len(pair) != 2 {
				return fmt.Errorf("%s: not a pair: %v", class, e)
			}
		}
	default:
		// Raised as ServerException(class, state), whatever the state is.
		if !isArgs && !isDict {
			return fmt.Errorf("%s: the state is %T", class, state)
		}
	}
	return nil
}

func strictID(v zrpc.Value) error {
	if b, ok := v.([]byte); !ok || len(b) != 8 {
		return fmt.Errorf("%v (%T) is not an id", v, v)
	}
	return nil
}

// strictValue refuses what some client could not decode: classes, objects,
// dict keys that are neither text nor bytes, text that is not UTF-8, integers
// beyond 64 bits.
func strictValue(v zrpc.Value) error {
	switch v := v.(type) {
	case nil, bool, int64, uint64, float64, []byte:
		return nil
	case string:
		if !utf8.ValidString(v) {
			return fmt.Errorf("text %q is not UTF-8", v)
		}
		return nil
	case zrpc.Tuple:
		return strictValues(v)
	case zrpc.List:
		return strictValues(v)
	case *zrpc.Dict:
		for _, p := range v.Pairs {
			switch p.Key.(type) {
			case string, []byte:
			default:
				return fmt.Errorf("%v (%T) is the key of a dict", p.Key, p.Key)
			}
			if err := strictValues([]zrpc.Value{p.Key, p.Val}); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("a client would have to import something: %v (%T)", v, v)
}

func strictValues(items []zrpc.Value) error {
	for _, v := range items {
		if err := strictValue(v); err != nil {
			return err
		}
	}
	return nil
}

// TestStrictReader makes sure that the strict reader refuses what hangs a
// Python client.
func TestStrictReader(t *testing.T) {
	id := make([]byte, 8)
	conflict := func(without string) *zrpc.Dict {
		d := zrpc.NewDict()
		for _, p := range zrpc.NewDict("message", "m", "oid", id, "class_name", nil, "serials", zrpc.Tuple{id, id}).Pairs {
			if p.Key != without {
				d.Set(p.Key, p.Val)
			}
		}
		return d
	}
	exception := func(class string, state zrpc.Value) zrpc.Tuple {
		return zrpc.Tuple{int64(1), int64(2), ".reply", zrpc.Tuple{class, state}}
	}
	for name, c := range map[string]struct {
		v  zrpc.Value
		ok bool
	}{
		"reply":               {zrpc.Tuple{int64(1), int64(0), ".reply", nil}, true},
		"flag true":           {zrpc.Tuple{int64(1), true, ".reply", nil}, false},
		"flag 1":              {zrpc.Tuple{int64(1), int64(1), ".reply", nil}, false},
		"int key":             {zrpc.Tuple{int64(1), int64(0), ".reply", zrpc.NewDict(int64(1), nil)}, false},
		"global":              {zrpc.Tuple{int64(1), int64(0), ".reply", zrpc.Global{Module: "m", Name: "n"}}, false},
		"conflict":            {exception("ZODB.POSException.ConflictError", conflict("")), true},
		"conflict no serials": {exception("ZODB.POSException.ConflictError", conflict("serials")), false},
		"conflict no oid":     {exception("ZODB.POSException.ConflictError", conflict("oid")), false},
		"key error dict":      {exception("builtins.KeyError", zrpc.NewDict("a", nil)), false},
		"unknown method":      {zrpc.Tuple{int64(0), true, "serialnos", zrpc.Tuple{}}, false},
		"info as a call":      {zrpc.Tuple{int64(7), false, "info", zrpc.Tuple{zrpc.NewDict()}}, false},
	} {
		payload, err := zrpc.AppendPickle(nil, c.v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := strictMessage(zrpc.Pickle, payload); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
