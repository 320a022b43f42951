package server

import (
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"
	"unicode/utf16"
	"unicode/utf8"

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

	// These are for Stats only.
	loaded, stored         atomic.Int64 // bytes of records
	published              atomic.Int64 // transactions
	invalidations          atomic.Int64 // messages
	uploads, uploadedBytes atomic.Int64
	downloads              streamCounters
	lockWaits              histogram
	packs                  packCounters
}

// status is what server_status and ruok tell of a storage: the keys that ZEO
// has, in its order, for monitors know them.
type status struct {
	Connections       int
	Loads             int64
	Stores            int64
	Commits           int64
	Aborts            int64
	ActiveTxns        int64
	LockTime          *float64
	Conflicts         int64
	ConflictsResolved int64
	Start             string
	Waiting           int
	TimeoutThread     any
	LastTransaction   string
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

// statusJSON answers ruok: the status of all storages, by name, spaced as
// Python does it, for the sake of monitors that look for text.
func (s *Server) statusJSON() []byte {
	var storages []zrpc.Pair
	for _, name := range s.order {
		storages = append(storages, zrpc.Pair{Key: name, Val: s.exports[name].status().value()})
	}
	return asciiJSON(appendJSON(nil, storages))
}

// asciiJSON escapes other letters, as Python does: ZEO's plugin for Nagios decodes
// nothing but ASCII.
func asciiJSON(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for _, r := range string(text) {
		if r < utf8.RuneSelf {
			out = append(out, byte(r))
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	return out
}

// appendJSON appends pairs as a JSON object.
func appendJSON(out []byte, pairs []zrpc.Pair) []byte {
	out = append(out, '{')
	for i, p := range pairs {
		if i > 0 {
			out = append(out, ", "...)
		}
		// Text, numbers, bool and nil always have a form in JSON.
		key, _ := json.Marshal(p.Key)
		out = append(append(out, key...), ": "...)
		if d, ok := p.Val.(*zrpc.Dict); ok {
			out = appendJSON(out, d.Pairs)
			continue
		}
		value, _ := json.Marshal(p.Val)
		out = append(out, value...)
	}
	return append(out, '}')
}
