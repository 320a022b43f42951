package postgres

import (
	"cmp"
	"log/slog"
	"os"
	"time"
)

// Options configure Open. Only DSN is required.
type Options struct {
	// DSN says how to connect: a URL or a libpq string of keywords and
	// values, completed by libpq's environment variables. Advisory locks
	// and notifications belong to sessions, so a connection pooler in
	// between must keep sessions, and hand on the parameters that a
	// connection starts with. Without connect_timeout, the database has 30 s
	// to let one in.
	DSN string
	// Name is what Info says; by default the host and name of the database.
	Name string
	// ReadOnly refuses writes, and changes nothing in the database.
	ReadOnly bool
	// MustExist refuses a database that has no tables, instead of creating
	// them.
	MustExist bool
	// KeepGarbage makes Pack without PackOptions.GC keep unreachable
	// objects.
	KeepGarbage bool

	// LoadConns, CommitConns and StreamConns are the largest numbers of
	// connections that the three pools make: 10, 10 and 16 by default. A
	// voted transaction keeps one of CommitConns until it ends, so this is
	// also how many can have voted at a time; others wait for their turn.
	LoadConns, CommitConns, StreamConns int

	// CacheSize is how many bytes of current revisions are kept in memory, for
	// clients that load what others have loaded before; 64 MiB by default,
	// none if it is negative. While the database is away these loads go on, as
	// of the last transaction that was heard of.
	CacheSize int64

	// LockTimeout is how long Vote waits for one of CommitConns, before it
	// fails, and for objects that a transaction of another server has locked,
	// before it fails with a conflict; 30 s by default.
	LockTimeout time.Duration
	// DoubtTimeout is how long Finish tries to find out what became of a
	// commit when its connection broke, before it answers
	// zeolite.ErrInDoubt; 15 s by default.
	DoubtTimeout time.Duration
	// PollInterval is how often to look for commits that nobody announced,
	// as those of RelStorage; 1 s by default.
	PollInterval time.Duration

	// StreamPatience is how long the reader of a blob may leave bytes
	// waiting before the rest goes to the spool and the connection back to
	// its pool; 1 s by default.
	StreamPatience time.Duration
	// StreamIdle is how long an unused connection of the blobs' pool is
	// kept; 10 s by default.
	StreamIdle time.Duration
	// SpoolDir is where blobs are spooled for slow readers, in files
	// without a name; by default the system's directory for temporary
	// files. SpoolLimit is how many bytes all spools together take at most,
	// 1 GiB by default; what exceeds it is read from the database later.
	SpoolDir   string
	SpoolLimit int64

	// OrphanAge is how old an upload must be before another server may take
	// it for the remains of one that died; 10 minutes by default.
	OrphanAge time.Duration

	// Logger is told of what happens in the background; slog.Default() if
	// nil.
	Logger *slog.Logger

	answerTime, houseTime time.Duration // but in tests, the constants
}

func (o Options) withDefaults() Options {
	o.LoadConns = cmp.Or(o.LoadConns, 10)
	o.CommitConns = cmp.Or(o.CommitConns, 10)
	o.StreamConns = cmp.Or(o.StreamConns, 16)
	o.CacheSize = max(cmp.Or(o.CacheSize, 64<<20), 0)
	o.LockTimeout = cmp.Or(o.LockTimeout, 30*time.Second)
	o.DoubtTimeout = cmp.Or(o.DoubtTimeout, 15*time.Second)
	o.PollInterval = cmp.Or(o.PollInterval, time.Second)
	o.StreamPatience = cmp.Or(o.StreamPatience, time.Second)
	o.StreamIdle = cmp.Or(o.StreamIdle, 10*time.Second)
	o.SpoolDir = cmp.Or(o.SpoolDir, os.TempDir())
	o.SpoolLimit = cmp.Or(o.SpoolLimit, 1<<30)
	o.OrphanAge = cmp.Or(o.OrphanAge, 10*time.Minute)
	o.answerTime = cmp.Or(o.answerTime, answerTime)
	o.houseTime = cmp.Or(o.houseTime, houseTime)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}
