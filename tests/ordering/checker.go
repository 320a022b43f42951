package ordering

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// patience is how long it may take at most until a client can connect, or hears
// of what was committed.
const patience = time.Minute

// checker is one client. What arrives is looked at in the reading goroutine,
// in order; the fields below mu belong to both goroutines.
type checker struct {
	w    *World
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

// fail reports a rule that was broken.
func (c *checker) fail(format string, args ...any) {
	c.w.t.Errorf(format, args...)
}

func (c *checker) run() {
	last := zeolite.TID(0)
	for session := 0; session < 3; session++ {
		if !c.connect(last, session > 0) {
			return
		}
		for range c.w.opt.Steps / 3 {
			if c.conn.Err() != nil && c.w.opt.Harm {
				break // on to the next connection
			}
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

// connect connects to one of the servers, as often as that takes if harm is
// done. False says that it was in vain.
func (c *checker) connect(last zeolite.TID, verify bool) bool {
	for deadline := time.Now().Add(patience); ; {
		err := c.tryConnect(last, verify)
		if err == nil {
			return true
		}
		c.w.harmed("connect", err)
		if !c.w.opt.Harm || time.Now().After(deadline) {
			c.fail("never connected again: %v", err)
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (c *checker) tryConnect(last zeolite.TID, verify bool) error {
	nc, err := net.Dial("tcp", c.w.opt.Servers[c.rng.IntN(len(c.w.opt.Servers))])
	if err != nil {
		return err
	}
	if c.slow {
		nc = slowConn{nc}
	}
	enc, err := zrpc.ClientHandshake(nc, 10*time.Second)
	if err != nil {
		nc.Close()
		return err
	}
	c.mu.Lock()
	c.seen, c.stated, c.registered = 0, 0, 0
	c.ended, c.current = map[zeolite.OID]zeolite.TID{}, map[zeolite.OID]zeolite.TID{}
	c.others, c.own = map[zeolite.TID]bool{}, map[zeolite.TID]bool{}
	c.mu.Unlock()
	c.conn = zrpc.NewConn(nc, enc, zrpc.Options{})
	c.server = stubs.NewStorageServerStub(c.conn)
	c.conn.Start(c)
	if err := c.register(last, verify); err != nil {
		c.conn.Close()
		return err
	}
	return nil
}

// register registers, and verifies what the client would have in its cache.
func (c *checker) register(last zeolite.TID, verify bool) error {
	err := c.stating("register", func(m *zrpc.Message) {
		m.Tuple(2)
		m.Str("1")
		m.Bool(false)
		m.EndTuple(2)
	}, func(tid zeolite.TID) {
		c.registered = tid
		// No server may be behind what a client has heard from another one.
		if tid < last {
			c.fail("register answers %v to a client that has seen %v", tid, last)
		}
	})
	if err != nil || !verify {
		return err
	}
	inv, err := c.server.GetInvalidations(context.Background(), last)
	if err != nil {
		return err
	}
	if inv == nil {
		c.fail("getInvalidations(%v) does not know", last)
		return nil
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
	return nil
}

// stating makes a call whose reply states a tid, and checks the rule for it.
func (c *checker) stating(name string, args func(*zrpc.Message), also func(zeolite.TID)) error {
	m, p := c.conn.BeginCall(name)
	args(m)
	var failed error
	p.Hook = func(r *zrpc.Reply) {
		if failed = r.Err(); failed != nil {
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
		return err
	}
	return failed
}

// lastTransaction returns what the server states, and whether it did.
func (c *checker) lastTransaction() (zeolite.TID, bool) {
	var last zeolite.TID
	err := c.stating("lastTransaction", func(m *zrpc.Message) {
		m.Tuple(0)
		m.EndTuple(0)
	}, func(tid zeolite.TID) { last = tid })
	if err != nil {
		c.w.harmed("lastTransaction", err)
	}
	return last, err == nil
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
	oid := zeolite.OID(c.rng.IntN(objects))
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
		c.w.mu.Lock()
		c.w.loads++
		c.w.mu.Unlock()
	})
	var notFound *zeolite.NotFoundError
	if err != nil && !errors.As(err, &notFound) {
		c.w.harmed("load", err)
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
		if oid := zeolite.OID(c.rng.IntN(objects)); !slices.Contains(oids, oid) {
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
		c.w.harmed("vote", err)
		return
	}
	if len(result.Conflicts) > 0 || c.rng.IntN(8) == 0 {
		c.mu.Lock()
		for _, conflict := range result.Conflicts {
			c.current[conflict.OID] = conflict.Committed
		}
		c.mu.Unlock()
		if err := c.server.TpcAbort(ctx, id); err != nil {
			c.w.harmed("tpc_abort", err)
		}
		return
	}
	err = c.server.TpcFinishHook(ctx, id, func(tid stubs.OptionalTID, err error) {
		if err != nil {
			return
		}
		if !tid.Set {
			c.fail("tpc_finish: no tid")
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
		c.w.harmed("tpc_finish", err)
	}
}

// finalCheck waits until the server has heard of what all clients had been told
// is committed, and makes sure that no invalidation is missing.
func (c *checker) finalCheck() {
	for want, deadline := c.w.last(), time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		last, ok := c.lastTransaction()
		if !ok && c.conn.Err() != nil {
			return // harm was done; others look
		}
		if ok && last >= want {
			break
		}
		if time.Now().After(deadline) {
			c.fail("the server states %v, and never hears of %v", last, want)
			return
		}
	}
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
