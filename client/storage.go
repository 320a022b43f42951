package client

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/zeolite-go/zeolite"
)

// Storage is a zeolite.Storage that lives on a ZEO server. It is safe for
// concurrent use.
type Storage struct {
	opt Options
	log *slog.Logger

	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	background sync.WaitGroup
	closing    sync.Once
	closeErr   error

	mu      sync.Mutex
	closed  bool          // nothing is added to background any more
	link    *link         // nil while there is no connection
	changed chan struct{} // closed when link changes
	lastErr error         // of the last attempt to connect

	cache     *cache
	pub       publisher
	lostTrack func() // set by Watch, guarded by cache.mu

	flights flights
	oids    oidPool
	// turn is held by the transaction that has the connection: from Vote to
	// the end. Transactions get it in the order in which they ask.
	turn   *semaphore.Weighted
	lastID atomic.Uint64 // of transactions
	info   infoDict
	blobs  *blobCache // nil without BlobDir
	// settleTime is how long Finish waits for the blobs of a transaction to get
	// their places in the cache, once it is visible.
	settleTime time.Duration
}

var (
	_ zeolite.Storage     = (*Storage)(nil)
	_ zeolite.Undoer      = (*Storage)(nil)
	_ zeolite.Packer      = (*Storage)(nil)
	_ zeolite.BlobStorage = (*Storage)(nil)
	_ zeolite.Follower    = (*Storage)(nil)
)

// Open connects to a server. It waits for the connection, up to
// Options.WaitTimeout or the end of the context, unless Options.NoWait is set.
// The connection is kept up until Close, whatever happens to the context.
func Open(ctx context.Context, opt Options) (*Storage, error) {
	opt, err := opt.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Storage{
		opt:     opt,
		log:     opt.Logger.With("storage", opt.Storage),
		changed: make(chan struct{}),
		cache:   newCache(max(opt.CacheSize, 0)),
		turn:    semaphore.NewWeighted(1),

		settleTime: 100 * time.Millisecond,
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.info.name = strings.Join(opt.Addresses, ",")
	if opt.CachePath != "" && opt.CacheSize > 0 {
		if err := s.cache.openJournal(opt.CachePath, opt.Storage, s.log); err != nil {
			s.cancel()
			return nil, err
		}
		// What is cached can be read as of then; verify will move on.
		s.pub.visible(s.cache.tid)
	}
	if opt.BlobDir != "" {
		if s.blobs, err = openBlobCache(s); err != nil {
			s.cancel()
			return nil, errors.Join(err, s.cache.closeJournal())
		}
	}
	s.background.Go(s.keepConnected)
	if !opt.NoWait {
		if _, err := s.connection(ctx); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// Watch implements zeolite.Watcher: publish is also called for transactions of
// other clients. What others commit between Open and Watch is visible without
// it: whoever watches takes LastTID afterwards as the point to start from.
func (s *Storage) Watch(publish zeolite.Publish, lost func()) {
	s.cache.mu.Lock() // nothing is added to s.pub meanwhile
	defer s.cache.mu.Unlock()
	s.pub.watch, s.lostTrack = publish, lost
}

// Close ends the connection and everything that goes on. Calls under way fail
// with ErrClosed, and transactions that are not finished are aborted.
func (s *Storage) Close() error {
	s.closing.Do(func() {
		s.cancel()
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.background.Wait()
		s.pub.working.Wait()
		s.closeErr = s.cache.closeJournal()
	})
	return s.closeErr
}

// spawn runs f, which ends soon after the storage is closed, in a goroutine that
// Close waits for. After Close it just runs f.
func (s *Storage) spawn(f func()) {
	s.mu.Lock()
	if !s.closed {
		s.background.Go(f)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	f()
}

// LastTID returns the TID of the last transaction that this client was told
// of, and that is visible (lastTransaction). It asks nobody.
func (s *Storage) LastTID() zeolite.TID { return s.pub.last() }

// Sync waits until everything that the server had committed when Sync was
// called is visible (ping).
func (s *Storage) Sync(ctx context.Context) error {
	if err := s.read(ctx, func(l *link) error { return l.stub.Ping(ctx) }); err != nil {
		return err
	}
	return s.shown(ctx)
}

// CatchUp implements zeolite.Follower. If the server is away, or takes longer
// than clients are patient, the storage is left as it is: it can be read from the
// cache, and who knows of later transactions does not take it.
func (s *Storage) CatchUp(ctx context.Context) error {
	s.mu.Lock()
	l, closed := s.link, s.closed
	s.mu.Unlock()
	if closed {
		return zeolite.ErrClosed
	}
	if l == nil {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, s.opt.AttemptTimeout/4)
	defer cancel()
	err := l.stub.Ping(limited)
	if err == nil {
		err = s.shown(limited)
	}
	if err != nil {
		if s.ctx.Err() != nil {
			return zeolite.ErrClosed
		}
		s.log.Warn("the server may have committed more than is known here", "error", err)
	}
	return ctx.Err()
}

// shown waits until everything that the server has told of up to now is visible.
func (s *Storage) shown(ctx context.Context) error {
	s.cache.mu.Lock()
	done := make(chan struct{})
	s.pub.add(publication{tid: s.cache.tid, own: true, done: done})
	s.cache.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return s.ctxErr(ctx)
	}
}
