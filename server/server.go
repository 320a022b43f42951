package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// Options are the settings of a Server. The zero value means defaults.
type Options struct {
	// Encoding is announced to clients, which may answer with the other one;
	// Pickle by default, as in ZEO.
	Encoding zrpc.Encoding
	// ReadOnly refuses every write, whatever the storages allow.
	ReadOnly bool
	// TransactionTimeout bounds how long a client may hold its commit locks, from
	// the reply to its vote until it finishes; it is disconnected then. 0 means
	// no bound.
	TransactionTimeout time.Duration
	// InvalidationAge bounds how old the last transaction that a client has seen
	// may be for getInvalidations to tell what changed since; 0 means any age.
	InvalidationAge time.Duration
	// InvalidationQueueSize is how many transactions may have followed one that
	// is older, and it is told all the same.
	InvalidationQueueSize int
	// Limits bound what clients can ask for.
	Limits Limits
	// TLS, if set, is the configuration of every connection.
	TLS *tls.Config
	// Logger gets the server's log; slog.Default by default.
	Logger *slog.Logger
}

// Limits bound what a client can ask for. A field that is 0 has its default.
type Limits struct {
	// MaxRecord is the largest message that brings a record or a piece of a
	// blob, in bytes (256 MiB).
	MaxRecord int
	// MaxMessage is the largest message of any other kind, in bytes (1 MiB).
	MaxMessage int
	// Outbox is how many bytes of invalidations may wait for a client that does
	// not read, before it is disconnected (64 MiB).
	Outbox int
	// Unread is how many bytes of replies may wait for a client before no more
	// of its calls are looked at (1 MiB), whatever locks it has: see
	// Options.TransactionTimeout. Those of calls that run already, Workers of
	// them and one of its transaction, are added to them.
	Unread int
	// TransactionMemory is how many bytes of records of a transaction are kept
	// in memory before they go to a temporary file (1 MiB); what else there is
	// to know of its operations has a quarter of that besides.
	TransactionMemory int
	// Operations is how many stores and others a transaction may have (10
	// million): at its vote each takes some 250 bytes of memory.
	Operations int
	// Invalidations is how many objects getInvalidations may name before it
	// gives up and lets the client drop its cache (100,000).
	Invalidations int
	// Workers is how many calls that only read are run at once for a
	// connection (8).
	Workers int
	// Handshake bounds the time from connecting until register, and the time
	// that a storage then takes to say what is new (1 minute).
	Handshake time.Duration
	// Stuck is how long Shutdown waits, when everybody is disconnected, for
	// calls of a storage that do not return (10 seconds).
	Stuck time.Duration
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.MaxRecord, 256 << 20}, {&l.MaxMessage, 1 << 20}, {&l.Outbox, 64 << 20}, {&l.Unread, 1 << 20},
		{&l.TransactionMemory, 1 << 20}, {&l.Operations, 10_000_000}, {&l.Invalidations, 100_000}, {&l.Workers, 8},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if l.Handshake == 0 {
		l.Handshake = time.Minute
	}
	if l.Stuck == 0 {
		l.Stuck = 10 * time.Second
	}
	return l
}

// Server shares storages with ZEO clients. It is safe for concurrent use,
// except that AddStorage comes before Serve.
type Server struct {
	opt     Options
	log     *slog.Logger
	exports map[string]*export
	order   []string // names, as they were added
	workers workers

	counters serverCounters

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	greeting  map[net.Conn]struct{} // connections that have not shaken hands
	sessions  map[*session]struct{}
	closing   bool
	stopped   sync.Once
	running   sync.WaitGroup // connections

	retryFirst time.Duration // but in tests, the constant
}

// New makes a server without storages.
func New(opt Options) *Server {
	if opt.Encoding == 0 {
		opt.Encoding = zrpc.Pickle
	}
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	opt.Limits = opt.Limits.withDefaults()
	s := &Server{
		opt:       opt,
		log:       opt.Logger,
		exports:   map[string]*export{},
		listeners: map[net.Listener]struct{}{},
		greeting:  map[net.Conn]struct{}{},
		sessions:  map[*session]struct{}{},

		retryFirst: retryFirst,
	}
	s.workers.init()
	s.counters.init()
	return s
}

// AddStorage offers a storage to clients under a name; "1" is the name that
// clients ask for by default. The storage remains the caller's, who closes it
// after Shutdown.
func (s *Server) AddStorage(name string, storage zeolite.Storage) error {
	if _, ok := s.exports[name]; ok {
		return fmt.Errorf("server: two storages are named %q", name)
	}
	s.exports[name] = newExport(s, name, storage)
	s.order = append(s.order, name)
	return nil
}

// ErrServerClosed is what Serve returns after Shutdown.
var ErrServerClosed = errors.New("server: closed")

// Serve accepts connections from a listener until Shutdown closes it.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		l.Close()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		if err != nil {
			s.mu.Lock()
			closing := s.closing
			s.mu.Unlock()
			if closing || errors.Is(err, net.ErrClosed) {
				return ErrServerClosed
			}
			// Out of file descriptors, as a rule: others will be closed.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Error("cannot accept a connection", "error", err, "retry", pause)
			time.Sleep(pause)
			continue
		}
		pause = 0
		s.mu.Lock()
		if s.closing {
			s.mu.Unlock()
			nc.Close()
			return ErrServerClosed
		}
		s.running.Add(1)
		s.counters.accepted.Add(1)
		s.greeting[nc] = struct{}{}
		s.mu.Unlock()
		go s.serveConn(nc)
	}
}

// serveConn shakes hands on a connection and makes a session of it. If it comes
// to that, the session counts the connection as gone when it ends.
func (s *Server) serveConn(nc net.Conn) {
	served := false
	defer func() {
		if !served {
			s.running.Done()
		}
	}()
	log := s.log.With("client", clientName(nc))
	accepted := nc
	defer s.greeted(accepted)
	// Until register a connection is nobody's: it must not stay for long.
	deadline := time.Now().Add(s.opt.Limits.Handshake)
	if s.opt.TLS != nil {
		tc := tls.Server(zrpc.BelowTLS(nc), s.opt.TLS)
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		err := tc.HandshakeContext(ctx)
		cancel()
		if err != nil {
			s.counters.refused.Add(1)
			switch {
			case errors.Is(err, net.ErrClosed): // by Shutdown
				log.Info("client disconnected")
			case hungUp(err):
				log.Info("client disconnected", "before", "TLS handshake")
			default:
				log.Warn("TLS handshake failed", "error", err)
			}
			nc.Close()
			return
		}
		nc = tc
	}
	enc, err := zrpc.AcceptHandshake(nc, s.opt.Encoding, time.Until(deadline), s.statusJSON)
	if err != nil {
		s.counters.refused.Add(1)
		switch {
		case errors.Is(err, zrpc.ErrRuok):
		case errors.Is(err, net.ErrClosed): // by Shutdown
			log.Info("client disconnected")
		case hungUp(err):
			log.Info("client disconnected", "before", "handshake")
		default:
			log.Warn("handshake failed", "error", err)
		}
		nc.Close()
		return
	}
	se := newSession(s, nc, enc, log)
	s.mu.Lock()
	delete(s.greeting, accepted)
	if s.closing {
		s.mu.Unlock()
		nc.Close()
		return
	}
	s.sessions[se] = struct{}{}
	served = true
	se.start(deadline) // before Shutdown can see it
	s.mu.Unlock()
}

// hungUp says whether a client went away before it said anything, as monitors
// do that only look whether the port is open. If it did not read the greeting,
// that is a reset.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// left forgets a session that has ended.
func (s *Server) left(se *session) {
	s.mu.Lock()
	delete(s.sessions, se)
	s.counters.sent.Add(se.conn.Sent())
	s.mu.Unlock()
	s.running.Done()
}

// greeted forgets a connection that is about to shake hands, if it still is.
func (s *Server) greeted(nc net.Conn) {
	s.mu.Lock()
	delete(s.greeting, nc)
	s.mu.Unlock()
}

// ErrStuck is what Shutdown returns if calls of a storage do not return. The
// storage is still in use then; closing it may not return either.
var ErrStuck = errors.New("server: calls of a storage do not return")

// Shutdown stops accepting, lets running commits end, sends what is queued for
// clients until the context ends, and disconnects them. Open transactions are
// aborted. After the context ended it waits for calls of storages that are still
// running for as long as Limits.Stuck.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
	for nc := range s.greeting {
		nc.Close()
	}
	sessions := make([]*session, 0, len(s.sessions))
	for se := range s.sessions {
		sessions = append(sessions, se)
	}
	s.mu.Unlock()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(5 * time.Second)
	}
	for _, se := range sessions {
		go func() {
			se.ordered.idle(deadline)
			se.conn.Drain(deadline)
		}()
	}
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		for _, e := range s.exports {
			e.background.Wait()
		}
		s.stopped.Do(s.workers.close)
		close(done)
	}()
	for _, e := range s.exports {
		e.cancel()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for se := range s.sessions {
		se.conn.End(ErrServerClosed)
	}
	s.mu.Unlock()
	stuck := time.NewTimer(s.opt.Limits.Stuck)
	defer stuck.Stop()
	select {
	case <-done:
		return ctx.Err()
	case <-stuck.C:
	}
	for name, m := range s.counters.methods {
		if n := m.running.Load(); n > 0 {
			s.log.Error("a call does not return", "method", name, "calls", n)
		}
	}
	return ErrStuck
}

// Names returns the names of the storages, in the order they were added.
func (s *Server) Names() []string { return slices.Clone(s.order) }

// clientName is how a connection appears in the log.
func clientName(nc net.Conn) string {
	if addr := nc.RemoteAddr().String(); addr != "" && addr != "@" {
		return addr
	}
	return "local"
}
