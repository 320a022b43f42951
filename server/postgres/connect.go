package postgres

import (
	"cmp"
	"context"
	"net"
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
	appClean   = "zeolite: clean"
	appPack    = "zeolite: pack"
	appSchema  = "zeolite: schema"
)

// Both ends of a connection find out with these that the other has gone without a
// word, and so does this one if what it sent is not acknowledged for silenceTime.
const (
	keepAliveIdle, keepAliveInterval, keepAliveCount = 20 * time.Second, 10 * time.Second, 3

	silenceTime = keepAliveIdle + keepAliveCount*keepAliveInterval
)

// pingTime is how long an idle connection may take to show that it is alive,
// before it is replaced.
const pingTime = 5 * time.Second

// configure prepares how a new connection is made, and what it sets for its
// session.
func (s *Storage) configure(config *pgx.ConnConfig, app string) {
	// Who accepts a connection and says nothing is not waited for for ever.
	config.ConnectTimeout = cmp.Or(config.ConnectTimeout, s.opts.answerTime)
	dialer := &net.Dialer{
		Timeout:         config.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount},
		Control:         limitSilence,
	}
	config.DialFunc = dialer.DialContext
	params := config.RuntimeParams
	params["application_name"] = app
	// The queries here are short: compiling them costs more than it saves.
	params["jit"] = "off"
	// A transaction must see what was committed while it waited for a lock,
	// whatever the default of the role or the database is.
	params["default_transaction_isolation"] = "read committed"
	// Let the database notice soon when a server has gone without a word:
	// its transaction may hold up all others.
	seconds := func(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) }
	params["tcp_keepalives_idle"] = seconds(keepAliveIdle)
	params["tcp_keepalives_interval"] = seconds(keepAliveInterval)
	params["tcp_keepalives_count"] = strconv.Itoa(keepAliveCount)
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
	config.PingTimeout = pingTime
	if app == appStreams {
		config.MaxConnIdleTime = s.opts.StreamIdle
		config.HealthCheckPeriod = max(s.opts.StreamIdle/2, 10*time.Millisecond)
	}
	s.configure(config.ConnConfig, app)
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
	s.configure(config, app)
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
