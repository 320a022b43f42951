// Package ordering checks the ordering rules of package server, as properties:
// it runs many clients at random against one server, or several on the same
// database, and judges from what each connection brought in which order.
//
// Tests of servers run it; what harm is done meanwhile is up to them.
package ordering

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
)

// Options say what Run does.
type Options struct {
	// Servers are the addresses that clients choose from, each time they
	// connect.
	Servers []string
	// Seed makes a run that can be repeated, as far as that is up to clients.
	Seed uint64
	// Clients is how many there are (8), Steps what each of them does (150).
	Clients, Steps int
	// Harm says that calls may fail and connections break. What arrives, and
	// what was acknowledged, is judged as ever.
	Harm bool
}

// Seeds returns the seeds of the rounds that a test runs, so many unless
// ZEOLITE_ROUNDS says otherwise: new ones each time, or from ZEOLITE_SEED on.
func Seeds(t testing.TB, rounds int) []uint64 {
	t.Helper()
	first := uint64(time.Now().UnixNano())
	var err error
	if s := os.Getenv("ZEOLITE_SEED"); s != "" {
		if first, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("ZEOLITE_SEED: %v", err)
		}
	}
	if s := os.Getenv("ZEOLITE_ROUNDS"); s != "" {
		if rounds, err = strconv.Atoi(s); err != nil || rounds < 1 {
			t.Fatalf("ZEOLITE_ROUNDS is %q, and not a number of rounds", s)
		}
	}
	seeds := make([]uint64, rounds)
	for i := range seeds {
		seeds[i] = first + uint64(i)
	}
	return seeds
}

// objects is how few there are, so that clients get in each other's way.
const objects = 12

// World is what all clients of a run share: the truth about commits. It is safe
// for concurrent use.
type World struct {
	t   testing.TB
	opt Options

	mu      sync.Mutex
	commits map[zeolite.TID][]zeolite.OID // that were acknowledged
	loads   int                           // that found a revision
	failed  int                           // calls, or connections
}

// Run runs clients to their end.
func Run(t testing.TB, opt Options) *World {
	if opt.Clients == 0 {
		opt.Clients = 8
	}
	if opt.Steps == 0 {
		opt.Steps = 150
	}
	w := &World{t: t, opt: opt, commits: map[zeolite.TID][]zeolite.OID{}}
	var clients sync.WaitGroup
	for i := range opt.Clients {
		clients.Go(func() {
			c := &checker{w: w, rng: rand.New(rand.NewPCG(opt.Seed, uint64(i))), slow: i%3 == 2}
			c.run()
		})
	}
	clients.Wait()
	return w
}

// CheckAtomic checks that every acknowledged transaction is there as a whole.
func (w *World) CheckAtomic(storage zeolite.Storage) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for tid, oids := range w.commits {
		for _, oid := range oids {
			rev, err := storage.LoadBefore(context.Background(), oid, tid+1)
			if err != nil || rev.TID != tid {
				w.t.Errorf("object %v of transaction %v: revision %v, %v", oid, tid, rev.TID, err)
			}
		}
	}
}

// Commits is how many transactions were acknowledged.
func (w *World) Commits() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.commits)
}

// Loads is how many loads found a revision.
func (w *World) Loads() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.loads
}

// Failed is how many calls failed, or connections broke.
func (w *World) Failed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// last is the last transaction that was acknowledged so far.
func (w *World) last() (last zeolite.TID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for tid := range w.commits {
		last = max(last, tid)
	}
	return last
}

// harmed takes down that something failed, which is an error unless harm is
// done. Broken rules are reported with t.Errorf instead.
func (w *World) harmed(what string, err error) {
	w.t.Helper()
	if !w.opt.Harm {
		w.t.Errorf("%s: %v", what, err)
		return
	}
	w.mu.Lock()
	w.failed++
	w.mu.Unlock()
}
