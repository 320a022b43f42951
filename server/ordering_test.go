package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/tests/ordering"
	"github.com/zeolite-go/zeolite/zrpc"
)

// TestTrap03_OrderingRules runs many clients at random against a server and checks,
// from what each connection brought in which order, that the rules in the
// package comment hold. The seed of a failure is printed; set ZEOLITE_SEED to
// run it again, and ZEOLITE_ROUNDS to run more.
func TestTrap03_OrderingRules(t *testing.T) {
	for _, seed := range ordering.Seeds(t, 3) {
		for _, enc := range []zrpc.Encoding{zrpc.Pickle, zrpc.Msgpack} {
			for _, backEnd := range []string{"memory", "filestorage"} {
				t.Run(fmt.Sprintf("%s/%v/%d", backEnd, enc, seed), func(t *testing.T) {
					runOrdering(t, backEnd, enc, seed)
				})
			}
		}
	}
}

func runOrdering(t *testing.T, backEnd string, enc zrpc.Encoding, seed uint64) {
	storage := openBackEnd(t, backEnd)
	srv := server.New(server.Options{
		Encoding: enc,
		Logger:   slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err := srv.AddStorage("1", &jitter{Storage: storage}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, server.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	}()
	w := ordering.Run(t, ordering.Options{Servers: []string{l.Addr().String()}, Seed: seed})
	w.CheckAtomic(storage)
	if w.Commits() < 50 || w.Loads() < 200 {
		t.Errorf("hardly anything happened: %d commits, %d loads", w.Commits(), w.Loads())
	}
	t.Logf("%d commits, %d loads", w.Commits(), w.Loads())
}

func openBackEnd(t *testing.T, name string) zeolite.Storage {
	t.Helper()
	var storage zeolite.Storage
	if name == "memory" {
		storage = memory.New(memory.Options{})
	} else {
		fs, err := filestorage.Open(t.TempDir()+"/Data.fs", filestorage.Options{})
		if err != nil {
			t.Fatal(err)
		}
		storage = fs
	}
	t.Cleanup(func() {
		if err := storage.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return storage
}

// jitter makes loads take their time between reading and answering, in which
// others commit.
type jitter struct{ zeolite.Storage }

func (j *jitter) LoadBefore(ctx context.Context, oid zeolite.OID, before zeolite.TID) (zeolite.Revision, error) {
	rev, err := j.Storage.LoadBefore(ctx, oid, before)
	for range rand.IntN(20) {
		runtime.Gosched()
	}
	return rev, err
}

// LoadNow makes every storage a QuickLoader, but not always.
func (j *jitter) LoadNow(oid zeolite.OID, before zeolite.TID, buf []byte) (zeolite.Revision, bool) {
	if rand.IntN(3) == 0 {
		return zeolite.Revision{}, false
	}
	rev, err := j.LoadBefore(context.Background(), oid, before)
	if err != nil || len(rev.Data) > len(buf) {
		return zeolite.Revision{}, false
	}
	rev.Data = buf[:copy(buf, rev.Data)]
	return rev, true
}

// VoteNow and FinishNow make every storage a QuickCommitter, but not always.
func (j *jitter) VoteNow([]zeolite.OID, int) bool                   { return rand.IntN(3) != 0 }
func (j *jitter) FinishNow(map[zeolite.OID]zeolite.BlobUpload) bool { return rand.IntN(3) != 0 }
