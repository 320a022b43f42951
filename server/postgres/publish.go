package postgres

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite"
)

// publisher moves the horizon of a storage over the transactions of all
// servers, one at a time, in TID order. It is safe for concurrent use.
//
// A commit of our own is entered in mine before it can be visible in the
// database. So whoever publishes knows for each transaction it finds there
// whether it is one of ours, and publishes it as its Finish wants, even if that
// has not heard of its success yet.
type publisher struct {
	last atomic.Uint64 // the horizon; written with mu held

	mu      turn // held while transactions are published
	publish zeolite.Publish
	lost    func()
	opened  zeolite.TID // the horizon at the start
	// reach moves the horizon over a transaction, by calling show.
	reach func(tid zeolite.TID, oids []zeolite.OID, show func())

	mineMu sync.Mutex
	mine   map[zeolite.TID]*commit
}

// turn is a mutex that one can give up waiting for: whoever has it may have to wait
// for the database.
type turn chan struct{}

func (t turn) Lock()   { t <- struct{}{} }
func (t turn) Unlock() { <-t }

// lock is Lock until the context ends.
func (t turn) lock(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *publisher) init(last zeolite.TID, reach func(zeolite.TID, []zeolite.OID, func())) {
	p.mu = make(turn, 1)
	p.last.Store(uint64(last))
	p.reach = reach
	p.opened = last
	p.mine = map[zeolite.TID]*commit{}
}

// horizon is the last TID that was published.
func (p *publisher) horizon() zeolite.TID { return zeolite.TID(p.last.Load()) }

// horizonInt is the horizon as the database has TIDs.
func (p *publisher) horizonInt() int64 { return int64(p.horizon()) }

// expect enters a commit of our own.
func (p *publisher) expect(c *commit) {
	p.mineMu.Lock()
	p.mine[c.tid] = c
	p.mineMu.Unlock()
}

// forget gives up a commit for a reason: if it turns up in the database, it is
// published like those of others. It returns the reason, unless the commit was
// published as ours already: somebody saw it in the database, so it succeeded.
func (p *publisher) forget(c *commit, reason error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mineMu.Lock()
	delete(p.mine, c.tid)
	p.mineMu.Unlock()
	if c.published {
		return nil
	}
	return reason
}

// ours returns our own commit with a TID, nil if it is not ours.
func (p *publisher) ours(tid zeolite.TID) *commit {
	p.mineMu.Lock()
	defer p.mineMu.Unlock()
	return p.mine[tid]
}

// show publishes one transaction. It is called with mu held.
func (p *publisher) show(tid zeolite.TID, oids []zeolite.OID, publish zeolite.Publish) {
	visible := sync.OnceFunc(func() {
		p.reach(tid, oids, func() { p.last.Store(max(p.last.Load(), uint64(tid))) })
	})
	if publish != nil {
		publish(tid, oids, visible)
	}
	visible()
}

// showOurs publishes a commit of our own. It is called with mu held.
func (p *publisher) showOurs(c *commit) {
	p.show(c.tid, c.oids, c.publish)
	c.published = true
	p.mineMu.Lock()
	delete(p.mine, c.tid)
	p.mineMu.Unlock()
}

// publishCommit publishes a commit of ours that is in the database, unless that
// was done already, and before it what came before it.
func (s *Storage) publishCommit(ctx context.Context, conn *pgx.Conn, c *commit) error {
	p := &s.publisher
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.published {
		return nil
	}
	// All transactions with smaller TIDs are committed and can be seen: they
	// had the commit lock before.
	if c.prev > p.horizon() {
		if err := s.catchUp(ctx, changesOn(conn), c.tid-1); err != nil {
			return err
		}
	}
	p.showOurs(c)
	return nil
}

// catchUp publishes what the database has behind the horizon, up to a TID. It
// is called with publisher.mu held, which many wait for: so a database that does
// not answer is given up soon.
func (s *Storage) catchUp(ctx context.Context, read changesReader, upTo zeolite.TID) error {
	p := &s.publisher
	for p.horizon() < upTo {
		limit, cancel := context.WithTimeout(ctx, s.opts.answerTime)
		changes, err := read(limit, p.horizon(), upTo)
		cancel()
		if err != nil {
			return s.fault(ctx, "cannot read what others committed", err)
		}
		if len(changes) == 0 {
			return nil
		}
		for _, c := range changes {
			if own := p.ours(c.TID); own != nil {
				p.showOurs(own)
				continue
			}
			s.oids.used(c.OIDs)
			if c.packed && p.lost != nil {
				// Objects that a pack has collected leave no trace. This
				// comes first: what is published ends the loss.
				p.lost()
			}
			p.show(c.TID, c.OIDs, p.publish)
			if c.packed {
				s.serials.forget()
			}
		}
	}
	return nil
}

// CatchUp implements zeolite.Follower. It keeps no connection for loads while it
// waits to publish, and while it does: who holds that up may want one.
func (s *Storage) CatchUp(ctx context.Context) error {
	if err := s.publisher.mu.lock(ctx); err != nil {
		return s.fault(ctx, "cannot read what others committed", err)
	}
	defer s.publisher.mu.Unlock()
	return s.catchUp(ctx, s.changes, zeolite.MaxTID)
}

// Watch implements zeolite.Watcher.
func (s *Storage) Watch(publish zeolite.Publish, lost func()) {
	p := &s.publisher
	p.mu.Lock()
	defer p.mu.Unlock()
	p.publish, p.lost = publish, lost
	// What was published to nobody since Open is told now.
	if p.horizon() == p.opened {
		return
	}
	for c, err := range s.Changes(s.ctx, p.opened) {
		if err != nil {
			lost()
			publish(p.horizon(), nil, func() {})
			return
		}
		publish(c.TID, c.OIDs, func() {})
	}
}
