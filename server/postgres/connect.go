package postgres

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// What connections are for, as pg_stat_activity shows it.
const (
	appLoads   = "zeolite: loads"
	appCommits = "zeolite: commits"
	appStreams = "zeolite: blobs"
	appFollow  = "zeolite: listen"
	appPack    = "zeolite: pack"
	appSchema  = "zeolite: schema"
)

// parameters prepares what a new connection sets for its session.
func (s *Storage) parameters(params map[string]string, app string) {
	params["application_name"] = app
	// The queries here are short: compiling them costs more than it saves.
	params["jit"] = "off"
	// A transaction must see what was committed while it waited for a lock,
	// whatever the default of the role or the database is.
	params["default_transaction_isolation"] = "read committed"
	// Let the database notice soon when a server has gone without a word:
	// its transaction may hold up all others.
	params["tcp_keepalives_idle"] = "20"
	params["tcp_keepalives_interval"] = "10"
	params["tcp_keepalives_count"] = "3"
	if s.opts.ReadOnly {
		params["default_transaction_read_only"] = "on"
	}
	switch app {
	case appStreams, appPack:
		// What they write is either referred to by a later commit, which
		// brings it to disk with itself, or may be done again.
		params["synchronous_commit"] = "off"
	}
}

// pool makes a pool, without connecting.
func (s *Storage) pool(app string, conns int) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(s.opts.DSN)
	if err != nil {
		return nil, err
	}
	config.MaxConns, config.MinConns, config.MinIdleConns = int32(conns), 0, 0
	config.MaxConnIdleTime = 5 * time.Minute
	if app == appStreams {
		config.MaxConnIdleTime = s.opts.StreamIdle
		config.HealthCheckPeriod = max(s.opts.StreamIdle/2, 10*time.Millisecond)
	}
	s.parameters(config.ConnConfig.RuntimeParams, app)
	if app == appCommits {
		config.ConnConfig.RuntimeParams["lock_timeout"] = strconv.FormatInt(s.opts.LockTimeout.Milliseconds(), 10)
	}
	return pgxpool.NewWithConfig(context.Background(), config)
}

// connect makes a connection outside of all pools.
func (s *Storage) connect(ctx context.Context, app string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(s.opts.DSN)
	if err != nil {
		return nil, err
	}
	s.parameters(config.RuntimeParams, app)
	return pgx.ConnectConfig(ctx, config)
}

// closeTime is how long it may take to say goodbye to the database.
const closeTime = 5 * time.Second

// disconnect ends a connection that connect made.
func disconnect(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_ = conn.Close(ctx) // it is of no use any more either way
}
