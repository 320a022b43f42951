package filestorage

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeolite-go/zeolite"
)

// committer lets one goroutine commit at a time, for all who wait. Its methods
// may be called by several goroutines at once.
type committer struct {
	mu    sync.Mutex
	queue []*Txn // wait for a committer
	shut  bool   // nobody commits any more

	// lock holds one token: who takes it may commit, or replace the file.
	lock chan struct{}

	took atomic.Int64 // ns, to write the last group; 0 if there was none
}

func (c *committer) init() { c.lock = make(chan struct{}, 1) }

// add lets t wait for a committer; it fails if there will be none.
func (c *committer) add(t *Txn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return zeolite.ErrClosed
	}
	c.queue = append(c.queue, t)
	return nil
}

// close makes everybody fail who waits or will. The caller has the commit lock
// and keeps it.
func (c *committer) close() {
	c.mu.Lock()
	c.shut = true
	c.mu.Unlock()
	for _, t := range c.take() {
		t.err = zeolite.ErrClosed
		close(t.done)
	}
}

// take returns everybody who waits.
func (c *committer) take() []*Txn {
	c.mu.Lock()
	defer c.mu.Unlock()
	group := c.queue
	c.queue = nil
	return group
}

// withdraw takes t from the queue again, if it is still there.
func (c *committer) withdraw(t *Txn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.queue, t)
	if i >= 0 {
		c.queue = slices.Delete(c.queue, i, i+1)
	}
	return i >= 0
}

// Finish implements zeolite.Txn. The context can stop it only while it waits
// for transactions that came before.
func (t *Txn) Finish(ctx context.Context, publish zeolite.Publish) (zeolite.TID, error) {
	if err := t.enter(ctx, "Finish", txnVoted); err != nil {
		t.Abort()
		return 0, err
	}
	s := t.s
	// Later on many would wait for what this reads from the disk.
	index := s.gen.Load().index
	for i := range t.recs {
		index.expect(t.recs[i].oid)
	}
	t.publish, t.done = publish, make(chan struct{})
	if err := s.committer.add(t); err != nil {
		t.Abort()
		return 0, err
	}

	select {
	case <-t.done:
	case s.committer.lock <- struct{}{}:
		// Either t is still waiting, or somebody has committed it.
		func() {
			defer func() { <-s.committer.lock }() // also if publish panics
			s.commitWaiting()
		}()
		<-t.done
	case <-ctx.Done():
		if s.committer.withdraw(t) {
			t.err = ctx.Err()
		} else {
			<-t.done // somebody is committing it
		}
	}
	if t.err != nil {
		t.Abort()
		return 0, t.err
	}
	t.state = txnFinished
	t.end()
	return t.tid, nil
}

// commitWaiting commits whatever is queued. The caller holds the commit lock.
func (s *Storage) commitWaiting() {
	group := s.committer.take()
	if len(group) == 0 {
		return
	}
	ended := false
	defer func() {
		if !ended {
			s.endInDoubt(group)
		}
	}()
	s.commitGroup(group)
	ended = true
	for _, t := range group {
		close(t.done)
	}
	s.maybeSaveIndex()
}

// endInDoubt ends the wait for a group when committing it has panicked, which may
// have been anywhere: what of it is durable, or visible, is not known.
func (s *Storage) endInDoubt(group []*Txn) {
	s.fail(errors.New("committing has panicked"))
	for _, t := range group {
		t.err = errors.Join(zeolite.ErrInDoubt, s.failure.Load())
		close(t.done)
	}
}

// commitGroup commits transactions together; if that fails and they are many,
// one by one, so that one that cannot be written fails alone; but not if a sync of
// their blobs failed, which cannot be tried again. What happened to each is in its
// err.
func (s *Storage) commitGroup(group []*Txn) {
	err := s.tryCommit(group)
	if err == nil {
		return
	}
	final := errors.Is(err, zeolite.ErrInDoubt) || errors.Is(err, errSyncFailed)
	for _, t := range group {
		switch {
		case t.err != nil: // it failed before
		case final || len(group) == 1:
			t.err = err
		default:
			t.err = s.tryCommit([]*Txn{t})
		}
	}
}

// tryCommit commits those of a group that can be laid out; the others have err
// set. If it fails, none was committed.
func (s *Storage) tryCommit(group []*Txn) error {
	if err := s.writable(context.Background()); err != nil {
		return err
	}
	began := time.Now()
	g := s.gen.Load()
	start := s.space.endNow()
	pos, last := start, g.lastTID()
	taken := make(map[zeolite.OID]struct{})
	ready := make([]*Txn, 0, len(group))
	blobs := &groupBlobs{syncs: syncs{dir: s.blobs, fail: s.fail}}
	for _, t := range group {
		tid := t.meta.TID
		if tid == 0 {
			tid = last.Next(time.Now())
		}
		err := s.prepare(g, t, tid, last, pos, len(group) > 1, taken, blobs)
		if err != nil {
			t.err = err
			continue
		}
		ready = append(ready, t)
		pos, last = pos+t.reserved, tid
	}
	if len(ready) == 0 {
		return nil
	}
	logged := s.useLog(ready)
	blobs.start(logged)
	end, err := s.writeGroup(g, ready, start, last, logged, blobs)
	s.committer.took.Store(int64(time.Since(began)))
	if err != nil {
		if !errors.Is(err, zeolite.ErrInDoubt) {
			for _, t := range ready {
				t.takeBackBlobs()
			}
		}
		return err
	}
	s.data.follows(blobs.loose)
	s.publishGroup(g, ready, end)
	s.data.note()
	return nil
}

// prepare lays one transaction out and gives its blobs their names.
func (s *Storage) prepare(g *generation, t *Txn, tid, last zeolite.TID, pos int64, shared bool, taken map[zeolite.OID]struct{}, blobs *groupBlobs) error {
	if err := zeolite.CheckTID(tid, last); err != nil {
		return err
	}
	if shared {
		for i := range t.recs {
			if _, again := taken[t.recs[i].oid]; again && !t.recs[i].dead {
				return &zeolite.ConflictError{OID: t.recs[i].oid, Seen: t.recs[i].seen}
			}
		}
		for i := range t.recs {
			taken[t.recs[i].oid] = struct{}{}
		}
	}
	if err := t.layout(g, tid, pos); err != nil {
		return err
	}
	others := len(blobs.loose)
	if err := t.giveBlobs(blobs); err != nil {
		blobs.loose = blobs.loose[:others]
		t.takeBackBlobs()
		return err
	}
	return nil
}

// publishGroup makes transactions visible, in order.
func (s *Storage) publishGroup(g *generation, group []*Txn, end int64) {
	var used int64
	for _, t := range group {
		used += t.reserved
	}
	s.space.committed(end, used)
	g.bound.Store(end)
	for _, t := range group {
		oids := make([]zeolite.OID, 0, len(t.recs)-t.dead)
		pos := t.pos + t.headLen()
		for i := range t.recs {
			r := &t.recs[i]
			if r.dead {
				continue
			}
			oids = append(oids, r.oid)
			if r.blob != nil {
				r.blob.end()
				r.blob, r.ownBlob = nil, false
			}
		}
		shown := false
		visible := func() {
			if shown {
				return
			}
			shown = true
			for i := range t.recs {
				if r := &t.recs[i]; !r.dead {
					g.index.set(r.oid, pos)
					pos += r.len()
				}
			}
			g.end.Store(t.pos + t.reserved)
			g.last.Store(uint64(t.tid))
		}
		if t.publish != nil {
			t.publish(t.tid, oids, visible)
		}
		visible()
		t.reserved = 0
	}
}

// headLen is the length of the transaction's header with its texts.
func (t *Txn) headLen() int64 {
	if len(t.recs) > 0 {
		return t.recs[0].off
	}
	return t.reserved - lengthLen
}
