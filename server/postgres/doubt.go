package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/zeolite-go/zeolite"
)

// certain tells whether an error shows that the database did not come to the
// commit: it says what failed before, also if it ends the connection with that,
// or nothing could be sent to it.
func certain(err error) bool {
	var unsent *net.OpError
	return sqlState(err) != "" || (errors.As(err, &unsent) && unsent.Op == "write" && !unsent.Timeout())
}

// afterDoubt finds out what became of a commit that reported an error. It
// returns nil if the transaction was committed, an error that wraps
// zeolite.ErrInDoubt if that cannot be found out, and else why it was not.
func (t *txn) afterDoubt(ctx context.Context, c *commit, cause error) error {
	s := t.s
	if conn := t.conn.Conn(); !conn.IsClosed() {
		return cause // the database said so itself
	}
	s.counters.doubts.Add(1)
	s.log.Warn("the connection broke during a commit", "storage", s.name, "tid", c.tid, "error", cause)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.DoubtTimeout)
	defer cancel()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		status, err := s.outcome(limit, c)
		switch {
		case err == nil && status == "committed":
			return nil
		case err == nil && status == "aborted":
			return &zeolite.StorageError{Message: "postgres: the connection broke during the commit, which was rolled back", Err: cause}
		}
		select {
		case <-limit.Done():
			return &zeolite.StorageError{Message: "postgres: transaction " + c.tid.String(), Err: fmt.Errorf("%w: %w", zeolite.ErrInDoubt, cause)}
		case <-time.After(wait):
		}
	}
}

// outcome asks what became of a commit: "committed", "aborted", or that it is
// not certain yet.
func (s *Storage) outcome(ctx context.Context, c *commit) (string, error) {
	conn, err := s.connect(ctx, appCommits)
	if err != nil {
		return "", err
	}
	defer disconnect(conn)
	// Its process may not have noticed yet that we have gone. To end it
	// settles the matter, and does no harm if it has committed.
	_, _ = conn.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_xid IS NOT NULL AND backend_xid::text::bigint = $2 & 4294967295",
		int64(c.pid), c.xid)
	var status string
	err = conn.QueryRow(ctx, "SELECT coalesce(txid_status($1), '')", c.xid).Scan(&status)
	if sqlState(err) == "22023" { // a crash has taken even its number
		return "aborted", nil
	}
	if err != nil || status != "committed" {
		return status, err
	}
	// A database that was replaced by a copy of itself may have given the
	// number to another transaction.
	var there bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM transaction WHERE tid = $1)", int64(c.tid)).Scan(&there)
	if err == nil && !there {
		status = "unknown"
	}
	return status, err
}
