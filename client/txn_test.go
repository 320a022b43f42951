package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/stubs/spool"
	"github.com/zeolite-go/zeolite/tests/faults"
)

// adding resolves conflicts by adding what both sides appended.
func adding(s **Storage, calls *int) func(context.Context, Conflict) ([]byte, error) {
	return func(ctx context.Context, c Conflict) ([]byte, error) {
		*calls++
		base, err := (*s).LoadSerial(ctx, c.OID, c.Seen)
		if err != nil {
			return nil, err
		}
		theirs, err := (*s).LoadSerial(ctx, c.OID, c.Committed)
		if err != nil {
			return nil, err
		}
		return append(theirs, bytes.TrimPrefix(c.Data, base)...), nil
	}
}

func TestResolve(t *testing.T) {
	for _, enc := range encodings {
		t.Run(enc.String(), func(t *testing.T) {
			noLeaks(t)
			srv := serve(t, newMemory(t), server.Options{Encoding: enc}, "tcp")
			testResolve(t, testOptions(t, srv.addr))
		})
	}
}

func TestResolvePython(t *testing.T) {
	eachEncoding(t, 2, func(t *testing.T, srv *pythonServer) {
		testResolve(t, srv.options(t))
		o := srv.options(t)
		o.BlobDir, o.SharedBlobDir = filepath.Join(srv.dir, o.Storage+".blobs"), true
		testResolve(t, o)
	}, "client-conflict-resolution true")
}

// Conflicts are resolved, with a blob in the transaction and without; those
// that cannot be are all reported.
func testResolve(t *testing.T, o Options) {
	var s *Storage
	calls := 0
	if !o.SharedBlobDir {
		o.BlobDir = filepath.Join(t.TempDir(), "blobs")
	}
	o.Resolve = adding(&s, &calls)
	s = open(t, o)
	ctx := t.Context()
	base := put(t, s, 1, 0, "base")
	put(t, s, 2, 0, "base")
	theirs := put(t, s, 1, base, "base+theirs")
	for i, withBlob := range []bool{false, true} {
		blob := zeolite.OID(100 + i)
		tx, err := s.Begin(ctx, zeolite.TxnMeta{})
		must(t, err)
		must(t, tx.Store(ctx, 1, base, []byte("base+ours")))
		if withBlob {
			up, err := s.CreateBlob(ctx)
			must(t, err)
			_, err = up.Write([]byte("blob"))
			must(t, err)
			must(t, up.Complete())
			must(t, tx.StoreBlob(ctx, blob, 0, []byte("record"), up))
		}
		must(t, tx.Vote(ctx))
		tid, err := tx.Finish(ctx, nil)
		must(t, err)
		want := "base+theirs+ours"
		if withBlob {
			want += "+ours"
			wantBlob(t, s, blob, tid, []byte("blob"))
			other := open(t, testOptionsLike(o))
			wantBlob(t, other, blob, tid, []byte("blob")) // the server has it too
			wantCurrent(t, other, 1, tid, want)
		}
		wantCurrent(t, s, 1, tid, want)
		theirs = tid
	}
	if calls != 2 {
		t.Errorf("Resolve was called %d times", calls)
	}

	// What cannot be resolved.
	s.opt.Resolve = nil
	tx, err := s.Begin(ctx, zeolite.TxnMeta{})
	must(t, err)
	defer tx.Abort()
	must(t, tx.Store(ctx, 1, base, []byte("x")))
	must(t, tx.Store(ctx, 2, theirs, []byte("x")))
	err = tx.Vote(ctx)
	var joined interface{ Unwrap() []error }
	var conflict *zeolite.ConflictError
	if !errors.As(err, &conflict) || !errors.As(err, &joined) || len(joined.Unwrap()) != 2 {
		t.Errorf("two conflicts: got error %v", err)
	}
}

// testOptionsLike returns options for another client of the same storage.
func testOptionsLike(o Options) Options {
	o.Resolve = nil
	o.BlobDir, o.SharedBlobDir = o.BlobDir+"-other", false
	return o
}

// A Resolve that fails ends the vote, and leaves the transaction open.
func TestResolveInVain(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	o := testOptions(t, srv.addr)
	failure := errors.New("no way")
	o.Resolve = func(context.Context, Conflict) ([]byte, error) { return nil, failure }
	s := open(t, o)
	serial := put(t, s, 1, 0, "x")
	tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	must(t, err)
	must(t, tx.Store(t.Context(), 1, 1, []byte("y")))
	for range 2 {
		err = tx.Vote(t.Context())
		var conflict *zeolite.ConflictError
		if !errors.As(err, &conflict) || conflict.Committed != serial || !errors.Is(err, failure) {
			t.Errorf("Vote: got error %v", err)
		}
	}
	must(t, tx.Store(t.Context(), 1, serial, []byte("y")))
	must(t, tx.Vote(t.Context()))
	tid, err := tx.Finish(t.Context(), nil)
	must(t, err)
	wantCurrent(t, s, 1, tid, "y")
}

// Transactions of many goroutines get their turn in the order in which they
// vote; others can be open meanwhile, and whoever gives up waiting leaves the
// queue without holding it up.
func TestTurns(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	s := open(t, testOptions(t, srv.addr))
	ctx := t.Context()
	first, err := s.Begin(ctx, zeolite.TxnMeta{})
	must(t, err)
	must(t, first.Vote(ctx))

	const n = 30
	var mu sync.Mutex
	var order, want []int
	var all sync.WaitGroup
	quitters, giveUp := context.WithCancel(ctx)
	defer giveUp()
	for i := range n {
		tx, err := s.Begin(ctx, zeolite.TxnMeta{})
		must(t, err)
		must(t, tx.Store(ctx, zeolite.OID(i), 0, []byte("x")))
		ctx := ctx
		if i%4 == 1 {
			ctx = quitters
		} else {
			want = append(want, i)
		}
		all.Go(func() {
			defer tx.Abort()
			err := tx.Vote(ctx)
			if ctx == quitters {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("Vote: got error %v, want context.Canceled", err)
				}
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			if i%3 == 0 {
				return
			}
			if _, err := tx.Finish(ctx, nil); err != nil {
				t.Error(err)
			}
		})
		until(t, "it is in the queue", func() bool { return queued() == i+1 })
	}
	giveUp()
	until(t, "some gave up", func() bool { return queued() == len(want) })
	first.Abort()
	all.Wait()
	if !slices.Equal(order, want) {
		t.Errorf("turns in the order %v, want %v", order, want)
	}
	for _, i := range want {
		_, err := s.LoadBefore(ctx, zeolite.OID(i), zeolite.MaxTID)
		if (err == nil) != (i%3 != 0) {
			t.Errorf("transaction %d: %v", i, err)
		}
	}
}

// queued counts the goroutines that wait in the queue of transactions.
func queued() int {
	return inSelect(func(stack string) bool {
		return strings.HasPrefix(stack, "golang.org/x/sync/semaphore.(*Weighted).Acquire")
	})
}

// inSelect counts the goroutines that wait in a select, at a place that matches.
func inSelect(match func(stack string) bool) (n int) {
	for _, g := range goroutines() {
		state, stack, _ := strings.Cut(g, "\n")
		if strings.Contains(state, "[select") && match(stack) {
			n++
		}
	}
	return n
}

// A transaction that is larger than its memory goes to files: its records, and
// what there is to know of operations that have none.
func TestSpill(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{Limits: server.Limits{TransactionMemory: 10_000}}, "tcp")
	o := testOptions(t, srv.addr)
	o.TransactionMemory = 10_000
	s := open(t, o)
	ctx := t.Context()
	tx, err := s.Begin(ctx, zeolite.TxnMeta{})
	must(t, err)
	for i := range 1000 {
		must(t, tx.Store(ctx, zeolite.OID(1000+i), 0, []byte("checked")))
	}
	must(t, tx.Vote(ctx))
	checked, err := tx.Finish(ctx, nil)
	must(t, err)
	tx, err = s.Begin(ctx, zeolite.TxnMeta{})
	must(t, err)
	want := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 10+i*37) }
	for i := range 100 {
		must(t, tx.Store(ctx, zeolite.OID(i), 0, []byte("replaced")))
		must(t, tx.Store(ctx, zeolite.OID(i), 0, want(i)))
	}
	for i := range 1000 {
		must(t, tx.CheckCurrent(ctx, zeolite.OID(1000+i), checked))
	}
	if tx.(*Txn).staging.log.InMemory(&spool.Op{}) {
		t.Error("the first record is still in memory")
	}
	must(t, tx.Vote(ctx))
	tid, err := tx.Finish(ctx, nil)
	must(t, err)
	for i := range 100 {
		wantCurrent(t, s, zeolite.OID(i), tid, string(want(i)))
	}
}

// A Finish whose context ends while the server commits is in doubt, and the
// answer that comes later settles it; other transactions wait for that.
func TestFinishContextEnds(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	g := newGate(srv.addr)
	s := open(t, testOptions(t, g.start(t)))
	ctx, cancel := context.WithCancel(t.Context())
	tx, err := s.Begin(ctx, zeolite.TxnMeta{})
	must(t, err)
	must(t, tx.Store(ctx, 1, 0, []byte("x")))
	must(t, tx.Vote(ctx))
	g.shut()
	published := make(chan zeolite.TID, 1)
	go cancel()
	_, err = tx.Finish(ctx, func(tid zeolite.TID, _ []zeolite.OID, visible func()) {
		visible()
		published <- tid
	})
	g.open()
	if !errors.Is(err, zeolite.ErrInDoubt) {
		if !errors.Is(err, context.Canceled) { // it ended before the server was asked
			t.Fatalf("Finish: got error %v", err)
		}
		return
	}
	tid, err := s.Outcome(t.Context(), fmt.Errorf("wrapped: %w", err))
	must(t, err)
	if p := <-published; p != tid || tid == 0 {
		t.Errorf("Outcome says %v, published was %v", tid, p)
	}
	wantCurrent(t, s, 1, tid, "x")
	put(t, s, 1, tid, "y")
}

// If the connection is lost after that, the transaction has no answer any more,
// and the next one has its turn.
func TestFinishContextEndsBeforeConnection(t *testing.T) {
	noLeaks(t)
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	g := newGate(srv.addr)
	proxy, err := faults.NewProxy(g.start(t))
	must(t, err)
	defer proxy.Close()
	s := open(t, testOptions(t, proxy.Addr().String()))
	tx, err := s.Begin(t.Context(), zeolite.TxnMeta{Description: []byte("doubtful")})
	must(t, err)
	must(t, tx.Store(t.Context(), 1, 0, []byte("x")))
	must(t, tx.Vote(t.Context()))
	g.shut()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	finished := make(chan error, 1)
	go func() {
		_, err := tx.Finish(ctx, nil)
		finished <- err
	}()
	until(t, "the server is asked to commit", func() bool { return proxy.Counts(faults.ClientToServer)["tpc_finish"] == 1 })
	cancel()
	err = <-finished
	proxy.Drop()
	g.open()
	if !errors.Is(err, zeolite.ErrInDoubt) {
		t.Fatalf("Finish: got error %v, want ErrInDoubt", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tid, err := s.Outcome(ctx, err)
	if err != nil || tid == 0 {
		t.Fatalf("Outcome: %v, %v; it was committed", tid, err)
	}
	put(t, s, 1, tid, "y")
}

// A Finish that the server refuses leaves nothing behind at this end, whether its
// caller waited for the answer or not.
func TestFinishRefused(t *testing.T) {
	noLeaks(t)
	t.Setenv("TMPDIR", t.TempDir())
	srv := serve(t, newMemory(t), server.Options{}, "tcp")
	g := newGate(srv.addr)
	proxy, err := faults.NewProxy(g.start(t))
	must(t, err)
	defer proxy.Close()
	o := testOptions(t, proxy.Addr().String())
	o.TransactionMemory = 100
	s := open(t, o)
	for _, giveUp := range []bool{false, true} {
		proxy.Reset()
		begun, err := s.Begin(t.Context(), zeolite.TxnMeta{})
		must(t, err)
		tx := begun.(*Txn)
		must(t, tx.Store(t.Context(), 1, 0, make([]byte, 1000)))
		must(t, tx.Vote(t.Context()))
		link := filepath.Join(t.TempDir(), "link")
		must(t, os.WriteFile(link, nil, 0o666))
		tx.shared = []string{link}
		must(t, tx.link.stub.TpcAbort(t.Context(), tx.id)) // so that it knows nothing of it
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if giveUp {
			g.shut()
		}
		finished := make(chan error, 1)
		go func() {
			_, err := tx.Finish(ctx, nil)
			finished <- err
		}()
		until(t, "the server is asked to commit", func() bool { return proxy.Counts(faults.ClientToServer)["tpc_finish"] == 1 })
		if giveUp {
			cancel()
			err = <-finished
			g.open()
			tid, outcome := s.Outcome(t.Context(), err)
			if !errors.Is(err, zeolite.ErrInDoubt) || tid != 0 || outcome != nil {
				t.Fatalf("Finish: %v; Outcome: %v, %v", err, tid, outcome)
			}
		} else if err := <-finished; err == nil || errors.Is(err, zeolite.ErrInDoubt) {
			t.Fatalf("Finish: got error %v, want a refusal", err)
		}
		until(t, "nothing is left", func() bool {
			_, err := os.Stat(link)
			return os.IsNotExist(err) && spoolFiles() == 0
		})
	}
}

// spoolFiles counts the temporary files of transactions that this process has
// open, where that can be known.
func spoolFiles() (n int) {
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if name, err := os.Readlink(fd); err == nil && strings.HasPrefix(name, os.Getenv("TMPDIR")) && strings.Contains(name, ".spool") {
			n++
		}
	}
	return n
}

// Outcome of a transaction whose reply was lost, for each kind of operation.
func TestOutcome(t *testing.T) {
	for _, committed := range []bool{false, true} {
		for name, fill := range map[string]func(ctx context.Context, tx zeolite.Txn, serial zeolite.TID) error{
			"nothing": func(context.Context, zeolite.Txn, zeolite.TID) error { return nil },
			"store": func(ctx context.Context, tx zeolite.Txn, serial zeolite.TID) error {
				return tx.Store(ctx, 1, serial, []byte("after"))
			},
			"delete": func(ctx context.Context, tx zeolite.Txn, serial zeolite.TID) error {
				return tx.Delete(ctx, 1, serial)
			},
			"undo": func(ctx context.Context, tx zeolite.Txn, serial zeolite.TID) error {
				_, err := tx.Undo(ctx, serial)
				return err
			},
			"restore": func(ctx context.Context, tx zeolite.Txn, serial zeolite.TID) error {
				return tx.Restore(ctx, 1, []byte("restored"), 0)
			},
		} {
			t.Run(fmt.Sprintf("%s committed=%t", name, committed), func(t *testing.T) {
				noLeaks(t)
				srv := serve(t, newMemory(t), server.Options{}, "tcp")
				proxy, err := faults.NewProxy(srv.addr)
				must(t, err)
				defer proxy.Close()
				s := open(t, testOptions(t, proxy.Addr().String()))
				ctx := t.Context()
				serial := put(t, s, 1, put(t, s, 1, 0, "before"), "now")
				tx, err := s.Begin(ctx, zeolite.TxnMeta{Description: []byte("doubtful")})
				must(t, err)
				must(t, fill(ctx, tx, serial))
				must(t, tx.Vote(ctx))
				cut := faults.Cut{Dir: faults.ClientToServer, Name: "tpc_finish", When: faults.Before}
				if committed {
					cut = faults.Cut{Dir: faults.ServerToClient, Name: ".reply", When: faults.Before}
				}
				must(t, proxy.CutAt(cut))
				_, err = tx.Finish(ctx, nil)
				var doubt *InDoubtError
				if !errors.As(err, &doubt) || !errors.Is(err, zeolite.ErrInDoubt) {
					t.Fatalf("Finish: got error %v, want an *InDoubtError", err)
				}
				tid, err := s.Outcome(ctx, err)
				if err != nil || (tid != 0) != committed {
					t.Errorf("Outcome: %v, %v; committed: %t", tid, err, committed)
				}
				if committed && s.LastTID() != tid {
					t.Errorf("LastTID is %v, want %v", s.LastTID(), tid)
				}
			})
		}
	}
}
