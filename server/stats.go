package server

import (
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
)

// Stats are the numbers of a server at a moment. Those that only grow count
// from the server's start. They are read one after another while the server
// goes on, so they may not agree with each other to the last call.
type Stats struct {
	// Connections is how many clients are connected, Accepted how many
	// connections there have been, and Refused how many of those ended before
	// the client had shaken hands (health checks are among them).
	Connections       int
	Accepted, Refused int64
	// Received is the number of bytes of all calls, and Sent that of all
	// replies, invalidations and blobs.
	Received, Sent int64
	// Queued is the number of bytes of replies and invalidations that wait to
	// be sent, and LongestQueue that of the client that has most.
	Queued, LongestQueue int
	// Waiting is the number of calls that wait for an earlier one of the same
	// client's transaction.
	Waiting int
	// Calls are by method, in the order of the protocol; methods that were
	// never called are left out.
	Calls []CallStats
	// Storages are in the order in which they were added.
	Storages []StorageStats
}

// CallStats are the numbers of one method.
type CallStats struct {
	Method string
	// Running is how many are being run, Errors how many were answered with an
	// exception.
	Running, Errors int64
	// Time is how long calls took to run, without what they waited for one
	// another, and without sending the answer.
	Time Histogram
}

// StorageStats are the numbers of one storage.
type StorageStats struct {
	Name string
	// Clients is how many have registered; Slow, how many were disconnected
	// because they did not read.
	Clients int
	Slow    int64
	// ReadOnly says that no client can write: the storage is served so, or it
	// became so when a write failed.
	ReadOnly bool
	// Objects and Size are as in zeolite.Info.
	Objects, Size int64
	LastTID       zeolite.TID

	Loads, LoadedBytes  int64
	Stores, StoredBytes int64
	// Open is the number of transactions that were begun and did not end.
	Open                       int64
	Commits, Aborts, Conflicts int64

	// LocksWaiting is how many transactions wait for commit locks, LocksHeld
	// how many hold some, and LockWaits how long they waited for them.
	LocksWaiting, LocksHeld int
	LockWaits               Histogram

	// Published is the number of transactions that clients were told of,
	// Invalidations the number of messages that took.
	Published, Invalidations int64

	// Downloads are blobs sent to clients. Uploads is how many blobs clients
	// sent, and UploadedBytes how much of blobs has come, also of those whose
	// end did not.
	Downloads              StreamStats
	Uploads, UploadedBytes int64
	Pack                   PackStats
}

// StreamStats are the numbers of blobs on their way to clients.
type StreamStats struct {
	// Active is how many are under way or wait for their turn, Whole how many
	// reached their end, and Failed how many did not.
	Active, Whole, Failed int64
	// Bytes is the size of what was sent of those that have ended.
	Bytes int64
}

// PackStats describe the packs of a storage.
type PackStats struct {
	Succeeded, Failed int64
	// Last is how long the last one took, and Running how long the one that
	// runs has taken, zero if there is none.
	Last, Running time.Duration
	// Progress is how far the one that runs is. It is empty if the storage
	// does not tell.
	Progress zeolite.PackProgress
}

// Histogram says how many durations were how long.
type Histogram struct {
	Count int64
	Sum   time.Duration
	// Buckets have rising bounds; each counts what those before it count, too.
	Buckets []Bucket
}

// Bucket is how many durations were at most so long.
type Bucket struct {
	UpTo  time.Duration
	Count int64
}

// Stats returns the numbers of this moment.
func (s *Server) Stats() Stats {
	st := Stats{
		Accepted: s.counters.accepted.Load(),
		Refused:  s.counters.refused.Load(),
		Received: s.counters.received.Load(),
	}
	s.mu.Lock()
	sessions := make([]*session, 0, len(s.sessions))
	for se := range s.sessions {
		sessions = append(sessions, se)
		st.Sent += se.conn.Sent()
	}
	st.Sent += s.counters.sent.Load()
	s.mu.Unlock()
	st.Connections = len(sessions)
	for _, se := range sessions {
		queued := se.conn.Queued()
		st.Queued += queued
		st.LongestQueue = max(st.LongestQueue, queued)
		st.Waiting += se.ordered.waiting()
	}
	for _, name := range stubs.StorageServerMethods {
		m := s.counters.methods[name]
		calls := CallStats{Method: name, Running: m.running.Load(), Errors: m.errors.Load(), Time: m.time.read()}
		if calls.Running > 0 || calls.Time.Count > 0 {
			st.Calls = append(st.Calls, calls)
		}
	}
	for _, name := range s.order {
		st.Storages = append(st.Storages, s.exports[name].stats())
	}
	return st
}

func (e *export) stats() StorageStats {
	c, info := &e.counters, e.storage.Info()
	st := StorageStats{
		Name:          e.name,
		Clients:       e.publisher.count(),
		Slow:          c.slow.Load(),
		ReadOnly:      e.readOnly || info.ReadOnly,
		Objects:       info.Objects,
		Size:          info.Size,
		LastTID:       e.publisher.lastTID(),
		Loads:         c.loads.Load(),
		LoadedBytes:   c.loaded.Load(),
		Stores:        c.stores.Load(),
		StoredBytes:   c.stored.Load(),
		Open:          c.active.Load(),
		Commits:       c.commits.Load(),
		Aborts:        c.aborts.Load(),
		Conflicts:     c.conflicts.Load(),
		LockWaits:     c.lockWaits.read(),
		Published:     c.published.Load(),
		Invalidations: c.invalidations.Load(),
		Downloads:     c.downloads.read(),
		Uploads:       c.uploads.Load(),
		UploadedBytes: c.uploadedBytes.Load(),
		Pack:          c.packs.read(),
	}
	st.LocksWaiting, st.LocksHeld, _ = e.locks.state()
	return st
}

func (c *streamCounters) read() StreamStats {
	return StreamStats{c.active.Load(), c.whole.Load(), c.failed.Load(), c.bytes.Load()}
}

func (p *packCounters) read() PackStats {
	st := PackStats{Succeeded: p.succeeded.Load(), Failed: p.failed.Load(), Last: time.Duration(p.last.Load())}
	if started := p.started.Load(); started != 0 {
		st.Running = max(1, time.Since(time.Unix(0, started)))
		if progress := p.progress.Load(); progress != nil {
			st.Progress = *progress
		}
	}
	return st
}

func (h *histogram) read() Histogram {
	out := Histogram{Sum: time.Duration(h.sum.Load()), Buckets: make([]Bucket, len(bounds))}
	for i := range h.buckets {
		out.Count += h.buckets[i].Load()
		if i < len(bounds) {
			out.Buckets[i] = Bucket{bounds[i], out.Count}
		}
	}
	return out
}
