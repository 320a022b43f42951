package postgres

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/zeolite-go/zeolite"
)

// Storage is a zeolite.Storage in PostgreSQL. It may be used by any number of
// goroutines.
type Storage struct {
	opts Options
	name string
	log  *slog.Logger

	loads, commits, streams *pgxpool.Pool

	// What is under way ends with ctx, and Close waits for it.
	ctx     context.Context
	cancel  context.CancelCauseFunc
	mu      sync.Mutex // guards closed and open, and adding to working
	closed  bool
	open    map[*txn]time.Time // when a transaction voted; it holds a connection
	working sync.WaitGroup

	publisher publisher
	serials   serials
	oids      allocator
	spools    spools
	batches   batches
	counters  counters
	owner     int64 // names this server among those that upload
	info      atomic.Pointer[zeolite.Info]

	estimating, cleaning chore
}

var (
	_ zeolite.Storage     = (*Storage)(nil)
	_ zeolite.Undoer      = (*Storage)(nil)
	_ zeolite.Packer      = (*Storage)(nil)
	_ zeolite.BlobStorage = (*Storage)(nil)
	_ zeolite.Follower    = (*Storage)(nil)
)

// Open opens the database that opts.DSN names. If it has no tables yet they are
// created, unless opts say otherwise; if it has other tables by the names that are
// needed, Open says what is wrong and changes nothing.
func Open(ctx context.Context, opts Options) (*Storage, error) {
	s := &Storage{opts: opts.withDefaults(), open: map[*txn]time.Time{}, batches: usualBatches}
	s.log = s.opts.Logger
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	config, err := pgx.ParseConfig(s.opts.DSN)
	if err != nil {
		return nil, &zeolite.StorageError{Message: "postgres: bad DSN", Err: err} // pgx hides the password
	}
	s.name = cmp.Or(s.opts.Name, config.Host+"/"+config.Database)
	if err := s.prepareSchema(ctx); err != nil {
		s.cancel(zeolite.ErrClosed)
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// start makes the pools and reads what the storage has to know.
func (s *Storage) start(ctx context.Context) (err error) {
	for _, p := range []struct {
		pool  **pgxpool.Pool
		app   string
		conns int
	}{
		{&s.loads, appLoads, s.opts.LoadConns},
		{&s.commits, appCommits, s.opts.CommitConns},
		{&s.streams, appStreams, s.opts.StreamConns},
	} {
		if *p.pool, err = s.pool(p.app, p.conns); err != nil {
			return &zeolite.StorageError{Message: "postgres: bad DSN", Err: err}
		}
	}
	s.spools.dir, s.spools.limit = s.opts.SpoolDir, s.opts.SpoolLimit
	last, err := s.lastCommitted(ctx)
	if err != nil {
		return err
	}
	s.serials.limit = s.opts.CacheSize
	s.publisher.init(last, s.serials.published)
	if err := s.estimate(ctx); err != nil {
		return err
	}
	s.owner = newOwner()
	s.working.Go(s.follow)
	return nil
}

// Close implements zeolite.Storage.
func (s *Storage) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	open := s.open
	s.open = nil
	s.mu.Unlock()
	s.cancel(zeolite.ErrClosed)
	for t := range open {
		t.Abort()
	}
	s.working.Wait()
	for _, pool := range []*pgxpool.Pool{s.loads, s.commits, s.streams} {
		if pool != nil {
			pool.Close()
		}
	}
	return nil
}

// enter begins a call. Its context ends when the storage is closed, too. Unless
// enter fails, the caller ends the call with leave.
func (s *Storage) enter(ctx context.Context) (inner context.Context, leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, nil, zeolite.ErrClosed
	}
	s.working.Add(1)
	s.mu.Unlock()
	inner, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(zeolite.ErrClosed) })
	return inner, func() {
		stop()
		cancel(nil)
		s.working.Done()
	}, nil
}

// read runs something short, which may be done more than once, on a connection of
// the pool for loads. A connection that turns out to be broken says nothing about
// the next one: then it runs again, as long as the database takes connections.
func (s *Storage) read(ctx context.Context, doing string, query func(ctx context.Context, conn *pgx.Conn) error) error {
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	err = onConn(ctx, s.loads, s.opts.LoadConns, query)
	if isAnswer(err) {
		return err
	}
	return s.fault(ctx, doing, err)
}

// onStreams runs something short, which may be done more than once, on a connection
// of the blobs' pool.
func (s *Storage) onStreams(doing string, do func(ctx context.Context, conn *pgx.Conn) error) error {
	ctx, leave, err := s.enter(context.Background())
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, uploadTime)
	defer cancel()
	return s.fault(ctx, doing, onConn(ctx, s.streams, s.opts.StreamConns, do))
}

// onConn runs something short on a connection of a pool, and again on another if
// that breaks: all conns that the pool has may be broken.
func onConn(ctx context.Context, pool *pgxpool.Pool, conns int, do func(ctx context.Context, conn *pgx.Conn) error) (err error) {
	for range conns + 1 {
		conn, failed := pool.Acquire(ctx)
		if failed != nil {
			return failed
		}
		err = do(ctx, conn.Conn())
		broken := conn.Conn().IsClosed()
		conn.Release()
		if err == nil || !broken || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// isAnswer tells whether an error says something about the data, and not that
// the database could not be asked.
func isAnswer(err error) bool {
	return err == nil || errors.Is(err, zeolite.ErrNotYet) ||
		errors.As(err, new(*zeolite.NotFoundError)) || errors.As(err, new(*zeolite.UndoError)) ||
		errors.As(err, new(*zeolite.MultipleUndoErrors))
}

// lastCommitted asks for the last TID of the database, which may be later than
// what is published here.
func (s *Storage) lastCommitted(ctx context.Context) (last zeolite.TID, err error) {
	err = s.read(ctx, "cannot read the last transaction", func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, lastTIDQuery).Scan(&last)
	})
	return last, err
}

// Walks the index from its end, instead of aggregating.
const lastTIDQuery = `SELECT coalesce((SELECT tid FROM transaction ORDER BY tid DESC LIMIT 1), 0)`

// Info implements zeolite.Storage. Objects and Size are what the database's
// statistics say.
func (s *Storage) Info() zeolite.Info {
	if info := s.info.Load(); info != nil {
		return *info
	}
	return zeolite.Info{Name: s.name}
}

// estimate reads the numbers for Info.
func (s *Storage) estimate(ctx context.Context) error {
	info := zeolite.Info{
		Name:            s.name,
		ReadOnly:        s.opts.ReadOnly,
		Undo:            true,
		Pack:            true,
		Blobs:           true,
		RecordIteration: true,
	}
	err := s.read(ctx, "cannot read statistics", func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT greatest((SELECT reltuples FROM pg_class WHERE oid = 'current_object'::regclass), 0)::bigint,
			pg_database_size(current_database())`).Scan(&info.Objects, &info.Size)
	})
	if err == nil {
		s.info.Store(&info)
	}
	return err
}

// LastTID implements zeolite.Storage.
func (s *Storage) LastTID() zeolite.TID { return s.publisher.horizon() }
