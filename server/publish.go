package server

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// publisher keeps the ordering rules of the package comment for the clients of
// a storage. It is safe for concurrent use.
//
// Transactions are published one at a time: first their invalidation is queued
// for every client, then they become visible. While that goes on, epoch is odd.
// A load that finds a current revision is answered only if, at the moment its
// reply is queued, epoch is what it was before the storage was asked. If it is
// not, a transaction was published meanwhile, and the revision may have ended:
// it is loaded again. Since epoch becomes odd before the first invalidation is
// queued, a reply that passes the test is in front of any invalidation that
// could concern it.
//
// A load that was overtaken several times holds up publishing instead, by order,
// which it may have for as long as the storage takes. So nobody else waits for
// order, and whoever publishes has it before mu.
type publisher struct {
	epoch atomic.Uint64
	order sync.RWMutex // locked by whoever publishes, for reading by such loads

	mu      sync.Mutex
	last    zeolite.TID // published
	gap     bool        // changes were lost, up to the next transaction published
	clients map[*session]struct{}
}

func (p *publisher) init() { p.clients = map[*session]struct{}{} }

// reached takes down a transaction up to which there is nobody to tell.
func (p *publisher) reached(tid zeolite.TID) {
	p.mu.Lock()
	p.last = max(p.last, tid)
	p.mu.Unlock()
}

// publish tells all clients but the committer, which may be nil, of a
// transaction, and makes it visible. It follows zeolite.Publish. The committer
// gets its answer in the same step: its reply takes the place that the
// invalidation has for others, so that every client sees tids grow.
func (e *export) publish(committer *session, tid zeolite.TID, oids []zeolite.OID, visible, answer func()) {
	p := &e.publisher
	p.order.Lock()
	defer p.order.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.epoch.Add(1)
	defer p.epoch.Add(1) // also if visible panics: loads would wait for ever
	// Each encoding's message is made once, for all clients that speak it.
	var pickle, msgpack []byte
	for client := range p.clients {
		if client == committer {
			continue
		}
		frame := &pickle
		if client.conn.Encoding() == zrpc.Msgpack {
			frame = &msgpack
		}
		if *frame == nil {
			// It cannot fail: there is nothing in it but ids.
			*frame, _ = stubs.InvalidationFrame(client.conn.Encoding(), tid, oids)
		}
		e.counters.invalidations.Add(1)
		_ = client.conn.PostFrame(*frame) // one that it does not take ends the connection
	}
	e.counters.published.Add(1)
	visible()
	p.last, p.gap = max(p.last, tid), false
	answer()
}

// stableEpoch returns the epoch at a moment when nothing is being published.
func (p *publisher) stableEpoch() uint64 {
	for {
		if epoch := p.epoch.Load(); epoch&1 == 0 {
			return epoch
		}
		p.lastTID() // waits: mu is held for as long as the epoch is odd
	}
}

// join adds a client and calls answer with the last tid, in one step: the
// client gets the invalidations of all that is published after that. In a gap
// nobody can join: the last tid would not tell that changes were lost.
func (p *publisher) join(client *session, answer func(last zeolite.TID)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gap {
		return false
	}
	p.clients[client] = struct{}{}
	answer(p.last)
	return true
}

// leave removes a client.
func (p *publisher) leave(client *session) {
	p.mu.Lock()
	delete(p.clients, client)
	p.mu.Unlock()
}

// lastTID returns the last tid that was published: every client has been sent
// all invalidations up to it.
func (p *publisher) lastTID() zeolite.TID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// count returns the number of clients.
func (p *publisher) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.clients)
}

// each calls f for every client.
func (p *publisher) each(f func(*session)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for client := range p.clients {
		f(client)
	}
}

var errChangesLost = errors.New("the storage lost track of changes that others made: clients must verify their caches")

// lost makes all clients come back and verify their caches, as soon as the
// transaction is published with which the storage knows what there is again.
func (p *publisher) lost() {
	p.mu.Lock()
	p.gap = true
	p.mu.Unlock()
	p.each(func(client *session) { client.conn.End(errChangesLost) })
}
