package client

import (
	"sync"
	"sync/atomic"

	"github.com/zeolite-go/zeolite"
)

// publisher makes transactions visible, one after another, in the order in
// which the server told of them. It does so in a goroutine of its own: whoever
// is told of a transaction may wait for a load, whose reply the goroutine that
// reads the connection must be free to receive. It is safe for concurrent use.
//
// Until a transaction is visible all loads are answered as of the one before
// (see Storage.LoadBefore), although the cache knows better already.
type publisher struct {
	tid     atomic.Uint64   // the last visible transaction
	watch   zeolite.Publish // set by Watch; guarded, as all calls of add are ordered, by cache.mu
	working sync.WaitGroup

	mu      sync.Mutex
	queue   []publication
	running bool
}

// publication is a transaction to make visible.
type publication struct {
	lost    func() // called first, if what was committed up to tid cannot be told; may be nil
	tid     zeolite.TID
	oids    []zeolite.OID
	publish zeolite.Publish // of the transaction's Finish; nil if none was given
	own     bool            // committed by this client
	done    chan struct{}   // closed when it is visible; may be nil
}

func (p *publisher) last() zeolite.TID { return zeolite.TID(p.tid.Load()) }

// add queues a transaction. It never waits.
func (p *publisher) add(t publication) {
	if t.publish == nil && !t.own {
		t.publish = p.watch
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running && t.publish == nil { // nor lost: Watch sets both
		p.show(t)
		return
	}
	p.queue = append(p.queue, t)
	if !p.running {
		p.running = true
		p.working.Go(p.run)
	}
}

func (p *publisher) run() {
	p.mu.Lock()
	for len(p.queue) > 0 {
		t := p.queue[0]
		p.queue = p.queue[1:]
		p.mu.Unlock()
		if t.lost != nil {
			t.lost()
		}
		if t.publish == nil {
			p.show(t)
		} else {
			t.publish(t.tid, t.oids, func() { p.visible(t.tid) })
			p.show(t)
		}
		p.mu.Lock()
	}
	p.queue, p.running = nil, false
	p.mu.Unlock()
}

func (p *publisher) visible(tid zeolite.TID) {
	for old := p.tid.Load(); uint64(tid) > old; old = p.tid.Load() {
		if p.tid.CompareAndSwap(old, uint64(tid)) {
			return
		}
	}
}

func (p *publisher) show(t publication) {
	p.visible(t.tid)
	if t.done != nil {
		close(t.done)
	}
}
