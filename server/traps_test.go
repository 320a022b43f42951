package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"slices"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/zrpc"
)

// These tests are named after the traps of ZEO that concern a server: what its
// protocol makes easy to get wrong, or what ZEO's own server does wrong. Trap 2
// has a file of its own, trap 3 is in ordering_test.go, 8 and 9 are in
// register_test.go; 28, 29 and 31 are traps of package filestorage, 35 of
// package config. 26, 32, 34 and 37 concern the client.

// TestTrap01_UploadsOneAtATime: chunks have no name, so a second start cannot
// be told from the first one's; it ends the connection, and nothing is stored.
func TestTrap01_UploadsOneAtATime(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	p := s.connect(t, zrpc.Pickle)
	p.tpcBegin()
	p.send("storeBlobStart")
	// Other calls may come between the chunks.
	p.call("ping")
	p.send("storeBlobChunk", []byte("a"))
	p.call("get_info")
	p.send("storeBlobStart")
	p.waitClosed()
	p.assertOneLine("storeBlobStart")
}

// TestTrap04_ResolvedConflictKeepsItsBlob: the client resolves a conflict and
// stores the record again, without the blob, which must not get lost.
func TestTrap04_ResolvedConflictKeepsItsBlob(t *testing.T) {
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
			s := startServer(t, open(t), Options{})
			p, q := s.connect(t, enc), s.connect(t, enc)
			oid := p.newOID()
			tid1 := p.commitBlob(oid, 0, []byte("first"))
			tid2 := q.commit(oid, tid1, record("somebody else"))
			blob := bytes.Repeat([]byte("blob"), 30_000)
			id := p.tpcBegin()
			p.store(id, oid, tid1, record("mine"))
			p.uploadBlob(id, oid, tid1, record("mine"), blob)
			conflicts := tupleOf(t, p.call("vote", id))
			if len(conflicts) != 1 {
				t.Fatalf("vote: %v, want one conflict", conflicts)
			}
			p.store(id, oid, tid2, record("resolved"))
			if again := tupleOf(t, p.call("vote", id)); len(again) != 0 {
				t.Fatalf("second vote: %v", again)
			}
			p.early = nil
			tid3 := p.finish(id)
			p.assertLoads(oid, tid3, record("resolved"))
			if got := p.downloadBlob(oid, tid3); !bytes.Equal(got, blob) {
				t.Errorf("the blob has %d bytes, want %d", len(got), len(blob))
			}
		})
	})
}

// TestTrap05_MessageIDsAreEchoed exactly as they came.
func TestTrap05_MessageIDsAreEchoed(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		p := s.connect(t, enc)
		ids := []zrpc.Value{zrpc.Tuple{make([]byte, 8), zeolite.MaxTID.Bytes()}, "text", []byte("bytes"), int64(0), int64(-7),
			int64(1) << 60, true, zrpc.Tuple{zrpc.Tuple{"a"}, nil}, 1.5}
		for _, id := range ids {
			p.writeFrame(p.encode(zrpc.Tuple{id, false, "getTid", zrpc.Tuple{make([]byte, 8)}}))
			m := p.next()
			if !bytes.Equal(p.encode(m.id), p.encode(id)) {
				t.Errorf("id %v (%T) came back as %v (%T)", id, id, m.id, m.id)
			}
		}
		// A keep-alive has no reply.
		p.writeFrame(p.encode(zrpc.Tuple{int64(-1), int64(0), ".reply", nil}))
		p.call("ping")
		if len(p.early) > 0 {
			t.Errorf("received %v for a keep-alive", p.early)
		}
	})
}

// TestTrap06_FlagsAreTakenByTruth: True, 1 and 2 are one-way, False and 0 are
// not. That ours are exact is checked in every message of every test.
func TestTrap06_FlagsAreTakenByTruth(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		p := s.connect(t, enc)
		for _, flag := range []zrpc.Value{true, int64(1), int64(2)} {
			p.writeFrame(p.encode(zrpc.Tuple{int64(50), flag, "ping", zrpc.Tuple{}}))
		}
		for _, flag := range []zrpc.Value{false, int64(0)} {
			p.writeFrame(p.encode(zrpc.Tuple{int64(60), flag, "ping", zrpc.Tuple{}}))
			if m := p.next(); m.id != int64(60) {
				t.Errorf("flag %v: received %v", flag, m)
			}
		}
	})
}

// TestTrap07_EveryExceptionCanBeBuilt raises every exception that the server
// has; the strict reader refuses what would hang a Python client.
func TestTrap07_EveryExceptionCanBeBuilt(t *testing.T) {
	tid := zeolite.TID(0x0102030405060708)
	errs := []error{
		&zeolite.NotFoundError{OID: 1}, &zeolite.NotFoundError{OID: 1, TID: tid}, &zeolite.NotFoundError{OID: 1, TID: tid, Blob: true},
		&zeolite.ConflictError{OID: 1, Committed: tid, Seen: 3}, &zeolite.ConflictError{}, &zeolite.ConflictError{Read: true, ClassName: "a.B"},
		&zeolite.TransactionError{Message: "m"}, &zeolite.UndoError{Reason: "r"}, &zeolite.UndoError{Reason: "r", OID: 4, HasOID: true},
		&zeolite.MultipleUndoErrors{}, &zeolite.MultipleUndoErrors{Errs: []*zeolite.UndoError{{Reason: "r", OID: 4, HasOID: true}, {Reason: "s"}}},
		&zeolite.StorageError{Message: "m"}, &zeolite.StorageError{Message: "\xff"}, errDiskFull, &zeolite.StorageError{Class: "a.B", Message: "m"},
		zeolite.ErrReadOnly, zeolite.ErrUnsupported, zeolite.ErrClosed, zeolite.ErrInDoubt,
		&zrpc.RemoteError{Class: "a.B", State: zrpc.Tuple{zrpc.Global{Module: "os", Name: "system"}}},
		&zrpc.RemoteError{Class: "a.B", State: zrpc.NewDict(int64(1), "int key")},
	}
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		storage := newFaulty(newMemory(t))
		s := startServer(t, storage, Options{})
		p := s.connect(t, enc)
		for _, err := range errs {
			storage.fails("load", err)
			storage.fails("store", err)
			if _, foreign := err.(*zrpc.RemoteError); foreign {
				// Such a one can only come from a server behind this one. A
				// reply must come; each client reads what it can.
				p.begin("loadBefore", zeolite.OID(1), tid)
				p.readFrame()
				continue
			}
			p.exception(p.begin("loadBefore", zeolite.OID(1), tid))
			id := p.tpcBegin()
			p.store(id, 1, 0, record("x"))
			p.waitReply(p.begin("vote", id))
			p.call("tpc_abort", id)
		}
		p.call("ping")
	})
}

// TestTrap10_InterfacesAreTuples of module and name, with those that Python's
// client looks for.
func TestTrap10_InterfacesAreTuples(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	p := s.connect(t, zrpc.Pickle)
	interfaces, _ := dictOf(t, p.call("get_info")).Get("interfaces")
	var names []string
	for _, i := range interfaces.(zrpc.Tuple) {
		names = append(names, i.(zrpc.Tuple)[1].(string))
	}
	for _, want := range []string{"IBlobStorage", "IStorageUndoable", "IStorageRestoreable", "IStorageIteration",
		"IStorageCurrentRecordIteration", "IExternalGC"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s among %v", want, names)
		}
	}
}

// TestTrap11_TIDsGrow even when the clock goes back, and after a copied
// transaction that brought a later tid.
func TestTrap11_TIDsGrow(t *testing.T) {
	now := time.Now()
	storage := memory.New(memory.Options{Now: func() time.Time { now = now.Add(-time.Hour); return now }})
	t.Cleanup(func() { storage.Close() })
	s := startServer(t, storage, Options{})
	p := s.connect(t, zrpc.Msgpack)
	last := p.commit(1, 0, record("0"))
	for range 3 {
		tid := p.commit(1, last, record("1"))
		if tid <= last {
			t.Fatalf("tid %v after %v", tid, last)
		}
		last = tid
	}
	future := zeolite.TIDFromTime(time.Now().Add(time.Hour))
	id := newTxnID()
	p.send("tpc_begin", id, []byte("u"), []byte("d"), zrpc.NewDict(), future, " ")
	p.send("restorea", zeolite.OID(1), future, record("restored"), nil, id)
	p.call("vote", id)
	if tid := p.finish(id); tid != future {
		t.Errorf("restored as %v, want %v", tid, future)
	}
	if tid := p.commit(1, future, record("2")); tid <= future {
		t.Errorf("tid %v after %v", tid, future)
	}
}

// TestTrap12_LastRecordOfAnObjectWins: Python sends the record of a blob twice.
func TestTrap12_LastRecordOfAnObjectWins(t *testing.T) {
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		s := startServer(t, open(t), Options{})
		p, q := s.connect(t, zrpc.Pickle), s.connect(t, zrpc.Pickle)
		oid := p.newOID()
		id := p.tpcBegin()
		for _, text := range []string{"1", "2", "3"} {
			p.store(id, oid, 0, record(text))
		}
		p.uploadBlob(id, oid, 0, record("last"), []byte("blob"))
		p.call("vote", id)
		tid := p.finish(id)
		p.assertLoads(oid, tid, record("last"))
		args := q.nextIs("invalidateTransaction")
		if oids := tupleOf(t, args[1]); len(oids) != 1 {
			t.Errorf("invalidation names %d objects, want 1", len(oids))
		}
	})
}

// TestTrap13_BlobsInAnyOrder: ZEO stores blobs last, and the last one first.
// Whatever the order, each object gets its own record and blob, once.
func TestTrap13_BlobsInAnyOrder(t *testing.T) {
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		s := startServer(t, open(t), Options{})
		p, q := s.connect(t, zrpc.Msgpack), s.connect(t, zrpc.Pickle)
		id := p.tpcBegin()
		p.uploadBlob(id, 1, 0, record("1"), []byte("one"))
		p.store(id, 2, 0, record("2"))
		p.uploadBlob(id, 3, 0, record("3"), []byte("three"))
		p.store(id, 1, 0, record("1 again"))
		p.call("vote", id)
		tid := p.finish(id)
		p.assertLoads(1, tid, record("1 again"))
		p.assertLoads(2, tid, record("2"))
		p.assertLoads(3, tid, record("3"))
		for oid, want := range map[zeolite.OID]string{1: "one", 3: "three"} {
			if got := q.downloadBlob(oid, tid); string(got) != want {
				t.Errorf("blob of %v: %q, want %q", oid, got, want)
			}
		}
	})
}

// TestTrap14_FinishAndAbortOfNoTransaction answer None.
func TestTrap14_FinishAndAbortOfNoTransaction(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		p := s.connect(t, enc)
		for _, call := range []string{"tpc_finish", "tpc_abort"} {
			if v := p.call(call, newTxnID()); v != nil {
				t.Errorf("%s without transaction: %v", call, v)
			}
		}
		id := p.voted(1, 0, record("x"))
		for _, call := range []string{"tpc_finish", "tpc_abort"} {
			if v := p.call(call, id+1); v != nil {
				t.Errorf("%s of another transaction: %v", call, v)
			}
		}
		p.finish(id) // it is still there
	})
}

// TestTrap15_TransactionIDs are memory addresses: up to 64 bits, used again.
func TestTrap15_TransactionIDs(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		p := s.connect(t, enc)
		tid := zeolite.TID(0)
		for _, id := range []any{7, 7, int64(1)<<62 + 1, uint64(1)<<63 + 5, uint64(1)<<63 + 5} {
			p.send("tpc_begin", id, []byte(""), []byte(""), zrpc.NewDict())
			p.send("storea", zeolite.OID(1), tid, record("x"), id)
			p.call("vote", id)
			tid = tidOf(t, p.call("tpc_finish", id))
		}
	})
}

// TestTrap16_LooseArguments: read_only and wait come as integers, and what has a
// default may be left out.
func TestTrap16_LooseArguments(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		p := s.dial(t, enc)
		p.call("register", "1", 0)
		p.call("new_oids")
		p.commit(0, 0, record("root"))
		p.call("pack", float64(time.Now().Unix()), 1)
		p.call("pack", int64(0), 1) // an integer for a time, too
		p.call("history", zeolite.OID(0))
		p.call("undoInfo", 0, -20)
		p.call("record_iternext")
	})
}

// TestTrap17_TextAndBytes: each value has the type that Python's client has.
func TestTrap17_TextAndBytes(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		p := s.connect(t, enc)
		tid := p.commit(1, 0, record("x"))
		h := dictOf(t, tupleOf(t, p.call("history", zeolite.OID(1), 1))[0])
		u := dictOf(t, tupleOf(t, p.call("undoLog", 0, -20))[0])
		for _, d := range []*zrpc.Dict{h, u} {
			for _, key := range []string{"user_name", "description"} {
				if v, _ := d.Get(key); v == nil {
					t.Errorf("no %s in %v", key, d.Pairs)
				} else if _, ok := v.([]byte); !ok {
					t.Errorf("%s is %T", key, v)
				}
			}
			if at, _ := d.Get("time"); at != tid.UnixSeconds() {
				t.Errorf("time is %v, want %v", at, tid.UnixSeconds())
			}
		}
		if got, _ := h.Get("tid"); tidOf(t, got) != tid {
			t.Errorf("tid is %v", got)
		}
		if id, _ := u.Get("id"); string(id.([]byte)) != base64.StdEncoding.EncodeToString(tid.Bytes()) {
			t.Errorf("id is %v", id)
		}
	})
}

// TestTrap18_Extensions come as dicts or as their pickles, and are told as
// dicts, whose keys never hide what the protocol needs in history.
func TestTrap18_Extensions(t *testing.T) {
	dict := zrpc.NewDict("note", "text", "n", int64(7), "b", []byte("bytes"))
	pickled, err := zrpc.AppendPickle(nil, dict)
	if err != nil {
		t.Fatal(err)
	}
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
			s := startServer(t, open(t), Options{})
			p := s.connect(t, enc)
			tid := zeolite.TID(0)
			for _, ext := range []any{dict, pickled} {
				id := newTxnID()
				p.send("tpc_begin", id, []byte("u"), []byte("d"), ext)
				p.store(id, 1, tid, record("x"))
				p.call("vote", id)
				tid = p.finish(id)
				iid := p.call("iterator_start", tid, nil)
				told := []*zrpc.Dict{
					dictOf(t, tupleOf(t, p.call("history", zeolite.OID(1), 1))[0]),
					dictOf(t, tupleOf(t, p.call("undoLog", 0, -1))[0]),
					dictOf(t, tupleOf(t, p.call("iterator_next", iid))[4]),
				}
				for _, d := range told {
					for _, pair := range dict.Pairs {
						got, _ := d.Get(pair.Key.(string))
						if !bytes.Equal(p.encode(got), p.encode(pair.Val)) {
							t.Errorf("%v is %v, want %v", pair.Key, got, pair.Val)
						}
					}
				}
			}
		})
	})
}

// TestTrap19_BeginWhileATransactionIsOpen ends the connection; of the same
// transaction it does nothing.
func TestTrap19_BeginWhileATransactionIsOpen(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	p := s.connect(t, zrpc.Pickle)
	id := p.tpcBegin()
	p.store(id, 1, 0, record("x"))
	p.send("tpc_begin", id, []byte("u"), []byte("d"), zrpc.NewDict())
	p.call("vote", id)
	p.finish(id)
	p.tpcBegin()
	p.tpcBegin()
	p.waitClosed()
	p.assertOneLine("tpc_begin")
}

// TestTrap20_DeletedAndRestoredObjectsAreInvalidated for the others.
func TestTrap20_DeletedAndRestoredObjectsAreInvalidated(t *testing.T) {
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		s := startServer(t, open(t), Options{})
		p := s.connect(t, zrpc.Pickle)
		oid := p.newOID()
		tid := p.commit(oid, 0, record("x"))
		q := s.connect(t, zrpc.Msgpack)
		expect := func(want zeolite.TID) {
			t.Helper()
			args := q.nextIs("invalidateTransaction")
			oids := tupleOf(t, args[1])
			if tidOf(t, args[0]) != want || len(oids) != 1 || oidOf(t, oids[0]) != oid {
				t.Errorf("invalidation %v, want of %v at %v", args, oid, want)
			}
		}
		id := p.tpcBegin()
		p.send("restorea", oid, tid, record("restored"), nil, id)
		p.call("vote", id)
		tid = p.finish(id)
		expect(tid)
		id = p.tpcBegin()
		p.send("deleteObject", oid, tid, id)
		p.call("vote", id)
		expect(p.finish(id))
		q.callRaises("ZODB.POSException.POSKeyError", "loadBefore", oid, zeolite.MaxTID)
	})
}

// TestTrap21_InfoGoesToTheCommitter in front of the reply, and to all after a
// pack, in front of the reply as well.
func TestTrap21_InfoGoesToTheCommitter(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	p, q := s.connect(t, zrpc.Pickle), s.connect(t, zrpc.Msgpack)
	id := p.voted(0, 0, record("root"))
	call := p.begin("tpc_finish", id)
	args := p.nextIs("info")
	if got := keys(dictOf(t, args[0])); !slices.Equal(got, []string{"length", "size"}) {
		t.Errorf("info has %v", got)
	}
	if m := p.next(); m.id != call {
		t.Errorf("after info came %v", m)
	}
	q.nextIs("invalidateTransaction")
	q.call("ping")
	if len(q.early) > 0 {
		t.Errorf("others received %v", q.early)
	}
	call = q.begin("pack", float64(time.Now().Unix()+1), true)
	q.nextIs("info")
	if m := q.next(); m.id != call || m.isException() {
		t.Errorf("after info came %v", m)
	}
	p.nextIs("info")
}

// TestTrap22_VoteAnswersAListOfOIDsOrConflicts and never pairs.
func TestTrap22_VoteAnswersAListOfOIDsOrConflicts(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		p := s.connect(t, enc)
		tid1 := p.commit(1, 0, record("1"))
		tid2 := p.commit(1, tid1, record("2"))
		// Undo: the oids whose state the client cannot know.
		id := p.tpcBegin()
		p.send("undoa", []byte(base64.StdEncoding.EncodeToString(tid2.Bytes())), id)
		list := tupleOf(t, p.call("vote", id))
		if len(list) != 1 || oidOf(t, list[0]) != 1 {
			t.Errorf("vote of an undo: %v", list)
		}
		p.call("tpc_abort", id)
		// A conflict: a dict of what is needed to resolve it.
		id = p.tpcBegin()
		p.store(id, 1, tid1, record("mine"))
		list = tupleOf(t, p.call("vote", id))
		d := dictOf(t, list[0])
		if len(list) != 1 || !slices.Equal(keys(d), []string{"oid", "serials", "data"}) {
			t.Errorf("vote with a conflict: %v", list)
		}
		if data, _ := d.Get("data"); string(data.([]byte)) != string(record("mine")) {
			t.Errorf("data of the conflict: %q", data)
		}
		p.call("tpc_abort", id)
	})
}

// TestTrap23_ClassNamesArePythons: they are compared as text.
func TestTrap23_ClassNamesArePythons(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	p := s.connect(t, zrpc.Pickle)
	tid := p.commit(1, 0, record("1"))
	p.callRaises("ZODB.POSException.POSKeyError", "getTid", zeolite.OID(99))
	p.callRaises("builtins.KeyError", "iterator_next", 5)
	id := p.tpcBegin()
	p.send("checkCurrentSerialInTransaction", zeolite.OID(1), tid-1, id)
	p.callRaises("ZODB.POSException.ReadConflictError", "vote", id)
	id = p.tpcBegin()
	p.send("deleteObject", zeolite.OID(1), tid-1, id)
	p.callRaises("ZODB.POSException.ConflictError", "vote", id)
	id = p.tpcBegin()
	p.send("undoa", []byte("%%%"), id)
	p.callRaises("binascii.Error", "vote", id)
	id = p.tpcBegin()
	p.send("undoa", []byte("AAAAAAAAAAA="), id)
	p.callRaises("ZODB.POSException.UndoError", "vote", id)
}

// TestTrap24_UndoErrorHasNoSpecialForm: a Python client makes a
// ServerException of it, of a name and a dict, as with ZEO's server.
func TestTrap24_UndoErrorHasNoSpecialForm(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		p := s.connect(t, enc)
		id := p.tpcBegin()
		p.send("undoa", []byte(base64.StdEncoding.EncodeToString(zeolite.TID(5).Bytes())), id)
		state := dictOf(t, p.callRaises("ZODB.POSException.UndoError", "vote", id).State)
		for _, key := range []string{"_reason", "_oid"} {
			if _, ok := state.Get(key); !ok {
				t.Errorf("the state has no %s: %v", key, state)
			}
		}
	})
}

// TestTrap25_AbortOnReadOnlyConnection is refused, and answered.
func TestTrap25_AbortOnReadOnlyConnection(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	p := s.connectReadOnly(t, zrpc.Msgpack)
	p.callRaises("ZODB.POSException.ReadOnlyError", "tpc_abort", newTxnID())
}

// TestTrap27_MemoizedPickles: another pickler than Python's fast one writes
// PUT and GET; they are read all the same.
func TestTrap27_MemoizedPickles(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	p := s.dial(t, zrpc.Pickle)
	p.writeFrame([]byte("\x80\x02(K\x01\x89X\x08\x00\x00\x00registerq\x00X\x01\x00\x00\x001q\x01\x89\x86q\x02tq\x03."))
	p.lastID = 1
	p.result(1)
	p.writeFrame([]byte("\x80\x03(K\x02\x89X\x0a\x00\x00\x00loadBeforeq\x00C\x08\x00\x00\x00\x00\x00\x00\x00\x00q\x01h\x01\x86q\x02tq\x03."))
	p.exception(2)
}

// TestTrap30_ConflictFoundByVote: a storage may find only when it votes that an
// object was changed. It is an error then, with all that the client's exception
// needs; the transaction is over and its locks are free.
func TestTrap30_ConflictFoundByVote(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		storage := newFaulty(newMemory(t))
		s := startServer(t, storage, Options{})
		p := s.connect(t, enc)
		tid := p.commit(1, 0, record("x"))
		storage.fails("vote", &zeolite.ConflictError{OID: 1, Committed: tid + 1, Seen: tid, Read: true})
		id := p.tpcBegin()
		p.store(id, 2, 0, record("y"))
		p.send("checkCurrentSerialInTransaction", zeolite.OID(1), tid, id)
		state := dictOf(t, p.callRaises("ZODB.POSException.ReadConflictError", "vote", id).State)
		oid, _ := state.Get("oid")
		serials, _ := state.Get("serials")
		if pair := tupleOf(t, serials); oidOf(t, oid) != 1 || tidOf(t, pair[0]) != tid+1 || tidOf(t, pair[1]) != tid {
			t.Errorf("the state is %v", state)
		}
		s.assertIdle()
		storage.on("vote", nil)
		p.call("tpc_abort", id)
		p.commit(1, tid, record("z"))
	})
}

// TestTrap33_SupportsUndo is what the storage says.
func TestTrap33_SupportsUndo(t *testing.T) {
	for _, undo := range []bool{true, false} {
		storage := newMemory(t)
		if !undo {
			storage = withoutUndo{storage}
		}
		s := startServer(t, storage, Options{})
		p := s.connect(t, zrpc.Pickle)
		if got, _ := dictOf(t, p.call("get_info")).Get("supportsUndo"); got != undo {
			t.Errorf("supportsUndo is %v, want %v", got, undo)
		}
		if list := tupleOf(t, p.call("undoLog", 0, -20)); len(list) != 0 {
			t.Errorf("undoLog of an empty storage: %v", list)
		}
	}
}

type withoutUndo struct{ zeolite.Storage }

func (w withoutUndo) Info() zeolite.Info {
	info := w.Storage.Info()
	info.Undo, info.Blobs, info.RecordIteration = false, false, false
	return info
}

// TestTrap36_NameOfTheStorage is in get_info; what else is told names no paths.
func TestTrap36_NameOfTheStorage(t *testing.T) {
	s := startServer(t, newFileStorage(t), Options{})
	p := s.connect(t, zrpc.Pickle)
	tid := p.commit(1, 0, record("x"))
	e := p.callRaises("ZODB.POSException.POSKeyError", "sendBlob", zeolite.OID(1), tid)
	if text := e.State.(zrpc.Tuple)[0]; text != "No blob file" {
		t.Errorf("sendBlob raised %v", e)
	}
}

func (w withoutUndo) NextRecord(context.Context, zeolite.OID) (zeolite.CurrentRecord, error) {
	return zeolite.CurrentRecord{}, zeolite.ErrUnsupported
}
