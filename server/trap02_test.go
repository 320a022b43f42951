package server

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// ending is a way in which a connection ends. It returns when the server has
// noticed, or is about to.
type ending struct {
	name string
	opt  Options
	end  func(p *peer)
	// locked says that it needs a client that holds the lock and does nothing.
	locked bool
}

// oversized is the header of a frame that no server takes.
var oversized = []byte{0xff, 0xff, 0xff, 0xff}

// endings are all the reasons for which a connection ends. Some need the
// client to be in a phase where its ordered lane is free.
var endings = []ending{
	{name: "client hangs up", end: (*peer).close},
	{name: "unknown method", end: func(p *peer) { p.begin("launch_missiles") }},
	{name: "unknown one-way method", end: func(p *peer) { p.send("launch_missiles") }},
	{name: "bad one-way call", end: func(p *peer) { p.send("iterator_gc", "no list") }},
	{name: "second register", end: func(p *peer) { p.begin("register", "1", false) }},
	{name: "undecodable frame", end: func(p *peer) { p.writeFrame([]byte("\xc1garbage")) }},
	{name: "empty frame", end: func(p *peer) { p.writeFrame(nil) }},
	{name: "oversized frame", end: func(p *peer) { p.writeBytes(oversized) }},
	{name: "truncated frame", end: func(p *peer) { p.writeBytes([]byte{0, 0, 0, 9, 0x80}); p.close() }},
	{name: "not a message", end: func(p *peer) { p.writeFrame(p.encode(zrpc.Tuple{int64(1), "x"})) }},
	{
		name: "transaction timeout", opt: Options{TransactionTimeout: 50 * time.Millisecond}, locked: true,
		end: func(*peer) {},
	},
	{
		// It does not read what it is told of.
		name: "outbox limit", opt: Options{Limits: Limits{Outbox: 1 << 10}},
		end: func(p *peer) {
			conn := p.session().conn
			for conn.PostFrame(make([]byte, 64<<10)) == nil {
			}
		},
	},
}

// TestTrap02_CommitLockReleasedOnEveryClose ends connections in every way in
// every phase of a transaction: each time another client gets the lock.
func TestTrap02_CommitLockReleasedOnEveryClose(t *testing.T) {
	// A phase puts a client into a state and returns what the client that
	// holds the lock in its way does at last, if there is one.
	phases := []struct {
		name  string
		voted bool
		enter func(p, other *peer, oid zeolite.OID, tid zeolite.TID) (release func())
	}{
		{"begun", false, func(p, _ *peer, oid zeolite.OID, tid zeolite.TID) func() {
			id := p.tpcBegin()
			p.store(id, oid, tid, record("mine"))
			p.sync()
			return nil
		}},
		{"uploading", false, func(p, _ *peer, oid zeolite.OID, tid zeolite.TID) func() {
			p.tpcBegin()
			p.send("storeBlobStart")
			p.send("storeBlobChunk", []byte("piece"))
			p.sync()
			return nil
		}},
		{"queued for the lock", false, func(p, other *peer, oid zeolite.OID, tid zeolite.TID) func() {
			held := other.voted(oid, tid, record("other"))
			id := p.tpcBegin()
			p.store(id, oid, tid, record("mine"))
			p.begin("vote", id)
			p.server.waitForQueue(1)
			return func() { other.call("tpc_abort", held) }
		}},
		{"voted", true, func(p, _ *peer, oid zeolite.OID, tid zeolite.TID) func() {
			p.voted(oid, tid, record("mine"))
			return nil
		}},
		{"voted the whole storage", true, func(p, _ *peer, oid zeolite.OID, tid zeolite.TID) func() {
			id := p.tpcBegin()
			p.send("restorea", oid, tid, record("mine"), nil, id)
			p.call("vote", id)
			return nil
		}},
	}
	for _, phase := range phases {
		for _, e := range endings {
			if e.locked && !phase.voted {
				continue // the timeout is for those who hold the lock
			}
			t.Run(phase.name+"/"+e.name, func(t *testing.T) {
				t.Parallel()
				storage, blobs := blobStorage(t)
				s := startServer(t, storage, e.opt)
				other := s.connect(t, zrpc.Msgpack)
				oid := other.newOID()
				tid := other.commit(oid, 0, record("first"))
				p := s.connect(t, zrpc.Pickle)
				release := phase.enter(p, other, oid, tid)
				e.end(p)
				p.waitGone()
				if release != nil {
					release()
				}
				data := record("second")
				other.assertLoads(oid, other.commit(oid, tid, data), data)
				if files := filesBelow(t, blobs); len(files) > 0 {
					t.Errorf("left behind: %v", files)
				}
				s.waitIdle()
			})
		}
	}
}

// waitForQueue waits until so many clients wait for commit locks.
func (s *testServer) waitForQueue(n int) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%d clients wait for commit locks", n), func() bool {
		waiting, _, _ := s.exports["1"].locks.state()
		return waiting == n
	})
}

// TestTrap02_CloseWhileFinishing ends connections while the storage commits:
// the commit completes, others see it, and the lock is free.
func TestTrap02_CloseWhileFinishing(t *testing.T) {
	for _, e := range endings {
		if e.locked {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			storage := newFaulty(newMemory(t))
			s := startServer(t, storage, e.opt)
			other := s.connect(t, zrpc.Msgpack)
			oid := other.newOID()
			tid := other.commit(oid, 0, record("first"))
			p := s.connect(t, zrpc.Pickle)
			id := p.voted(oid, tid, record("mine"))
			release, waiting := storage.blocks(t, "finish")
			p.begin("tpc_finish", id)
			<-waiting
			e.end(p)
			eventually(t, "the connection has ended", func() bool { return s.endedSessions() == 1 })
			release()
			p.waitGone()
			args := other.nextIs("invalidateTransaction")
			other.assertLoads(oid, tidOf(t, args[0]), record("mine"))
			other.commit(oid, tidOf(t, args[0]), record("third"))
			s.waitIdle()
		})
	}
}

// endedSessions counts the connections that have ended and are being cleaned
// up.
func (s *testServer) endedSessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for se := range s.sessions {
		if se.conn.Err() != nil {
			n++
		}
	}
	return n
}

// TestTrap02_SlowReadDoesNotKeepTheLock: a client that disconnects while one of
// its loads hangs in the storage lets go of its locks at once.
func TestTrap02_SlowReadDoesNotKeepTheLock(t *testing.T) {
	storage := newFaulty(newMemory(t))
	s := startServer(t, storage, Options{Limits: Limits{Workers: 2}})
	other := s.connect(t, zrpc.Msgpack)
	oid := other.newOID()
	tid := other.commit(oid, 0, record("first"))
	p := s.connect(t, zrpc.Pickle)
	p.voted(oid, tid, record("mine"))
	// This storage does not listen to contexts.
	hang, waiting := make(chan struct{}), make(chan struct{}, 10)
	let := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(let)
	storage.on("load", func(context.Context) error {
		waiting <- struct{}{}
		<-hang
		return nil
	})
	for range 2 {
		p.begin("loadBefore", oid, zeolite.MaxTID)
	}
	<-waiting
	<-waiting
	p.close()
	other.commit(oid, tid, record("second"))
	let()
	p.waitGone()
}
