package postgres

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/postgres"
	"github.com/zeolite-go/zeolite/tests/peers"
	"github.com/zeolite-go/zeolite/tests/pgtest"
	"github.com/zeolite-go/zeolite/tests/serving"
)

// startPython starts a Python process with a connection to one server.
func startPython(t *testing.T, addr string) *peers.Dialogue {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return peers.StartDialogue(t, "testdata/client.py", host, port, t.TempDir())
}

// deaf is a storage that hears of what others commit only when a vote of its own
// has reached the database.
type deaf struct {
	*postgres.Storage
	mu   sync.Mutex
	deaf bool
}

func (d *deaf) Watch(publish zeolite.Publish, lost func()) {
	d.Storage.Watch(func(tid zeolite.TID, oids []zeolite.OID, visible func()) {
		d.mu.Lock()
		wait := d.deaf
		d.mu.Unlock()
		for deadline := time.Now().Add(time.Minute); wait && d.votes() == 0 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		publish(tid, oids, visible)
	}, lost)
}

// votes is how often a connection for commits was had.
func (d *deaf) votes() int64 {
	for _, p := range d.Stats().Pools {
		if p.Name == "commits" {
			return p.Acquired
		}
	}
	return 0
}

// TestConflictWithAnotherServer has a client of one server overwrite what a
// client of another has committed, before the first server has heard of it: its
// vote finds the conflict in the database, and Python resolves it.
func TestConflictWithAnotherServer(t *testing.T) {
	dsn := pgtest.Database(t)
	_, one := serving.Start(t, opened(t, postgres.Options{DSN: dsn}))
	d := &deaf{Storage: opened(t, postgres.Options{DSN: dsn})}
	late, two := serving.Start(t, d)
	names := []string{"a", "b", "c"}
	first := startPython(t, one)
	first.Call(nil, "fill", names) // the first one also makes the root
	second := startPython(t, two)
	var known, last string
	first.Call(&last, "sync")
	eventually(t, "the second knows", func() bool { second.Call(&known, "sync"); return known == last })
	var totals []int
	second.Call(&totals, "load", names)
	d.mu.Lock()
	d.deaf = true
	d.mu.Unlock()

	outcome := func(c *peers.Dialogue) (s string) {
		t.Helper()
		c.Call(&s, "commit")
		return s
	}
	first.Call(nil, "add", "a", 1, "first")
	first.Call(nil, "add", "c", 100, "first")
	if s := outcome(first); s != "ok" {
		t.Fatal(s)
	}
	for _, name := range names {
		second.Call(nil, "add", name, 10, "second")
	}
	if s := outcome(second); s != "ok" {
		t.Errorf("the client could not resolve the conflict: %s", s)
	}
	if n := late.Stats().Storages[0].Conflicts; n != 1 {
		t.Errorf("%d votes met a conflict, want 1", n)
	}
	for _, c := range []*peers.Dialogue{first, second} {
		var ok bool
		if c.Call(&ok, "wait", "c", 110); !ok {
			t.Error("the other's commit never came")
		}
		if c.Call(&totals, "load", names); !slices.Equal(totals, []int{11, 10, 110}) {
			t.Errorf("totals are %v", totals)
		}
		var log []string
		if c.Call(&log, "logs", "a"); !slices.Equal(log, []string{"first", "second"}) {
			t.Errorf("the log is %v", log)
		}
	}
	// What cannot be resolved is a conflict for Python, too.
	first.Call(nil, "sync")
	second.Call(nil, "sync")
	first.Call(nil, "put", "key", 1)
	second.Call(nil, "put", "key", 2)
	if s := outcome(first); s != "ok" {
		t.Fatal(s)
	}
	if s := outcome(second); !strings.HasPrefix(s, "conflict") {
		t.Errorf("overwritten: %s", s)
	}
}

// TestManyConflicts lets clients of two servers change the same two objects
// again and again. Nothing gets lost, and hardly ever has one to start over.
func TestManyConflicts(t *testing.T) {
	dsn := pgtest.Database(t)
	const each = 40
	var clients []*peers.Dialogue
	for range 2 {
		_, addr := serving.Start(t, opened(t, postgres.Options{DSN: dsn}))
		for range 2 {
			clients = append(clients, startPython(t, addr))
			if len(clients) == 1 {
				clients[0].Call(nil, "fill", []string{"a"})
			}
		}
	}
	for _, c := range clients {
		var ok bool
		eventually(t, "all know the object", func() bool {
			var last, known string
			clients[0].Call(&last, "sync")
			c.Call(&known, "sync")
			return last == known
		})
		if c.Call(&ok, "wait", "a", 0); !ok {
			t.Fatal("there is no object")
		}
	}
	var wg sync.WaitGroup
	again := make([]int, len(clients))
	for i, c := range clients {
		wg.Go(func() { c.Call(&again[i], "many", "a", each, fmt.Sprint(i)) })
	}
	wg.Wait()
	t.Logf("%d commits each; had to start over: %v", each, again)
	for _, c := range clients {
		var ok bool
		if c.Call(&ok, "wait", "a", each*len(clients)); !ok {
			t.Error("the total is wrong")
		}
		var n int
		if c.Call(&n, "length"); n != each*len(clients) {
			t.Errorf("the length is %d", n)
		}
	}
	var log []string
	clients[0].Call(&log, "logs", "a")
	slices.Sort(log)
	if n := len(slices.Compact(log)); n != each*len(clients) {
		t.Errorf("the log has %d entries, %d of them different", len(log), n)
	}
}
