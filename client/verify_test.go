package client

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// moving is a server that says whatever a test wants of its last transaction.
type moving struct {
	stubs.StorageServer
	registered, last atomic.Uint64
}

func (m *moving) Register(context.Context, string, bool) (stubs.OptionalTID, error) {
	return stubs.SomeTID(zeolite.TID(m.registered.Load())), nil
}

func (m *moving) LastTransaction(context.Context) (zeolite.TID, error) {
	return zeolite.TID(m.last.Load()), nil
}

func (m *moving) GetInfo(context.Context) (zrpc.Value, error) { return zrpc.NewDict(), nil }

// A connection that was made while another one was still in use may begin before
// what that one has told of: its server is not behind.
func TestVerifyOverlap(t *testing.T) {
	noLeaks(t)
	srv := &moving{}
	srv.registered.Store(6)
	o := testOptions(t, serveStub(t, srv))
	o.Heartbeat = -1
	s := open(t, o)
	srv.registered.Store(5)
	for _, last := range []zeolite.TID{5, 7} {
		srv.last.Store(uint64(last))
		l, err := s.dial(t.Context(), o.Addresses[0])
		must(t, err)
		defer l.close()
		for tid := zeolite.TID(6); tid <= last; tid++ {
			must(t, l.InvalidateTransaction(t.Context(), tid, []zeolite.OID{1}))
		}
		err = s.verify(l)
		if last > 6 {
			must(t, err)
			continue
		}
		var behind *errBehind
		if !errors.As(err, &behind) || behind.server != last || behind.cache != 6 {
			t.Errorf("verify: got error %v", err)
		}
	}
	if last := s.LastTID(); last != 7 {
		t.Errorf("LastTID is %v, want 7", last)
	}
}
