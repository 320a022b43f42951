package stubs

import (
	"bytes"
	"errors"
	"net"
	"slices"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// methodCase is what is tried with one method: a call by the stub, with the
// arguments that must arrive, and the results that must come back.
type methodCase struct {
	args     []any
	optional int // how many of the last args may be left out
	// defaults are what arrives instead of each optional argument.
	defaults []any
	oneWay   bool
	call     func(s StorageServer, a []any) (any, error)
	tell     func(c ClientStorage, a []any) error
	results  []any // nil: there is no result
}

const (
	oid1 = zeolite.OID(0x1122334455667788)
	tid1 = zeolite.TID(0x03c0ffee00000001)
	tid2 = zeolite.TID(0x03c0ffee00000002)
	txn1 = TxnID(0xfffffffffffffff1) // needs all of an uint64
)

// large has more bytes than any small form in either encoding.
var large = bytes.Repeat([]byte("zeolite!"), 9000)

func none(err error) (any, error) { return nil, err }

func ret[T any](v T, err error) (any, error) { return v, err }

var aDict = zrpc.NewDict("text", "é", "bytes", []byte{0, 255}, "n", int64(-5), "big", uint64(1<<63), "f", 1.5,
	"none", nil, "yes", true, "list", zrpc.List{int64(1), zrpc.Tuple{}})

var storageServerCases = map[string]methodCase{
	"register": {args: []any{"main", true},
		call:    func(s StorageServer, a []any) (any, error) { return ret(s.Register(bg, a[0].(string), a[1].(bool))) },
		results: []any{SomeTID(tid1), SomeTID(0), OptionalTID{}}},
	"get_info": {
		call:    func(s StorageServer, _ []any) (any, error) { return s.GetInfo(bg) },
		results: []any{aDict, nil}},
	"lastTransaction": {
		call:    func(s StorageServer, _ []any) (any, error) { return ret(s.LastTransaction(bg)) },
		results: []any{tid1, zeolite.ZeroTID, zeolite.MaxTID}},
	"getInvalidations": {args: []any{tid1},
		call:    func(s StorageServer, a []any) (any, error) { return ret(s.GetInvalidations(bg, a[0].(zeolite.TID))) },
		results: []any{&Invalidations{tid2, []zeolite.OID{1, oid1}}, &Invalidations{tid2, []zeolite.OID{}}, (*Invalidations)(nil)}},
	"new_oids": {args: []any{int64(7)}, optional: 1, defaults: []any{int64(100)},
		call:    func(s StorageServer, a []any) (any, error) { return ret(s.NewOIDs(bg, a[0].(int64))) },
		results: []any{[]zeolite.OID{1, 2, oid1}, []zeolite.OID{}}},
	"loadBefore": {args: []any{oid1, tid1},
		call: func(s StorageServer, a []any) (any, error) {
			return ret(s.LoadBefore(bg, a[0].(zeolite.OID), a[1].(zeolite.TID)))
		},
		results: []any{zeolite.Revision{Data: []byte("data"), TID: tid1, End: tid2}, zeolite.Revision{Data: large, TID: tid1},
			zeolite.Revision{Data: []byte{}, TID: tid1}}},
	"loadMany": {args: []any{[]zeolite.OID{1, oid1}, tid1},
		call: func(s StorageServer, a []any) (any, error) {
			return ret(s.LoadMany(bg, a[0].([]zeolite.OID), a[1].(zeolite.TID)))
		},
		results: []any{[]Loaded{}, []Loaded{{}, {true, zeolite.Revision{Data: []byte("data"), TID: tid1, End: tid2}},
			{true, zeolite.Revision{Data: large, TID: tid1}}}}},
	"blobInfo": {args: []any{oid1, tid1},
		call: func(s StorageServer, a []any) (any, error) {
			return ret(s.BlobInfo(bg, a[0].(zeolite.OID), a[1].(zeolite.TID)))
		},
		results: []any{BlobInfo{Size: 1 << 40, SHA256: [32]byte{1, 31: 2}}}},
	"sendBlobFrom": {args: []any{oid1, tid1, int64(1 << 40)},
		call: func(s StorageServer, a []any) (any, error) {
			return none(s.SendBlobFrom(bg, a[0].(zeolite.OID), a[1].(zeolite.TID), a[2].(int64)))
		}},
	"loadSerial": {args: []any{oid1, tid1},
		call: func(s StorageServer, a []any) (any, error) {
			return ret(s.LoadSerial(bg, a[0].(zeolite.OID), a[1].(zeolite.TID)))
		},
		results: []any{[]byte("data"), []byte{}, large}},
	"getTid": {args: []any{oid1},
		call:    func(s StorageServer, a []any) (any, error) { return ret(s.GetTid(bg, a[0].(zeolite.OID))) },
		results: []any{tid1}},
	"history": {args: []any{oid1, int64(3)}, optional: 1, defaults: []any{int64(1)},
		call:    func(s StorageServer, a []any) (any, error) { return s.History(bg, a[0].(zeolite.OID), a[1].(int64)) },
		results: []any{zrpc.List{aDict, aDict}, zrpc.List{}}},
	"record_iternext": {args: []any{OptionalOID{oid1, true}}, optional: 1, defaults: []any{OptionalOID{}},
		call: func(s StorageServer, a []any) (any, error) { return ret(s.RecordIternext(bg, a[0].(OptionalOID))) },
		results: []any{zeolite.CurrentRecord{OID: oid1, TID: tid1, Data: large, Next: 9, More: true},
			zeolite.CurrentRecord{OID: oid1, TID: tid1, Data: []byte{}}}},
	"undoLog": {args: []any{int64(0), int64(-20)},
		call:    func(s StorageServer, a []any) (any, error) { return s.UndoLog(bg, a[0].(int64), a[1].(int64)) },
		results: []any{zrpc.List{aDict}, zrpc.Tuple{}}},
	"undoInfo": {args: []any{int64(0), int64(-20), aDict}, optional: 1, defaults: []any{nil},
		call:    func(s StorageServer, a []any) (any, error) { return s.UndoInfo(bg, a[0].(int64), a[1].(int64), a[2]) },
		results: []any{zrpc.List{aDict}, zrpc.List{}}},
	"tpc_begin": {args: []any{txn1, []byte("user"), []byte{}, aDict, SomeTID(tid1), "p"}, optional: 2, defaults: []any{OptionalTID{}, " "},
		oneWay: true,
		call: func(s StorageServer, a []any) (any, error) {
			return none(s.TpcBegin(bg, a[0].(TxnID), a[1].([]byte), a[2].([]byte), a[3], a[4].(OptionalTID), a[5].(string)))
		}},
	"storea": {args: []any{oid1, tid1, large, txn1}, oneWay: true,
		call: func(s StorageServer, a []any) (any, error) {
			return none(s.Storea(bg, a[0].(zeolite.OID), a[1].(zeolite.TID), a[2].([]byte), a[3].(TxnID)))
		}},
	"restorea": {args: []any{oid1, tid1, OptionalBytes("data"), SomeTID(tid2), txn1}, oneWay: true,
		call: func(s StorageServer, a []any) (any, error) {
			return none(s.Restorea(bg, a[0].(zeolite.OID), a[1].(zeolite.TID), a[2].(OptionalBytes), a[3].(OptionalTID), a[4].(TxnID)))
		}},
	"deleteObject": {args: []any{oid1, tid1, txn1}, oneWay: true,
		call: func(s StorageServer, a []any) (any, error) {
			return none(s.DeleteObject(bg, a[0].(zeolite.OID), a[1].(zeolite.TID), a[2].(TxnID)))
		}},
	"checkCurrentSerialInTransaction": {args: []any{oid1, tid1, txn1}, oneWay: true,
		call: func(s StorageServer, a []any) (any, error) {
			return none(s.CheckCurrentSerialInTransaction(bg, a[0].(zeolite.OID), a[1].(zeolite.TID), a[2].(TxnID)))
		}},
	"undoa": {args: []any{[]byte("A8D/7gAAAAE="), txn1}, oneWay: true,
		call: func(s StorageServer, a []any) (any, error) { return none(s.Undoa(bg, a[0].([]byte), a[1].(TxnID))) }},
	"storeBlobStart": {oneWay: true,
		call: func(s StorageServer, _ []any) (any, error) { return none(s.StoreBlobStart(bg)) }},
	"storeBlobChunk": {args: []any{large}, oneWay: true,
		call: func(s StorageServer, a []any) (any, error) { return none(s.StoreBlobChunk(bg, a[0].([]byte))) }},
	"storeBlobEnd": {args: []any{oid1, tid1, []byte("data"), txn1}, oneWay: true,
		call: func(s StorageServer, a []any) (any, error) {
			return none(s.StoreBlobEnd(bg, a[0].(zeolite.OID), a[1].(zeolite.TID), a[2].([]byte), a[3].(TxnID)))
		}},
	"storeBlobShared": {args: []any{oid1, tid1, []byte("data"), "tmp0é", txn1}, oneWay: true,
		call: func(s StorageServer, a []any) (any, error) {
			return none(s.StoreBlobShared(bg, a[0].(zeolite.OID), a[1].(zeolite.TID), a[2].([]byte), a[3].(string), a[4].(TxnID)))
		}},
	"storeEmptyBlob": {args: []any{oid1, tid1, []byte("data"), txn1}, oneWay: true,
		call: func(s StorageServer, a []any) (any, error) {
			return none(s.StoreEmptyBlob(bg, a[0].(zeolite.OID), a[1].(zeolite.TID), a[2].([]byte), LegacyTxnID(a[3].(TxnID))))
		}},
	"vote": {args: []any{txn1},
		call: func(s StorageServer, a []any) (any, error) { return ret(s.Vote(bg, a[0].(TxnID))) },
		results: []any{VoteResult{}, VoteResult{Changed: []zeolite.OID{1, oid1}},
			VoteResult{Conflicts: []StoreConflict{{oid1, tid2, tid1, []byte("data")}, {1, tid2, 0, []byte{}}}}}},
	"tpc_finish": {args: []any{txn1},
		call:    func(s StorageServer, a []any) (any, error) { return ret(s.TpcFinish(bg, a[0].(TxnID))) },
		results: []any{SomeTID(tid1), OptionalTID{}}},
	"tpc_abort": {args: []any{txn1},
		call: func(s StorageServer, a []any) (any, error) { return none(s.TpcAbort(bg, a[0].(TxnID))) }},
	"sendBlob": {args: []any{oid1, tid1},
		call: func(s StorageServer, a []any) (any, error) {
			return none(s.SendBlob(bg, a[0].(zeolite.OID), a[1].(zeolite.TID)))
		}},
	"iterator_start": {args: []any{SomeTID(tid1), SomeTID(tid2)}, optional: 2, defaults: []any{OptionalTID{}, OptionalTID{}},
		call: func(s StorageServer, a []any) (any, error) {
			return ret(s.IteratorStart(bg, a[0].(OptionalTID), a[1].(OptionalTID)))
		},
		results: []any{int64(0), int64(1 << 40)}},
	"iterator_next": {args: []any{int64(7)},
		call: func(s StorageServer, a []any) (any, error) { return ret(s.IteratorNext(bg, a[0].(int64))) },
		results: []any{&TransactionEntry{tid1, 'p', []byte("user"), []byte{}, aDict},
			&TransactionEntry{tid1, ' ', []byte{}, []byte("desc"), &zrpc.Dict{}}, (*TransactionEntry)(nil)}},
	"iterator_record_start": {args: []any{int64(7), tid1},
		call: func(s StorageServer, a []any) (any, error) {
			return ret(s.IteratorRecordStart(bg, a[0].(int64), a[1].(zeolite.TID)))
		},
		results: []any{int64(8)}},
	"iterator_record_next": {args: []any{int64(8)},
		call: func(s StorageServer, a []any) (any, error) { return ret(s.IteratorRecordNext(bg, a[0].(int64))) },
		results: []any{&zeolite.DataRecord{OID: oid1, TID: tid2, Data: []byte("data"), DataTID: tid1},
			&zeolite.DataRecord{OID: oid1, TID: tid2, Data: []byte{}}, &zeolite.DataRecord{OID: oid1, TID: tid2},
			(*zeolite.DataRecord)(nil)}},
	"iterator_gc": {args: []any{[]int64{1, 2, 1 << 33}}, oneWay: true,
		call: func(s StorageServer, a []any) (any, error) { return none(s.IteratorGC(bg, a[0].([]int64))) }},
	"pack": {args: []any{1195687687.25, true}, optional: 1, defaults: []any{true},
		call: func(s StorageServer, a []any) (any, error) { return none(s.Pack(bg, a[0].(float64), a[1].(bool))) }},
	"server_status": {
		call:    func(s StorageServer, _ []any) (any, error) { return s.ServerStatus(bg) },
		results: []any{aDict}},
	"set_client_label": {args: []any{"label é"}, oneWay: true,
		call: func(s StorageServer, a []any) (any, error) { return none(s.SetClientLabel(bg, a[0].(string))) }},
	"ping": {
		call: func(s StorageServer, _ []any) (any, error) { return none(s.Ping(bg)) }},
}

var clientStorageCases = map[string]methodCase{
	"info": {args: []any{aDict}, oneWay: true,
		tell: func(c ClientStorage, a []any) error { return c.Info(bg, a[0]) }},
	"invalidateTransaction": {args: []any{tid1, []zeolite.OID{1, oid1}}, oneWay: true,
		tell: func(c ClientStorage, a []any) error {
			return c.InvalidateTransaction(bg, a[0].(zeolite.TID), a[1].([]zeolite.OID))
		}},
	"receiveBlobStart": {args: []any{oid1, tid1}, oneWay: true,
		tell: func(c ClientStorage, a []any) error {
			return c.ReceiveBlobStart(bg, a[0].(zeolite.OID), a[1].(zeolite.TID))
		}},
	"receiveBlobChunk": {args: []any{oid1, tid1, large}, oneWay: true,
		tell: func(c ClientStorage, a []any) error {
			return c.ReceiveBlobChunk(bg, a[0].(zeolite.OID), a[1].(zeolite.TID), a[2].([]byte))
		}},
	"receiveBlobStop": {args: []any{oid1, tid1}, oneWay: true,
		tell: func(c ClientStorage, a []any) error {
			return c.ReceiveBlobStop(bg, a[0].(zeolite.OID), a[1].(zeolite.TID))
		}},
}

// allCases calls f for each declared method, of which none may lack a case.
func allCases(t *testing.T, f func(name string, mc methodCase, dispatch func(*recorder) handlerFunc)) {
	t.Helper()
	for _, side := range []struct {
		methods  []string
		cases    map[string]methodCase
		dispatch func(*recorder) handlerFunc
	}{
		{StorageServerMethods, storageServerCases, serverSide},
		{ClientStorageMethods, clientStorageCases, clientSide},
	} {
		for _, name := range side.methods {
			mc, ok := side.cases[name]
			if !ok {
				t.Errorf("no case for %s", name)
				continue
			}
			f(name, mc, side.dispatch)
		}
		if len(side.cases) != len(side.methods) {
			t.Errorf("%d cases for %d methods", len(side.cases), len(side.methods))
		}
	}
}

// serverSide and clientSide dispatch to a recorder. A call without a method
// ends the connection, as in ZEO.
func serverSide(r *recorder) handlerFunc { return dispatchOr[StorageServer](r, DispatchStorageServer) }
func clientSide(r *recorder) handlerFunc { return dispatchOr[ClientStorage](r, DispatchClientStorage) }

var errNoMethod = errors.New("no such method")

func dispatchOr[T any](srv T, dispatch dispatcher[T]) handlerFunc {
	return func(call *zrpc.Call) {
		if !dispatch(bg, srv, call) {
			call.Conn().End(errNoMethod)
			call.Release()
		}
	}
}

// linked starts two connections with each other; hb handles what a sends.
func linked(t *testing.T, enc zrpc.Encoding, ha, hb handlerFunc) (a, b *zrpc.Conn) {
	t.Helper()
	na, nb := net.Pipe()
	a, b = zrpc.NewConn(na, enc, zrpc.Options{}), zrpc.NewConn(nb, enc, zrpc.Options{})
	a.Start(ha)
	b.Start(hb)
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	return a, b
}

// TestEveryMethod sends each method through a stub and a dispatcher.
func TestEveryMethod(t *testing.T) {
	for _, enc := range encodings {
		for _, name := range StorageServerMethods {
			rec := &recorder{}
			conn, _ := linked(t, enc, clientSide(rec), serverSide(rec))
			stub := NewStorageServerStub(conn)
			mc := storageServerCases[name]
			want := name + show(mc.args)
			results := mc.results
			if results == nil {
				results = []any{nil}
			}
			for _, result := range results {
				rec.result = result
				got, err := mc.call(stub, mc.args)
				if err != nil || show(got) != show(result) {
					t.Errorf("%v %s returns %s, %v, want %s", enc, name, show(got), err, show(result))
				}
				if mc.oneWay {
					_ = stub.Ping(bg)
				}
				if calls := rec.take(); len(calls) == 0 || calls[0] != want {
					t.Errorf("%v arrived: %.300q, want %.300s", enc, calls, want)
				}
			}
			if mc.oneWay {
				continue
			}
			rec.err = &zeolite.NotFoundError{OID: oid1}
			_, err := mc.call(stub, mc.args)
			var notFound *zeolite.NotFoundError
			if !errors.As(err, &notFound) || notFound.OID != oid1 {
				t.Errorf("%v %s raises %v", enc, name, err)
			}
			rec.err = zeolite.ErrNotYet
			if got, err := mc.call(stub, mc.args); name == "loadBefore" && err != zeolite.ErrNotYet {
				t.Errorf("%v %s: None is understood as %v, %v", enc, name, got, err)
			}
		}
		for _, name := range ClientStorageMethods {
			rec := &recorder{}
			conn, back := linked(t, enc, clientSide(rec), serverSide(rec))
			mc := clientStorageCases[name]
			if err := mc.tell(NewClientStorageStub(back), mc.args); err != nil {
				t.Error(err)
			}
			_ = NewStorageServerStub(conn).Ping(bg)
			// The reply is behind it, so it has been handled.
			if calls := rec.take(); !slices.Contains(calls, name+show(mc.args)) {
				t.Errorf("%v arrived: %.300q", enc, calls)
			}
		}
	}
}

// TestHooks calls the variants with a hook.
func TestHooks(t *testing.T) {
	for _, enc := range encodings {
		rec := &recorder{result: zeolite.Revision{Data: large, TID: tid1}}
		conn, _ := linked(t, enc, clientSide(rec), serverSide(rec))
		stub := NewStorageServerStub(conn)
		var rev zeolite.Revision
		hook := func(v zeolite.Revision, err error) { rev = v }
		if err := stub.LoadBeforeHook(bg, oid1, tid2, hook); err != nil || rev.TID != tid1 || !bytes.Equal(rev.Data, large) {
			t.Errorf("%v: %v, %v", enc, rev.TID, err)
		}
		rec.err = zeolite.ErrNotYet
		var told error
		if err := stub.LoadBeforeHook(bg, oid1, tid2, func(_ zeolite.Revision, err error) { told = err }); err != zeolite.ErrNotYet || told != err {
			t.Errorf("%v: %v, the hook is told %v", enc, err, told)
		}
		rec.err = zeolite.ErrReadOnly
		if err := stub.TpcFinishHook(bg, txn1, func(_ OptionalTID, err error) { told = err }); !errors.Is(err, zeolite.ErrReadOnly) || told != err {
			t.Errorf("%v: %v, the hook is told %v", enc, err, told)
		}
		rec.err, rec.result = nil, SomeTID(tid2)
		var tid OptionalTID
		if err := stub.TpcFinishHook(bg, txn1, func(v OptionalTID, _ error) { tid = v }); err != nil || tid != SomeTID(tid2) {
			t.Errorf("%v: %v, %v", enc, tid, err)
		}
		// The error outlives the message that brought it, and those after it.
		rec.err, rec.result = &zeolite.NotFoundError{OID: oid1}, []byte(nil)
		err := stub.LoadBeforeHook(bg, oid1, tid2, func(zeolite.Revision, error) {})
		rec.err = &zeolite.NotFoundError{OID: oid1 + 1}
		for range 20 {
			_ = stub.LoadBeforeHook(bg, oid1, tid2, func(zeolite.Revision, error) {})
		}
		if class, state := ToRemote(err); class != classPOSKeyError || show([]any{state}) != show([]any{zrpc.Tuple{oid1.Bytes()}}) {
			t.Errorf("%v: passed on as %s %v", enc, class, state)
		}
		conn.Close()
		hook = func(zeolite.Revision, error) { t.Error("a hook is called without a reply") }
		if err := stub.LoadBeforeHook(bg, oid1, tid2, hook); !errors.As(err, new(*zrpc.ConnError)) {
			t.Errorf("%v: after the end: %v", enc, err)
		}
	}
}
