package postgres

import (
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// counters count what happens now and then. They are safe for concurrent use.
type counters struct {
	listened   atomic.Int64
	renumbered atomic.Int64
	doubts     atomic.Int64
}

// Stats are the numbers of a storage at a moment. Those that only grow count
// from its opening.
type Stats struct {
	// Pools are those for loads, commits and blobs.
	Pools []PoolStats
	// Voted is how many transactions have voted and not ended; each keeps a
	// connection for commits. OldestVote is how long ago the first of them
	// voted, zero if there is none.
	Voted      int
	OldestVote time.Duration
	// Renumbered is how many commits were overtaken by others since they
	// voted, and Doubts how many had to ask what became of them.
	Renumbered, Doubts int64
	// Listened is how often the connection that hears of the commits of other
	// servers was made: once, unless it broke.
	Listened int64
	// CacheHits is how many loads were answered from memory, and CacheMisses
	// how many were not.
	CacheHits, CacheMisses int64
	// Spooled is how many bytes of blobs wait on disk for slow readers.
	Spooled, SpoolLimit int64
}

// PoolStats are the numbers of a pool of connections.
type PoolStats struct {
	// Name is what the connections are for.
	Name string
	// Max is how many connections there can be, Open how many there are, and
	// Busy how many of them are in use.
	Max, Open, Busy int
	// Acquired is how often a connection was had, and Waited how many of
	// these had to wait for one, Wait all in all. GivenUp is how many waited
	// in vain.
	Acquired, Waited, GivenUp int64
	Wait                      time.Duration
}

// Stats returns the numbers of this moment.
func (s *Storage) Stats() Stats {
	st := Stats{
		Renumbered: s.counters.renumbered.Load(),
		Doubts:     s.counters.doubts.Load(),
		Listened:   s.counters.listened.Load(),

		CacheHits:   s.serials.hits.Load(),
		CacheMisses: s.serials.misses.Load(),

		Spooled:    s.spools.used.Load(),
		SpoolLimit: s.spools.limit,
	}
	for _, p := range []struct {
		name string
		pool *pgxpool.Pool
	}{{"loads", s.loads}, {"commits", s.commits}, {"blobs", s.streams}} {
		of := p.pool.Stat()
		st.Pools = append(st.Pools, PoolStats{
			Name:     p.name,
			Max:      int(of.MaxConns()),
			Open:     int(of.TotalConns()),
			Busy:     int(of.AcquiredConns()),
			Acquired: of.AcquireCount(),
			Waited:   of.EmptyAcquireCount(),
			GivenUp:  of.CanceledAcquireCount(),
			Wait:     of.EmptyAcquireWaitTime(),
		})
	}
	var oldest time.Time
	if st.Voted, oldest = s.votedTxns(); st.Voted > 0 {
		st.OldestVote = time.Since(oldest)
	}
	return st
}
