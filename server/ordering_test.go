package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// TestOrderingRules runs many clients at random against a server and checks,
// from what each connection brought in which order, that the rules in the
// package comment hold. The seed of a failure is printed; set ZEOLITE_SEED to
// run it again, and ZEOLITE_ROUNDS to run more.
func TestOrderingRules(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("ZEOLITE_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	rounds := 3
	if s := os.Getenv("ZEOLITE_ROUNDS"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	for round := range rounds {
		for _, enc := range []zrpc.Encoding{zrpc.Pickle, zrpc.Msgpack} {
			for _, backEnd := range []string{"memory", "filestorage"} {
				seed := seed + uint64(round)
				t.Run(fmt.Sprintf("%s/%v/%d", backEnd, enc, seed), func(t *testing.T) {
					runOrdering(t, backEnd, enc, seed)
				})
			}
		}
	}
}

const (
	orderingObjects = 12
	orderingClients = 8
	orderingSteps   = 150
)

// world is what all clients of a run share: the truth about commits.
type world struct {
	t       *testing.T
	addr    string
	mu      sync.Mutex
	commits map[zeolite.TID][]zeolite.OID // that were acknowledged
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
	w := &world{t: t, addr: l.Addr().String(), commits: map[zeolite.TID][]zeolite.OID{}}
	var clients sync.WaitGroup
	for i := range orderingClients {
		clients.Go(func() {
			c := &checker{w: w, rng: rand.New(rand.NewPCG(seed, uint64(i))), slow: i%3 == 2}
			c.run()
		})
	}
	clients.Wait()
	w.checkAtomic(storage)
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

// checkAtomic checks that every acknowledged transaction is there as a whole.
func (w *world) checkAtomic(storage zeolite.Storage) {
	for tid, oids := range w.commits {
		for _, oid := range oids {
			rev, err := storage.LoadBefore(context.Background(), oid, tid+1)
			if err != nil || rev.TID != tid {
				w.t.Errorf("object %v of transaction %v: revision %v, %v", oid, tid, rev.TID, err)
			}
		}
	}
}

// checker is one client. What arrives is looked at in the reading goroutine,
// in order; the fields below mu belong to both goroutines.
type checker struct {
	w    *world
	rng  *rand.Rand
	slow bool

	conn   *zrpc.Conn
	server *stubs.StorageServerStub

	mu         sync.Mutex
	registered zeolite.TID
	seen       zeolite.TID                 // the last tid that arrived, however
	stated     zeolite.TID                 // the greatest tid that a reply stated
	ended      map[zeolite.OID]zeolite.TID // the last invalidation, or own commit, of an object
	others     map[zeolite.TID]bool        // invalidations that arrived
	own        map[zeolite.TID]bool
	current    map[zeolite.OID]zeolite.TID // serials to store against
}

func (c *checker) fail(format string, args ...any) {
	c.w.t.Errorf(format, args...)
}

func (c *checker) run() {
	last := zeolite.TID(0)
	for session := 0; session < 3; session++ {
		c.connect(last, session > 0)
		for range orderingSteps / 3 {
			if c.rng.IntN(3) == 0 {
				c.commit()
			} else {
				c.load()
			}
			if c.rng.IntN(10) == 0 {
				c.lastTransaction()
			}
		}
		if session == 2 {
			c.finalCheck()
		}
		last = c.seenTID()
		if c.rng.IntN(2) == 0 {
			c.conn.End(errors.New("cut")) // in the middle of whatever
		}
		c.conn.Close()
	}
}

func (c *checker) seenTID() zeolite.TID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.seen, c.registered)
}

// slowConn reads in small pieces, with pauses.
type slowConn struct{ net.Conn }

func (s slowConn) Read(p []byte) (int, error) {
	for range rand.IntN(50) {
		runtime.Gosched()
	}
	return s.Conn.Read(p[:min(len(p), 1+rand.IntN(200))])
}

func (c *checker) connect(last zeolite.TID, verify bool) {
	nc, err := net.Dial("tcp", c.w.addr)
	if err != nil {
		c.w.t.Error(err)
		runtime.Goexit()
	}
	if c.slow {
		nc = slowConn{nc}
	}
	enc, err := zrpc.ClientHandshake(nc, 10*time.Second)
	if err != nil {
		c.w.t.Error(err)
		runtime.Goexit()
	}
	c.mu.Lock()
	c.seen, c.stated = 0, 0
	c.ended, c.current = map[zeolite.OID]zeolite.TID{}, map[zeolite.OID]zeolite.TID{}
	c.others, c.own = map[zeolite.TID]bool{}, map[zeolite.TID]bool{}
	c.mu.Unlock()
	c.conn = zrpc.NewConn(nc, enc, zrpc.Options{})
	c.server = stubs.NewStorageServerStub(c.conn)
	c.conn.Start(c)
	c.stating("register", func(m *zrpc.Message) {
		m.Tuple(2)
		m.Str("1")
		m.Bool(false)
		m.EndTuple(2)
	}, func(tid zeolite.TID) {
		c.registered = tid
	})
	if verify {
		inv, err := c.server.GetInvalidations(context.Background(), last)
		if err != nil || inv == nil {
			c.fail("getInvalidations(%v) = %v, %v", last, inv, err)
			return
		}
		c.w.mu.Lock()
		defer c.w.mu.Unlock()
		for tid, oids := range c.w.commits {
			if tid <= last || tid > inv.TID {
				continue
			}
			for _, oid := range oids {
				if !slices.Contains(inv.OIDs, oid) {
					c.fail("getInvalidations(%v) = %v lacks %v of transaction %v", last, inv, oid, tid)
				}
			}
		}
	}
}

// stating makes a call whose reply states a tid, and checks the rule for it.
func (c *checker) stating(name string, args func(*zrpc.Message), also func(zeolite.TID)) {
	m, p := c.conn.BeginCall(name)
	args(m)
	p.Hook = func(r *zrpc.Reply) {
		if err := r.Err(); err != nil {
			c.fail("%s: %v", name, err)
			return
		}
		tid := zeolite.TID(r.Value.ID())
		c.mu.Lock()
		defer c.mu.Unlock()
		c.stated = max(c.stated, tid)
		if also != nil {
			also(tid)
		}
	}
	if _, err := c.conn.AwaitHooked(context.Background(), m, p); err != nil {
		c.fail("%s: %v", name, err)
	}
}

func (c *checker) lastTransaction() {
	c.stating("lastTransaction", func(m *zrpc.Message) {
		m.Tuple(0)
		m.EndTuple(0)
	}, nil)
}

// HandleCall takes the invalidations.
func (c *checker) HandleCall(call *zrpc.Call) {
	stubs.DispatchClientStorage(context.Background(), c, call)
}

func (c *checker) Info(context.Context, zrpc.Value) error { return nil }
func (c *checker) ReceiveBlobStart(context.Context, zeolite.OID, zeolite.TID) error {
	return errors.New("not asked for")
}
func (c *checker) ReceiveBlobChunk(context.Context, zeolite.OID, zeolite.TID, []byte) error {
	return errors.New("not asked for")
}
func (c *checker) ReceiveBlobStop(context.Context, zeolite.OID, zeolite.TID) error {
	return errors.New("not asked for")
}

func (c *checker) InvalidateTransaction(_ context.Context, tid zeolite.TID, oids []zeolite.OID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Rule 1: once each, in tid order, none from before register.
	if tid <= c.seen {
		c.fail("invalidation %v came after tid %v", tid, c.seen)
	}
	// Rule 3: nothing that a reply stated as known comes later.
	if tid <= c.stated {
		c.fail("invalidation %v came after a reply that stated %v", tid, c.stated)
	}
	c.seen = tid
	c.others[tid] = true
	for _, oid := range oids {
		c.ended[oid] = tid
	}
	return nil
}

func (c *checker) load() {
	oid := zeolite.OID(c.rng.IntN(orderingObjects))
	err := c.server.LoadBeforeHook(context.Background(), oid, zeolite.MaxTID, func(rev zeolite.Revision, err error) {
		if err != nil {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		// Rule 2: what is called current was not ended before.
		if ended := c.ended[oid]; rev.End == 0 && rev.TID < ended {
			c.fail("object %v: revision %v is called current, but %v ended it", oid, rev.TID, ended)
		}
		// Rule 4: nothing can be seen whose invalidation has not come.
		if rev.TID > c.registered && !c.others[rev.TID] && !c.own[rev.TID] {
			c.fail("object %v: revision %v was seen before its invalidation", oid, rev.TID)
		}
		c.current[oid] = rev.TID
	})
	var notFound *zeolite.NotFoundError
	if err != nil && !errors.As(err, &notFound) {
		c.fail("load: %v", err)
	}
}

var txnIDs atomic.Uint64

// commit writes some objects. A client that lost its connection meanwhile, or
// that met a conflict, just goes on.
func (c *checker) commit() {
	ctx := context.Background()
	id := stubs.TxnID(txnIDs.Add(1))
	n := 1 + c.rng.IntN(3)
	var oids []zeolite.OID
	for len(oids) < n {
		if oid := zeolite.OID(c.rng.IntN(orderingObjects)); !slices.Contains(oids, oid) {
			oids = append(oids, oid)
		}
	}
	_ = c.server.TpcBegin(ctx, id, nil, nil, nil, stubs.OptionalTID{}, " ")
	c.mu.Lock()
	serials := make([]zeolite.TID, n)
	for i, oid := range oids {
		serials[i] = max(c.current[oid], c.ended[oid])
	}
	c.mu.Unlock()
	for i, oid := range oids {
		_ = c.server.Storea(ctx, oid, serials[i], fmt.Appendf(nil, "%d %v", id, oid), id)
	}
	result, err := c.server.Vote(ctx, id)
	if err != nil {
		c.fail("vote: %v", err)
		return
	}
	if len(result.Conflicts) > 0 || c.rng.IntN(8) == 0 {
		c.mu.Lock()
		for _, conflict := range result.Conflicts {
			c.current[conflict.OID] = conflict.Committed
		}
		c.mu.Unlock()
		if err := c.server.TpcAbort(ctx, id); err != nil {
			c.fail("tpc_abort: %v", err)
		}
		return
	}
	err = c.server.TpcFinishHook(ctx, id, func(tid stubs.OptionalTID, err error) {
		if err != nil || !tid.Set {
			c.fail("tpc_finish: %v, %v", tid, err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		// Rules 1 and 3: an own commit takes its place among the others.
		if tid.TID <= c.seen {
			c.fail("tpc_finish of %v was answered after tid %v", tid.TID, c.seen)
		}
		c.seen, c.stated = tid.TID, max(c.stated, tid.TID)
		c.own[tid.TID] = true
		for _, oid := range oids {
			c.ended[oid], c.current[oid] = tid.TID, tid.TID
		}
		c.w.mu.Lock()
		c.w.commits[tid.TID] = oids
		c.w.mu.Unlock()
	})
	if err != nil {
		c.fail("tpc_finish: %v", err)
	}
}

// finalCheck makes sure that no invalidation is missing.
func (c *checker) finalCheck() {
	c.lastTransaction()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for tid := range c.w.commits {
		if tid > c.registered && tid <= c.stated && !c.others[tid] && !c.own[tid] {
			c.fail("the invalidation of %v never came, though %v was stated", tid, c.stated)
		}
	}
}
