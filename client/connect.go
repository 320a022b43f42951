package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/zeolite-go/zeolite"
)

// keepConnected connects, verifies the cache, and does so again whenever the
// connection is lost, until the storage is closed.
func (s *Storage) keepConnected() {
	defer s.setLink(nil)
	pause := time.Duration(0)
	var next *link // a better connection than the one just left
	for s.ctx.Err() == nil {
		l := next
		next = nil
		var err error
		if l == nil {
			l, err = s.connect(s.ctx, false)
		}
		if err == nil {
			if err = s.verify(l); err != nil {
				l.close()
			}
		}
		if err != nil {
			pause = min(max(2*pause, s.opt.ReconnectMin), s.opt.ReconnectMax)
			s.failed(err, pause)
			s.sleep(pause)
			continue
		}
		s.log.Info("connected", "server", l.addr, "read_only", l.readOnly, "encoding", l.conn.Encoding().String())
		since := time.Now()
		s.setLink(l)
		next = s.attend(l)
		s.setLink(nil)
		if next != nil {
			l.conn.End(errReplaced)
		}
		l.close()
		if s.ctx.Err() == nil {
			s.log.Warn("connection ended", "server", l.addr, "reason", l.conn.Err())
		}
		// A server that drops its clients at once must not be hammered.
		if time.Since(since) > s.opt.ReconnectMax {
			pause = 0
		} else if next == nil {
			s.sleep(pause)
			pause = min(max(2*pause, s.opt.ReconnectMin), s.opt.ReconnectMax)
		}
	}
	if next != nil {
		next.close()
	}
}

var errReplaced = errors.New("replaced by a connection to a writable server")

// attend waits until the connection ends, or until a writable server was found
// in place of a read-only one; then it returns the new connection.
func (s *Storage) attend(l *link) *link {
	var better chan *link
	ctx, cancel := context.WithCancel(s.ctx)
	if l.readOnly && s.opt.ReadOnlyFallback {
		better = make(chan *link, 1)
		s.background.Go(func() {
			defer close(better)
			for pause := s.opt.ReconnectMin; ctx.Err() == nil; pause = min(2*pause, s.opt.ReconnectMax) {
				if n, err := s.connect(ctx, true); err == nil {
					better <- n
					return
				}
				sleep(ctx, pause)
			}
		})
	}
	var found *link
	select {
	case <-l.conn.Done():
	case <-s.ctx.Done():
	case found = <-better:
	}
	cancel()
	if found == nil && better != nil {
		found = <-better // one that was found just now, or none
	}
	return found
}

// connect tries all addresses at once and returns the first connection that is
// as wanted. With ReadOnlyFallback, and unless only writable ones will do, a
// read-only one is returned if all other attempts failed.
func (s *Storage) connect(ctx context.Context, writable bool) (*link, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		l    *link
		err  error
		addr string
	}
	results := make(chan result, len(s.opt.Addresses))
	for _, addr := range s.opt.Addresses {
		s.background.Go(func() {
			l, err := s.dial(ctx, addr)
			results <- result{l, err, addr}
		})
	}
	var (
		best *link
		errs []error
	)
	for range s.opt.Addresses {
		r := <-results
		switch {
		case r.err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", r.addr, r.err))
		case best == nil && writable && r.l.readOnly:
			errs = append(errs, fmt.Errorf("%s: %w", r.addr, zeolite.ErrReadOnly))
			r.l.close()
		case best == nil:
			best = r.l
		case best.readOnly && !r.l.readOnly:
			best.close()
			best = r.l
		default:
			r.l.close()
		}
		if best != nil && (!best.readOnly || s.opt.ReadOnly) {
			cancel() // the others need not go on, but what they got must be closed
		}
	}
	if best == nil {
		return nil, errors.Join(errs...)
	}
	return best, nil
}

// failed takes down why there is no connection, for whoever waits for one.
func (s *Storage) failed(err error, pause time.Duration) {
	if s.ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	s.lastErr = err
	s.mu.Unlock()
	var behind *errBehind
	if errors.As(err, &behind) {
		s.log.Error("cannot use the server", "error", err, "retry", pause)
		return
	}
	s.log.Warn("cannot connect", "error", err, "retry", pause)
}

// sleep pauses for half to all of d.
func (s *Storage) sleep(d time.Duration) { sleep(s.ctx, d) }

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// setLink says which connection calls are to use, nil for none.
func (s *Storage) setLink(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link = l
	if l != nil {
		s.lastErr = nil
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// connection returns the connection to use, and waits for one up to
// WaitTimeout.
func (s *Storage) connection(ctx context.Context) (*link, error) {
	var timeout <-chan time.Time
	for {
		s.mu.Lock()
		l, changed := s.link, s.changed
		s.mu.Unlock()
		if s.ctx.Err() != nil {
			return nil, zeolite.ErrClosed
		}
		if l != nil && !l.lost() {
			return l, nil
		}
		if timeout == nil {
			timer := time.NewTimer(s.opt.WaitTimeout)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, s.ctxErr(ctx)
		case <-s.ctx.Done():
			return nil, zeolite.ErrClosed
		case <-timeout:
			err := fmt.Errorf("no connection within %v", s.opt.WaitTimeout)
			s.mu.Lock()
			last := s.lastErr
			s.mu.Unlock()
			if last != nil {
				err = fmt.Errorf("%w; the last attempt: %w", err, last)
			}
			return nil, &DisconnectedError{SafeToRepeat: true, Err: err}
		}
	}
}

// started waits for the first connection, before which nothing is known of the
// database: not even that it is empty. Whoever is just being told of its first
// transaction does not wait for it to be visible.
func (s *Storage) started(ctx context.Context) error {
	if s.LastTID() != 0 {
		return nil
	}
	s.cache.mu.Lock()
	known := s.cache.tid
	s.cache.mu.Unlock()
	if known != 0 {
		return nil
	}
	if _, err := s.connection(ctx); err != nil {
		return err
	}
	return s.shown(ctx)
}

// read makes a call that changes nothing. If the connection is lost meanwhile
// it is made once more, on the next one.
func (s *Storage) read(ctx context.Context, call func(l *link) error) error {
	for again := false; ; again = true {
		l, err := s.connection(ctx)
		if err != nil {
			return err
		}
		err = s.asError(call(l), true)
		if err == nil || again || !SafeToRepeat(err) {
			return err
		}
	}
}
