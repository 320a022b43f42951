package client

import (
	"context"
	"fmt"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// verify brings the cache up to what the server has, after which the
// connection can be used. The connection before has ended: nothing else
// changes the cache meanwhile, and invalidations that arrive wait.
func (s *Storage) verify(l *link) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.opt.AttemptTimeout)
	defer cancel()

	c := s.cache
	c.mu.Lock()
	known, empty := c.tid, len(c.objects) == 0
	watched := s.pub.watch != nil
	c.mu.Unlock()
	if l.tid < known {
		// The connection before may have told of more since this one was made,
		// where it waits in l.early.
		last, err := l.stub.LastTransaction(ctx)
		if err != nil {
			return fmt.Errorf("lastTransaction: %w", err)
		}
		if last < known {
			return &errBehind{server: last, cache: known}
		}
	}
	switch {
	case l.tid <= known:
	case known == zeolite.ZeroTID && s.pub.last() == zeolite.ZeroTID && empty:
		// The first connection, and nothing is cached.
		c.mu.Lock()
		s.catchUpLocked(l.tid, nil)
		c.mu.Unlock()
	case watched:
		// Whoever watches must be told of every transaction, and exactly.
		if err := s.replay(s.ctx, l, known); err != nil {
			return fmt.Errorf("verifying the cache: %w", err)
		}
	default:
		if err := s.quickVerify(ctx, l, known); err != nil {
			return fmt.Errorf("verifying the cache: %w", err)
		}
	}
	info, err := l.stub.GetInfo(ctx)
	if err != nil {
		return fmt.Errorf("get_info: %w", err)
	}
	dict, ok := info.(*zrpc.Dict)
	if !ok {
		return fmt.Errorf("get_info: the answer is not a dict: %T", info)
	}
	s.setInfo(dict, l)
	if s.opt.Label != "" {
		if err := l.stub.SetClientLabel(ctx, s.opt.Label); err != nil {
			return err
		}
	}
	s.oids.drop()

	c.mu.Lock()
	defer c.mu.Unlock()
	for _, inv := range l.early {
		if inv.TID > c.tid {
			s.othersCommittedLocked(inv.TID, inv.OIDs)
		}
	}
	l.early, l.ready = nil, true
	return nil
}

// quickVerify asks which objects changed since, and forgets them; if the
// server cannot tell, everything.
func (s *Storage) quickVerify(ctx context.Context, l *link, known zeolite.TID) error {
	inv, err := l.stub.GetInvalidations(ctx, known)
	if err != nil {
		return err
	}
	c := s.cache
	c.mu.Lock()
	if s.pub.watch != nil { // since a moment ago
		c.mu.Unlock()
		return s.replay(s.ctx, l, known)
	}
	defer c.mu.Unlock()
	if inv == nil || inv.TID < l.tid {
		s.log.Warn("the server cannot tell what changed since this client was connected: the cache is dropped", "since", known)
		c.clearLocked(l.tid)
		s.catchUpLocked(l.tid, nil)
		return nil
	}
	s.log.Debug("cache verified", "since", known, "up_to", inv.TID, "objects", len(inv.OIDs))
	s.catchUpLocked(inv.TID, inv.OIDs)
	return nil
}

// catchUpLocked takes down that the given objects changed up to tid. Whoever
// watches since before the first connection is told where it begins.
func (s *Storage) catchUpLocked(tid zeolite.TID, oids []zeolite.OID) {
	s.cache.forgetLocked(tid, oids)
	s.pub.add(publication{tid: tid, oids: oids})
}

// replay applies the transactions since one by one.
func (s *Storage) replay(ctx context.Context, l *link, known zeolite.TID) error {
	last := known
	for change, err := range s.changesOn(ctx, l, known, l.tid) {
		if err != nil {
			if l.lost() || ctx.Err() != nil {
				return err
			}
			s.log.Warn("the server cannot tell what changed since this client was connected", "since", known, "error", err)
			s.giveUp(l)
			return nil
		}
		s.cache.mu.Lock()
		s.othersCommittedLocked(change.TID, change.OIDs)
		s.cache.mu.Unlock()
		last = change.TID
	}
	if last < l.tid {
		// Packed away, or an empty database that has had transactions.
		s.cache.mu.Lock()
		s.othersCommittedLocked(l.tid, nil)
		s.cache.mu.Unlock()
	}
	return nil
}

// giveUp is for a server that keeps no record of the past: everything that was
// read may be stale. Who watches is told so in its place, behind what is still
// to be published: that would look like the end of the loss.
func (s *Storage) giveUp(l *link) {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	s.cache.clearLocked(l.tid)
	s.pub.add(publication{tid: l.tid, lost: s.lostTrack})
}
