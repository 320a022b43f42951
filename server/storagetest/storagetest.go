// Package storagetest is the conformance suite of back ends: what it tests is
// the contract in the root package, sentence by sentence. Every storage of
// this module runs it, the network client too.
//
//	func TestConformance(t *testing.T) {
//		storagetest.Run(t, func(t *testing.T) storagetest.Harness {
//			return storagetest.Harness{Storage: memory.New(memory.Options{}), ConcurrentTxns: true}
//		})
//	}
//
// The optional abilities are tested unless the Harness says that the storage
// lacks them; then, asking for them must give ErrUnsupported. The suite never waits
// for time to pass and does not care which clock the storage follows.
//
// The package also has what other tests need to speak to a storage: records
// that hold references (Record), blob uploads, and a copier of whole histories
// (Copy).
package storagetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
)

// Harness is a storage under test and what the suite must know about it.
type Harness struct {
	// Storage is new and empty. The suite closes it.
	Storage zeolite.Storage

	// Reopen opens the database of Storage again; the suite has closed
	// Storage before. It is nil if nothing outlives Close.
	Reopen func(t *testing.T) zeolite.Storage

	// ReopenReadOnly is Reopen with a storage that refuses writes; it may be
	// nil.
	ReopenReadOnly func(t *testing.T) zeolite.Storage

	// Lacks names the optional abilities that the storage does not have:
	// "undo", "pack", "blobs" or "record iteration". Its Info must say so,
	// and that it has the others.
	Lacks []string

	// ConcurrentTxns says that several transactions may be open at once.
	ConcurrentTxns bool

	// Remote says that the storage is reached over a network. Then a Txn may
	// report with Vote what is wrong with a call made before, Publish cannot
	// wait for loads, and an extension may come back pickled otherwise.
	Remote bool

	// NotApplicable, if not empty, says why the test at hand is not for this
	// storage; the other fields are not looked at then. It is for known
	// faults of storages that others wrote.
	NotApplicable string
}

// Run tests the storages that open returns, a new and empty one at each call.
// open may use t.Cleanup for what has to be removed after the storage is
// closed.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for _, group := range groups {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) {
					defer letPass(t)
					test.run(newEnv(t, open))
				})
			}
		})
	}
}

type group struct {
	name  string
	tests []test
}

type test struct {
	name string
	run  func(e *env)
}

var groups = []group{
	{"Load", loadTests},
	{"Commit", commitTests},
	{"Publish", publishTests},
	{"Concurrent", concurrentTests},
	{"Iterate", iterateTests},
	{"Restore", restoreTests},
	{"Undo", undoTests},
	{"Blob", blobTests},
	{"Pack", packTests},
	{"Garbage", garbageTests},
	{"Lifecycle", lifecycleTests},
	{"Random", randomTests},
}

// env is one test on one storage. The goroutine of the test uses it; others
// use its storage only.
type env struct {
	*testing.T
	open func(t *testing.T) Harness
	h    Harness
	s    zeolite.Storage
	ctx  context.Context
}

// patience ends tests that hang, with the goroutine's own error message rather
// than that of go test.
const patience = 2 * time.Minute

func newEnv(t *testing.T, open func(t *testing.T) Harness) *env {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	e := &env{T: t, open: open, h: open(t), ctx: ctx}
	if e.h.NotApplicable != "" {
		e.doesNotApply(e.h.NotApplicable)
	}
	e.use(e.h.Storage)
	info := e.s.Info()
	for ability, has := range map[string]bool{
		"undo": info.Undo, "pack": info.Pack, "blobs": info.Blobs, "record iteration": info.RecordIteration,
	} {
		if lacks := slices.Contains(e.h.Lacks, ability); has == lacks {
			t.Errorf("the storage lacks %s: %t; it says that it has it: %t", ability, lacks, has)
		}
	}
	return e
}

// another returns an env with a new storage, for the same test.
func (e *env) another() *env { return newEnv(e.T, e.open) }

// use makes s the storage of the test.
func (e *env) use(s zeolite.Storage) {
	e.s = s
	e.Cleanup(func() {
		if err := s.Close(); err != nil {
			e.Errorf("Close: %v", err)
		}
	})
}

// reopen closes the storage and opens its database again. If that is not
// possible it does nothing, and the test goes on with the storage it has.
func (e *env) reopen() {
	e.Helper()
	if e.h.Reopen == nil {
		return
	}
	e.must(e.s.Close())
	e.use(e.h.Reopen(e.T))
}

// need ends the test unless the storage has an ability.
func (e *env) need(ability string, has bool) {
	e.Helper()
	if !has {
		e.doesNotApply("the storage says it lacks: " + ability)
	}
}

// notApplicable is why a test is not for a storage.
type notApplicable string

// doesNotApply ends a test that is not for this storage. It is not skipped: it
// would not say more elsewhere.
func (e *env) doesNotApply(why string) {
	e.Helper()
	panic(notApplicable(why))
}

// letPass is deferred by every test, and ends what doesNotApply began.
func letPass(t *testing.T) {
	switch why := recover().(type) {
	case nil:
	case notApplicable:
		t.Log("does not apply: " + string(why))
	default:
		panic(why)
	}
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}
