package stubs

import (
	"errors"
	"slices"
	"testing"

	"github.com/zeolite-go/zeolite/tests/vectors"
	"github.com/zeolite-go/zeolite/zrpc"
)

// fuzzDispatch gives one message to a dispatcher. Whatever it is, it ends in
// one of few ways: a method ran and was answered, an exception, or the end of
// the connection.
func fuzzDispatch(f *testing.F, dir vectors.Direction, methods []string, dispatch func(*recorder) handlerFunc) {
	for _, s := range samples(f, dir, 1) {
		if len(s.Payload) < 1000 {
			f.Add(s.enc == zrpc.Pickle, s.Payload)
		}
	}
	for _, enc := range encodings {
		f.Add(enc == zrpc.Pickle, encode(enc, zrpc.Tuple{int64(1), true}, false, methods[0], nil))
		f.Add(enc == zrpc.Pickle, []byte{})
	}
	f.Fuzz(func(t *testing.T, pickle bool, payload []byte) {
		enc := zrpc.Msgpack
		if pickle {
			enc = zrpc.Pickle
		}
		called := 0
		var async bool
		var name string
		rec := &recorder{}
		next := dispatch(rec)
		answers, err := converse(t, enc, func(call *zrpc.Call) {
			called++
			async, name = call.Async, string(call.Name)
			next(call)
		}, payload)
		ran := rec.take()
		known := slices.Contains(methods, name)
		switch {
		case called > 1 || len(ran) > called || len(answers) > called:
			t.Fatalf("%d calls, ran %q, %d answers to one message", called, ran, len(answers))
		case called == 0 && (err != nil && !errors.As(err, new(*zrpc.BadMessageError))):
			t.Fatalf("no call, ended for %v", err)
		case called == 1 && !known && !errors.Is(err, errNoMethod):
			t.Fatalf("there is no method %q: %v", name, err)
		case called == 1 && async && len(answers) > 0:
			t.Fatalf("a one-way call of %s was answered", name)
		case called == 1 && known && !async && len(answers) == 0 && !errors.As(err, new(*zrpc.BadMessageError)):
			t.Fatalf("a call of %s was not answered: %v", name, err)
		case called == 1 && known && async && len(ran) == 0 && err == nil:
			t.Fatalf("a one-way call of %s failed in silence", name)
		case len(answers) == 1 && (answers[0].Name != zrpc.Value(".reply") || (show(answers[0].Flag) == "0") != (len(ran) == 1)):
			t.Fatalf("ran %q, answered %s %s", ran, show(answers[0].Flag), show(answers[0].Args))
		}
	})
}

func FuzzDispatchStorageServer(f *testing.F) {
	fuzzDispatch(f, vectors.ClientToServer, StorageServerMethods, serverSide)
}

func FuzzDispatchClientStorage(f *testing.F) {
	fuzzDispatch(f, vectors.ServerToClient, ClientStorageMethods, clientSide)
}
