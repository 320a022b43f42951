package main

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/config"
	"github.com/zeolite-go/zeolite/server/postgres"
)

// postgresFlags say which database in PostgreSQL to serve, and what may be used
// for it.
type postgresFlags struct {
	dsn                    string
	loads, commits, blobs  int
	lockTimeout, stallTime float64
	spoolDir               string
	spool, cache           int
}

func (f *postgresFlags) add(fs *flag.FlagSet) {
	fs.StringVar(&f.dsn, "postgres", "", "serve the PostgreSQL database `DSN`, instead of a file: postgres://USER@HOST/NAME, or libpq's keywords; tables are created if absent")
	fs.IntVar(&f.loads, "postgres-loads", 0, "make up to `N` connections for loads (default 10)")
	fs.IntVar(&f.commits, "postgres-commits", 0, "make up to `N` connections for commits: so many transactions can be between vote and finish (default 10)")
	fs.IntVar(&f.blobs, "postgres-blobs", 0, "make up to `N` connections for blobs (default 16)")
	fs.Var((*size)(&f.cache), "postgres-cache", "keep `SIZE` of current records in memory for other clients (default 64MiB)")
	fs.Float64Var(&f.lockTimeout, "postgres-lock-timeout", 0, "let a vote wait up to `SECONDS` for a connection, or for objects that another server has locked (default 30)")
	fs.Float64Var(&f.stallTime, "postgres-patience", 0, "spool a blob for a client that reads nothing for `SECONDS` (default 1)")
	fs.StringVar(&f.spoolDir, "postgres-spool", "", "spool blobs for slow clients in `DIR` (default: the system's directory for temporary files)")
	fs.Var((*size)(&f.spool), "postgres-spool-limit", "spool up to `SIZE` in all (default 1GiB)")
}

func (f *postgresFlags) check() error {
	switch {
	case f.loads < 0 || f.commits < 0 || f.blobs < 0:
		return &usageError{"numbers of connections must not be negative"}
	case f.lockTimeout < 0 || f.stallTime < 0:
		return &usageError{"--postgres-lock-timeout and --postgres-patience must not be negative"}
	case f.dsn == "" && *f != (postgresFlags{}):
		return &usageError{"the flags --postgres-* need --postgres DSN"}
	}
	return nil
}

func (f *postgresFlags) options() postgres.Options {
	return postgres.Options{
		DSN:            f.dsn,
		LoadConns:      f.loads,
		CommitConns:    f.commits,
		StreamConns:    f.blobs,
		CacheSize:      int64(f.cache),
		LockTimeout:    time.Duration(f.lockTimeout * float64(time.Second)),
		StreamPatience: time.Duration(f.stallTime * float64(time.Second)),
		SpoolDir:       f.spoolDir,
		SpoolLimit:     int64(f.spool),
	}
}

// postgresSpec stands in the configuration for --postgres, which zeo.conf has no
// section for. What every section must have it takes from one in memory.
type postgresSpec struct {
	*config.MappingStorage
	opts postgres.Options
}

// Kind implements config.Spec.
func (*postgresSpec) Kind() string { return "postgres" }

// openPostgres connects, and creates the tables if there are none.
func openPostgres(ctx context.Context, spec *postgresSpec, readOnly bool, log *slog.Logger) (zeolite.Storage, error) {
	opts := spec.opts
	opts.ReadOnly, opts.Logger = readOnly, log
	return postgres.Open(ctx, opts)
}

var keyword = regexp.MustCompile(`^\s*[a-z_]+\s*=`)

// isDSN tells whether a storage that a command was given is in PostgreSQL.
func isDSN(name string) bool {
	if strings.HasPrefix(name, "postgres://") || strings.HasPrefix(name, "postgresql://") {
		return true
	}
	_, err := os.Stat(name)
	return err != nil && keyword.MatchString(name)
}
