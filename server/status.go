package server

import (
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/zeolite-go/zeolite/zrpc"
)

// counters count what clients do with a storage. They are safe for concurrent
// use.
type counters struct {
	start     time.Time
	loads     atomic.Int64
	stores    atomic.Int64
	commits   atomic.Int64
	aborts    atomic.Int64
	conflicts atomic.Int64
	active    atomic.Int64 // transactions begun and not ended
	slow      atomic.Int64 // clients disconnected because they did not read
}

// status is what server_status and ruok tell of a storage: the keys that ZEO
// has, in its order, for monitors know them.
type status struct {
	Connections       int      `json:"connections"`
	Loads             int64    `json:"loads"`
	Stores            int64    `json:"stores"`
	Commits           int64    `json:"commits"`
	Aborts            int64    `json:"aborts"`
	ActiveTxns        int64    `json:"active_txns"`
	LockTime          *float64 `json:"lock_time"`
	Conflicts         int64    `json:"conflicts"`
	ConflictsResolved int64    `json:"conflicts_resolved"`
	Start             string   `json:"start"`
	Waiting           int      `json:"waiting"`
	TimeoutThread     any      `json:"timeout-thread-is-alive"`
	LastTransaction   string   `json:"last-transaction"`
}

func (e *export) status() status {
	waiting, held, since := e.locks.state()
	st := status{
		Connections:     e.publisher.count(),
		Loads:           e.counters.loads.Load(),
		Stores:          e.counters.stores.Load(),
		Commits:         e.counters.commits.Load(),
		Aborts:          e.counters.aborts.Load(),
		ActiveTxns:      e.counters.active.Load(),
		Conflicts:       e.counters.conflicts.Load(),
		Start:           e.counters.start.Format(time.ANSIC),
		Waiting:         waiting,
		TimeoutThread:   "stub",
		LastTransaction: e.publisher.lastTID().String(),
	}
	if e.opt.TransactionTimeout > 0 {
		st.TimeoutThread = true
	}
	if held > 0 {
		seconds := float64(since.UnixNano()) / 1e9
		st.LockTime = &seconds
	}
	return st
}

// value is the status as server_status returns it.
func (st status) value() zrpc.Value {
	var lockTime zrpc.Value
	if st.LockTime != nil {
		lockTime = *st.LockTime
	}
	return zrpc.NewDict(
		"connections", int64(st.Connections),
		"loads", st.Loads,
		"stores", st.Stores,
		"commits", st.Commits,
		"aborts", st.Aborts,
		"active_txns", st.ActiveTxns,
		"lock_time", lockTime,
		"conflicts", st.Conflicts,
		"conflicts_resolved", st.ConflictsResolved,
		"start", st.Start,
		"waiting", int64(st.Waiting),
		"timeout-thread-is-alive", st.TimeoutThread,
		"last-transaction", st.LastTransaction)
}

// statusJSON answers ruok: the status of all storages, by name.
func (s *Server) statusJSON() []byte {
	out := []byte{'{'}
	for i, name := range s.order {
		if i > 0 {
			out = append(out, ", "...)
		}
		key, _ := json.Marshal(name)
		out = append(append(out, key...), ": "...)
		value, _ := json.Marshal(s.exports[name].status())
		out = append(out, value...)
	}
	return append(out, '}')
}
