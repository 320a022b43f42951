package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// watched is a storage in which others commit too.
type watched struct {
	zeolite.Storage
	publish zeolite.Publish
	lost    func()
}

func (w *watched) Watch(publish zeolite.Publish, lost func()) { w.publish, w.lost = publish, lost }

// TestWatcher has somebody else commit in the storage that is served.
func TestWatcher(t *testing.T) {
	w := &watched{Storage: newMemory(t)}
	s := startServer(t, w, Options{})
	tid := zeolite.TIDFromTime(time.Now().Add(time.Hour))

	p := s.connect(t, zrpc.Pickle)
	visible := false
	w.publish(tid, []zeolite.OID{7}, func() { visible = true })
	if !visible {
		t.Error("the transaction was not made visible")
	}
	c := connectStubs(t, s.addr)
	if last, err := c.LastTransaction(context.Background()); err != nil || last != tid {
		t.Errorf("lastTransaction = %v, %v, want %v", last, err, tid)
	}

	// When changes are lost everybody has to come back, and cannot before it
	// is known again what there is.
	w.lost()
	p.waitClosed()
	if err := tryRegister(t, s.addr); !errors.As(err, new(*zrpc.ConnError)) {
		t.Errorf("register while changes are lost: %v", err)
	}
	w.publish(tid+5, nil, func() {})
	if err := tryRegister(t, s.addr); err != nil {
		t.Errorf("register afterwards: %v", err)
	}
}

// TestPanicWhilePublishing has a storage panic: that is no reason for others to
// wait for ever until nothing is being published.
func TestPanicWhilePublishing(t *testing.T) {
	w := &watched{Storage: newMemory(t)}
	s := startServer(t, w, Options{})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		w.publish(1, nil, func() { panic("a bug") })
	}()
	if epoch := s.exports["1"].publisher.epoch.Load(); epoch&1 != 0 {
		t.Errorf("the epoch is %d: something is still being published", epoch)
	}
}

// follower is a storage that has to be asked what others committed.
type follower struct {
	watched
	behind zeolite.TID // committed and not published
	hangs  bool        // until its context ends
	err    error
}

func (f *follower) CatchUp(ctx context.Context) error {
	if f.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.err == nil && f.behind != 0 {
		f.publish(f.behind, nil, func() {})
	}
	return f.err
}

// TestFollower has a client come that knows of a transaction which its new
// server has not heard of.
func TestFollower(t *testing.T) {
	f := &follower{watched: watched{Storage: newMemory(t)}}
	s := startServer(t, f, Options{})
	f.behind = zeolite.TIDFromTime(time.Now().Add(time.Hour))
	c := connectStubs(t, s.addr)
	if last, err := c.LastTransaction(context.Background()); err != nil || last != f.behind {
		t.Errorf("lastTransaction = %v, %v, want %v", last, err, f.behind)
	}
	f.err = errors.New("the database is down")
	if err := tryRegister(t, s.addr); !errors.As(err, new(*zrpc.ConnError)) {
		t.Errorf("register at a server that cannot know: %v", err)
	}
}

// TestFollowerThatHangs: the log does not blame the client.
func TestFollowerThatHangs(t *testing.T) {
	f := &follower{watched: watched{Storage: newMemory(t)}, hangs: true}
	s := startServer(t, f, Options{Limits: Limits{Handshake: 200 * time.Millisecond}})
	p := s.dial(t, zrpc.Msgpack)
	p.begin("register", "1", false)
	p.waitClosed()
	p.assertOneLine("ERROR client was disconnected")
	p.assertOneLine("the storage did not say within 200ms what is new")
}
