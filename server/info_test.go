package server

import (
	"context"
	"encoding/base64"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// TestGetInfo checks keys and types.
func TestGetInfo(t *testing.T) {
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
			s := startServer(t, open(t), Options{})
			p := s.connect(t, enc)
			p.commit(1, 0, record("x"))
			d := dictOf(t, p.call("get_info"))
			want := []string{"length", "size", "name", "supportsUndo", "supports_record_iternext", "interfaces"}
			if got := keys(d); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
				t.Errorf("keys %v, want %v first", got, want)
			}
			if n, _ := d.Get("length"); n != int64(1) {
				t.Errorf("length is %v, want 1", n)
			}
			if n, _ := d.Get("size"); n == int64(0) {
				t.Error("size is 0")
			}
		})
	})
}

// TestUndoLogSlices: first and last are positions, a negative last is a count.
func TestUndoLogSlices(t *testing.T) {
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
			s := startServer(t, open(t), Options{})
			p := s.connect(t, enc)
			var tids []zeolite.TID // newest first
			for i := range 6 {
				id := newTxnID()
				p.send("tpc_begin", id, []byte{'u', byte('0' + i%2)}, []byte("d"), zrpc.NewDict("i", int64(i)))
				p.store(id, zeolite.OID(i+1), 0, record("x"))
				p.call("vote", id)
				tids = slices.Insert(tids, 0, p.finish(id))
			}
			ask := func(name string, args ...any) []int {
				t.Helper()
				got := []int{}
				for _, e := range tupleOf(t, p.call(name, args...)) {
					id, _ := dictOf(t, e).Get("id")
					raw, err := base64.StdEncoding.DecodeString(string(id.([]byte)))
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, slices.Index(tids, tidOf(t, raw)))
				}
				return got
			}
			for _, c := range []struct {
				first, last int
				want        []int
			}{
				{0, 3, []int{0, 1, 2}}, {2, 4, []int{2, 3}}, {4, 100, []int{4, 5}}, {3, 3, []int{}}, {5, 2, []int{}},
				{0, -20, []int{0, 1, 2, 3, 4, 5}}, {0, -2, []int{0, 1}}, {3, -2, []int{3, 4}}, {0, 0, []int{}}, {50, 60, []int{}},
			} {
				if got := ask("undoLog", c.first, c.last); !slices.Equal(got, c.want) {
					t.Errorf("undoLog(%d, %d): %v, want %v", c.first, c.last, got, c.want)
				}
			}
			for _, c := range []struct {
				first, last int
				spec        zrpc.Value
				want        []int
			}{
				{0, -20, zrpc.NewDict("user_name", []byte("u1")), []int{0, 2, 4}},
				{1, -1, zrpc.NewDict("user_name", []byte("u1")), []int{2}},
				{0, -20, zrpc.NewDict("user_name", []byte("u1"), "i", int64(3)), []int{2}},
				{0, -20, zrpc.NewDict("user_name", "u1"), []int{}},
				{0, -20, zrpc.NewDict("nothing", nil), []int{}},
				{0, 2, nil, []int{0, 1}},
			} {
				if got := ask("undoInfo", c.first, c.last, c.spec); !slices.Equal(got, c.want) {
					t.Errorf("undoInfo(%d, %d, %v): %v, want %v", c.first, c.last, c.spec, got, c.want)
				}
			}
		})
	})
}

// TestHistory checks the dicts and how many there are.
func TestHistory(t *testing.T) {
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		s := startServer(t, open(t), Options{})
		p := s.connect(t, zrpc.Pickle)
		tid1 := p.commit(1, 0, record("1"))
		tid2 := p.commit(1, tid1, record("22"))
		list := tupleOf(t, p.call("history", zeolite.OID(1), 10))
		if len(list) != 2 {
			t.Fatalf("history: %v", list)
		}
		for i, want := range []zeolite.TID{tid2, tid1} {
			d := dictOf(t, list[i])
			if tid, _ := d.Get("tid"); tidOf(t, tid) != want {
				t.Errorf("entry %d is of %v, want %v", i, tid, want)
			}
			if n, _ := d.Get("size"); n.(int64) <= 0 {
				t.Errorf("size is %v", n)
			}
		}
		for size, want := range map[int]int{0: 0, 1: 1, -5: 0, math.MaxInt: 2} {
			if got := tupleOf(t, p.call("history", zeolite.OID(1), size)); len(got) != want {
				t.Errorf("history of size %d: %d entries, want %d", size, len(got), want)
			}
		}
	})
}

// TestPack waits or not, runs once at a time, and tells everybody the size.
func TestPack(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		storage := newFaulty(newMemory(t))
		s := startServer(t, storage, Options{})
		p, q := s.connect(t, enc), s.connect(t, enc)
		tid := p.commit(0, 0, record("1"))
		tid2 := p.commit(0, tid, record("2"))
		q.sync()
		q.early = nil
		now := float64(time.Now().Unix() + 1)
		release, waiting := storage.blocks(t, "pack")
		if v := p.call("pack", now, 0); v != nil {
			t.Errorf("pack: %v", v)
		}
		<-waiting
		e := p.callRaises("ZODB.FileStorage.FileStorage.FileStorageError", "pack", now, true)
		if e.State.(zrpc.Tuple)[0] != "Already packing" {
			t.Errorf("pack raised %v", e)
		}
		tid3 := p.commit(0, tid2, record("3")) // while it packs
		q.nextIs("invalidateTransaction")
		release()
		q.nextIs("info")
		p.callRaises("ZODB.POSException.POSKeyError", "loadSerial", zeolite.OID(0), tid)
		p.assertLoads(0, tid3, record("3"))

		for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e15} {
			p.callRaises("builtins.ValueError", "pack", bad, true)
		}
		p.call("pack", -1.0, true)
		storage.fails("pack", &zeolite.StorageError{Message: "no space"})
		p.callRaises("ZODB.POSException.StorageError", "pack", now, true)
		storage.on("pack", nil)
		p.call("pack", now, true)
	})
}

// TestPackOutlivesItsClient: who asked may leave; Shutdown ends it.
func TestPackOutlivesItsClient(t *testing.T) {
	storage := newFaulty(newMemory(t))
	s := startServer(t, storage, Options{})
	p, q := s.connect(t, zrpc.Pickle), s.connect(t, zrpc.Pickle)
	q.commit(0, 0, record("root"))
	release, waiting := storage.blocks(t, "pack")
	p.begin("pack", 1.0, true)
	<-waiting
	p.close()
	p.waitGone()
	release()
	q.nextIs("info")
	_, waiting = storage.blocks(t, "pack")
	q.call("pack", 1.0, false)
	<-waiting
	s.shutdown()
}

// TestStorageWithoutAbilities says so call by call.
func TestStorageWithoutAbilities(t *testing.T) {
	storage := withoutUndo{newMemory(t)}
	s := startServer(t, storage, Options{})
	p := s.connect(t, zrpc.Pickle)
	tid := p.commit(1, 0, record("x"))
	p.callRaises("builtins.TypeError", "sendBlob", zeolite.OID(1), tid)
	p.callRaises("ZODB.POSException.Unsupported", "pack", 1.0, true)
	p.tpcBegin()
	p.send("storeBlobStart")
	p.waitClosed()
	p.assertOneLine("Blobs are not supported")
}

// TestShutdown lets a running commit end, says so to the committer, and leaves
// nothing running.
func TestShutdown(t *testing.T) {
	storage := newFaulty(newMemory(t))
	s := startServer(t, storage, Options{})
	p := s.connect(t, zrpc.Msgpack)
	idle := s.connect(t, zrpc.Pickle)
	halfway := s.dialRaw(t, zrpc.Pickle) // does not even shake hands
	halfway.readFrame()
	voted := s.connect(t, zrpc.Pickle)
	voted.voted(7, 0, record("aborted"))
	id := p.voted(1, 0, record("x"))
	release, waiting := storage.blocks(t, "finish")
	call := p.begin("tpc_finish", id)
	<-waiting
	done := make(chan struct{})
	go func() {
		s.shutdown()
		close(done)
	}()
	idle.waitClosed()
	voted.waitClosed()
	halfway.waitClosed()
	select {
	case <-done:
		t.Error("Shutdown did not wait for the commit")
	default:
	}
	release()
	if got := tidOf(t, p.result(call)); got == 0 || got != storage.LastTID() {
		t.Errorf("tpc_finish: %v, but the storage's last is %v", got, storage.LastTID())
	}
	<-done
	s.shutdown() // does nothing
	if rev, err := storage.LoadBefore(context.Background(), 1, zeolite.MaxTID); err != nil || string(rev.Data) != string(record("x")) {
		t.Errorf("the commit that was under way: %v, %v", rev, err)
	}
	if _, err := storage.LoadBefore(context.Background(), 7, zeolite.MaxTID); !errors.As(err, new(*zeolite.NotFoundError)) {
		t.Errorf("a transaction that was voted only: %v", err)
	}
	s.assertIdle()
}

// TestShutdownOfAStorageThatHangs must end, and say what hangs.
func TestShutdownOfAStorageThatHangs(t *testing.T) {
	storage := newFaulty(newMemory(t))
	s := startServer(t, storage, Options{Limits: Limits{Stuck: time.Millisecond}})
	p := s.connect(t, zrpc.Msgpack)
	id := p.voted(1, 0, record("x"))
	release, waiting := storage.blocks(t, "finish")
	p.begin("tpc_finish", id)
	<-waiting
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, ErrStuck) {
		t.Errorf("Shutdown: %v, want ErrStuck", err)
	}
	if log := s.logs.String(); !strings.Contains(log, "does not return") || !strings.Contains(log, "tpc_finish") {
		t.Errorf("the log does not tell what hangs:\n%s", log)
	}
	release()
	s.waitIdle()
}

// TestUndoIDAsText: a program that has the id of an undo out of a form may send
// it as text. That must not end the connection, which all threads of the
// program share.
func TestUndoIDAsText(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		p := s.connect(t, enc)
		tid1 := p.commit(1, 0, record("1"))
		tid2 := p.commit(1, tid1, record("2"))
		id := p.tpcBegin()
		p.send("undoa", base64.StdEncoding.EncodeToString(tid2.Bytes()), id)
		if list := tupleOf(t, p.call("vote", id)); len(list) != 1 || oidOf(t, list[0]) != 1 {
			t.Errorf("vote of an undo: %v", list)
		}
		p.call("tpc_abort", id)
		id = p.tpcBegin()
		p.send("undoa", "ünknown", id)
		p.callRaises("binascii.Error", "vote", id)
	})
}
