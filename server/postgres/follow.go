package postgres

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite"
)

// channel is where commits are announced. The payload is the TID in decimal.
const channel = "zeolite"

const (
	// answerTime is how long the database may take to say what is new, and to
	// let a connection in, before it is taken for dead.
	answerTime = 30 * time.Second
	// houseTime is how often to look for orphans and to renew the estimates
	// of Info. It is much longer than other servers take to show again that
	// they live, after the database has forgotten that.
	houseTime = time.Minute
	// The pause before connecting again grows between these.
	minPause, maxPause = 50 * time.Millisecond, 5 * time.Second
)

// follow publishes what others commit, until the storage is closed.
func (s *Storage) follow() {
	pause := minPause
	for {
		began := time.Now()
		err := s.listen()
		if s.ctx.Err() != nil {
			return
		}
		if time.Since(began) > maxPause {
			pause = minPause
		}
		s.log.Warn("lost the connection that listens for commits of others", "storage", s.name, "error", err, "retry", pause)
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// listen publishes what others commit, until its connection breaks. It listens
// first and looks then, so nothing can pass between.
func (s *Storage) listen() error {
	conn, err := s.connect(s.ctx, appFollow)
	if err != nil {
		return err
	}
	defer disconnect(conn)
	if err := s.enlist(conn); err != nil {
		return err
	}
	s.counters.listened.Add(1)
	listening, cancel := context.WithCancel(s.ctx)
	defer cancel()
	house := time.Now()
	for {
		if err := s.look(conn); err != nil {
			return err
		}
		if time.Since(house) > s.opts.houseTime {
			house = time.Now()
			s.keepHouse(listening)
		}
		if err := s.waitForNews(conn); err != nil {
			return err
		}
	}
}

// enlist makes the session one that is told of commits, and that shows other
// servers that this one lives.
func (s *Storage) enlist(conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.opts.answerTime)
	defer cancel()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock_shared($1)", s.owner); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, "LISTEN "+channel)
	if state := sqlState(err); state == codeReadOnly || state == codeNotSupported {
		s.log.Info("this server of the database cannot announce commits; looking for them now and then",
			"storage", s.name, "interval", s.opts.PollInterval)
		return nil
	}
	return err
}

func (s *Storage) look(conn *pgx.Conn) error {
	s.publisher.mu.Lock()
	defer s.publisher.mu.Unlock()
	return s.catchUp(s.ctx, changesOn(conn), zeolite.MaxTID)
}

// waitForNews waits until somebody else has committed, or it is time to look
// anyway.
func (s *Storage) waitForNews(conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.opts.PollInterval)
	defer cancel()
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) && s.ctx.Err() == nil {
				return nil
			}
			return err
		}
		tid, err := strconv.ParseUint(n.Payload, 10, 64)
		if err != nil || (zeolite.TID(tid) > s.publisher.horizon() && s.publisher.ours(zeolite.TID(tid)) == nil) {
			return nil
		}
	}
}

// keepHouse starts what is to be done now and then. Whoever listens does not wait
// for it, and ends it with the connection that it listens with: what has broken
// that may have ended all signs of life of other servers, too.
func (s *Storage) keepHouse(listening context.Context) {
	s.estimating.start(s, func() {
		ctx, cancel := context.WithTimeout(listening, s.opts.answerTime)
		defer cancel()
		_ = s.estimate(ctx) // the next time is near
	})
	if s.opts.ReadOnly {
		return
	}
	s.cleaning.start(s, func() {
		n, err := s.clean(listening)
		if err != nil && listening.Err() == nil {
			s.log.Warn("cannot remove the blobs of uploads that never ended", "storage", s.name, "error", err)
		}
		if n > 0 {
			s.log.Info("removed the blobs of uploads that never ended", "storage", s.name, "blobs", n)
		}
	})
}

// clean removes orphans, on a connection of its own: large ones take their time.
func (s *Storage) clean(ctx context.Context) (removed int64, err error) {
	conn, err := s.connect(ctx, appClean)
	if err != nil {
		return 0, err
	}
	defer disconnect(conn)
	return s.removeOrphans(ctx, conn)
}

// A chore is done by a goroutine of its own, by one at a time. It is started by
// the one who listens.
type chore struct{ busy atomic.Bool }

func (c *chore) start(s *Storage, do func()) {
	if c.busy.CompareAndSwap(false, true) {
		s.working.Go(func() {
			defer c.busy.Store(false)
			do()
		})
	}
}
