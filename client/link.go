package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// link is one connection to a server, from register on. It implements
// stubs.ClientStorage, whose methods the connection's reading goroutine calls;
// the rest is safe for concurrent use.
type link struct {
	s        *Storage
	addr     string
	conn     *zrpc.Conn
	stub     *stubs.StorageServerStub
	readOnly bool
	tid      zeolite.TID // what register answered

	// Guarded by s.cache.mu: until the cache is verified, invalidations wait.
	ready bool
	early []stubs.Invalidations

	mu         sync.Mutex
	downloads  map[blobKey]*download
	extensions []string // methods beyond ZEO that the server has

	beating sync.WaitGroup
}

// dial connects to one address and registers.
func (s *Storage) dial(ctx context.Context, addr string) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opt.AttemptTimeout)
	defer cancel()
	network, address, err := splitAddress(addr)
	if err != nil {
		return nil, err
	}
	nc, err := s.opt.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	// The handshake ends with the context, too. (It sets deadlines itself.)
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	enc, tnc, err := s.shakeHands(ctx, nc, address)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	l := &link{s: s, addr: addr, downloads: map[blobKey]*download{}}
	l.conn = zrpc.NewConn(tnc, enc, zrpc.Options{
		MaxFrame:    s.opt.MaxMessage,
		OutboxLimit: s.opt.MaxMessage,
	})
	l.stub = stubs.NewStorageServerStub(l.conn)
	l.conn.Start(l)
	if err := l.register(ctx); err != nil {
		l.close()
		return nil, err
	}
	if s.opt.Heartbeat > 0 {
		l.beating.Go(l.heartbeat)
	}
	return l, nil
}

func (s *Storage) shakeHands(ctx context.Context, nc net.Conn, address string) (zrpc.Encoding, net.Conn, error) {
	if cfg := s.opt.TLS; cfg != nil {
		if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return 0, nc, errors.New("TLS over a Unix socket needs a ServerName")
			}
			cfg = cfg.Clone()
			cfg.ServerName = host
		}
		tc := tls.Client(zrpc.BelowTLS(nc), cfg)
		if err := tc.HandshakeContext(ctx); err != nil {
			return 0, nc, err
		}
		nc = tc
	}
	enc, err := zrpc.ClientHandshake(nc, s.opt.AttemptTimeout)
	return enc, nc, err
}

func (l *link) register(ctx context.Context) error {
	opt := &l.s.opt
	l.readOnly = opt.ReadOnly
	tid, err := l.stub.Register(ctx, opt.Storage, opt.ReadOnly)
	if errors.Is(err, zeolite.ErrReadOnly) && opt.ReadOnlyFallback {
		l.readOnly = true
		tid, err = l.stub.Register(ctx, opt.Storage, true)
	}
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	if !tid.Set {
		if tid.TID, err = l.stub.LastTransaction(ctx); err != nil {
			return fmt.Errorf("lastTransaction: %w", err)
		}
	}
	l.tid = tid.TID
	return nil
}

// close ends the connection and waits until nothing of it goes on.
func (l *link) close() {
	l.conn.Close()
	l.beating.Wait()
	l.mu.Lock()
	l.downloads = nil
	l.mu.Unlock()
}

// lost tells whether the connection has ended.
func (l *link) lost() bool { return l.conn.Err() != nil }

var errSilent = errors.New("the server does not answer (heartbeat)")

// heartbeat ends the connection when nothing is heard of the server any more.
func (l *link) heartbeat() {
	interval := l.s.opt.Heartbeat
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	heard := l.conn.Heard()
	for {
		select {
		case <-l.conn.Done():
			return
		case <-ticker.C:
		}
		if now := l.conn.Heard(); now != heard {
			heard = now
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), interval)
		err := l.stub.Ping(ctx)
		cancel()
		// Python's server answers behind a whole blob: any sign of life will do.
		now := l.conn.Heard()
		if errors.Is(err, context.DeadlineExceeded) && now == heard {
			l.conn.End(errSilent)
			return
		}
		heard = now
	}
}

// HandleCall follows zrpc.Handler.
func (l *link) HandleCall(call *zrpc.Call) {
	if !call.Async || !stubs.DispatchClientStorage(l.s.ctx, l, call) {
		// As Python's client does, and a newer server may count on it.
		l.s.log.Warn("the server called an unknown method", "name", fmt.Sprintf("%.60q", call.Name))
		call.Release()
	}
}

// Info follows stubs.ClientStorage.
func (l *link) Info(_ context.Context, info zrpc.Value) error {
	l.s.mergeInfo(info)
	return nil
}

// InvalidateTransaction follows stubs.ClientStorage.
func (l *link) InvalidateTransaction(_ context.Context, tid zeolite.TID, oids []zeolite.OID) error {
	c := l.s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if !l.ready {
		l.early = append(l.early, stubs.Invalidations{TID: tid, OIDs: oids})
		return nil
	}
	l.s.othersCommittedLocked(tid, oids)
	return nil
}

// othersCommittedLocked applies a transaction of somebody else.
func (s *Storage) othersCommittedLocked(tid zeolite.TID, oids []zeolite.OID) {
	s.cache.applyLocked(tid, oids)
	s.oids.taken(oids)
	s.pub.add(publication{tid: tid, oids: oids})
}
