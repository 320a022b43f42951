package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// serveStub serves whoever connects with the methods of a server that may have
// few of them: what ours never does can be tried so. It ends with the test.
func serveStub(t testing.TB, srv stubs.StorageServer) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				enc, err := zrpc.AcceptHandshake(nc, zrpc.Msgpack, time.Minute, nil)
				if err != nil {
					nc.Close()
					return
				}
				conn := zrpc.NewConn(nc, enc, zrpc.Options{})
				conn.Start(stubHandler{srv})
				<-conn.Done()
				conn.Close()
			})
		}
	})
	return l.Addr().String()
}

type stubHandler struct{ srv stubs.StorageServer }

// HandleCall follows zrpc.Handler.
func (h stubHandler) HandleCall(call *zrpc.Call) {
	if !stubs.DispatchStorageServer(context.Background(), h.srv, call) {
		call.Release()
	}
}

// stubborn is a server that answers the first tpc_finish with an exception, and
// maybe the tpc_abort after it. It writes down what it is asked, and is safe for
// concurrent use.
type stubborn struct {
	stubs.StorageServer
	noAbort bool

	mu    sync.Mutex
	tid   zeolite.TID
	calls []string
}

func (s *stubborn) asked(what string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, what+fmt.Sprint(args...))
}

func (s *stubborn) Register(context.Context, string, bool) (stubs.OptionalTID, error) {
	s.asked("register")
	return stubs.SomeTID(0), nil
}

func (s *stubborn) GetInfo(context.Context) (zrpc.Value, error) { return zrpc.NewDict(), nil }

func (s *stubborn) TpcBegin(_ context.Context, id stubs.TxnID, _, _ stubs.Text, _ zrpc.Value, _ stubs.OptionalTID, _ string) error {
	s.asked("begin ", id)
	return nil
}

func (s *stubborn) Vote(_ context.Context, id stubs.TxnID) (stubs.VoteResult, error) {
	s.asked("vote ", id)
	return stubs.VoteResult{}, nil
}

var errNoSpace = stubs.Exception("builtins.OSError", int64(28), "No space left on device")

func (s *stubborn) TpcFinish(_ context.Context, id stubs.TxnID) (stubs.OptionalTID, error) {
	s.asked("finish ", id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tid++; s.tid == 1 {
		return stubs.OptionalTID{}, errNoSpace
	}
	return stubs.SomeTID(s.tid), nil
}

func (s *stubborn) TpcAbort(_ context.Context, id stubs.TxnID) error {
	s.asked("abort ", id)
	if s.noAbort {
		return errNoSpace
	}
	return nil
}

// When tpc_finish raises an exception Python's server keeps the transaction, and
// with it the commit lock: it is aborted before the next one begins, or the
// connection ends.
func TestFinishRaises(t *testing.T) {
	for _, noAbort := range []bool{false, true} {
		t.Run(fmt.Sprintf("abort fails=%t", noAbort), func(t *testing.T) {
			noLeaks(t)
			srv := &stubborn{noAbort: noAbort}
			o := testOptions(t, serveStub(t, srv))
			o.Heartbeat = -1
			s := open(t, o)
			for _, fails := range []bool{true, false} {
				tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
				must(t, err)
				must(t, tx.Vote(t.Context()))
				_, err = tx.Finish(t.Context(), nil)
				if (err != nil) != fails || errors.Is(err, zeolite.ErrInDoubt) {
					t.Fatalf("Finish: got error %v, want one: %t", err, fails)
				}
			}
			want := []string{"register", "begin 1", "vote 1", "finish 1", "abort 1"}
			if noAbort {
				want = append(want, "register")
			}
			want = append(want, "begin 2", "vote 2", "finish 2")
			srv.mu.Lock()
			defer srv.mu.Unlock()
			if !slices.Equal(srv.calls, want) {
				t.Errorf("the server was asked for %q, want %q", srv.calls, want)
			}
		})
	}
}
