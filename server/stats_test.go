package server

import (
	"context"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// calls returns the numbers of a method.
func (st Stats) calls(method string) CallStats {
	for _, c := range st.Calls {
		if c.Method == method {
			return c
		}
	}
	return CallStats{}
}

func TestStats(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		before := s.Stats()
		if before.Connections != 0 || before.Accepted != 0 || len(before.Calls) != 0 {
			t.Errorf("at the start: %+v", before)
		}
		writer, reader := s.connect(t, enc), s.connect(t, enc)
		writer.send("tpc_begin", 7, []byte{}, []byte{}, zrpc.NewDict(), nil, " ")
		writer.send("storea", zeolite.OID(1), zeolite.ZeroTID, []byte("0123456789"), 7)
		writer.call("vote", 7)
		tid := tidOf(t, writer.call("tpc_finish", 7))
		reader.call("loadBefore", zeolite.OID(1), zeolite.MaxTID)
		for method, args := range map[string][]any{
			"loadBefore": {zeolite.OID(99), zeolite.MaxTID}, "getTid": {zeolite.OID(99)}, "sendBlob": {zeolite.OID(1), tid},
		} {
			if m := reader.waitReply(reader.begin(method, args...)); !m.isException() {
				t.Errorf("%s of what is not there: %+v", method, m)
			}
		}

		// An answer comes before the call is counted.
		var st Stats
		eventually(t, "calls are counted", func() bool {
			st = s.Stats()
			return st.calls("loadBefore").Time.Count == 2 && st.calls("getTid").Time.Count == 1 && st.calls("tpc_finish").Time.Count == 1 &&
				st.Storages[0].Downloads.Active == 0 && st.Queued == 0
		})
		if st.Connections != 2 || st.Accepted != 2 || st.Refused != 0 || st.Received < 100 || st.Sent < 100 {
			t.Errorf("connections: %+v", st)
		}
		for method, errors := range map[string]int64{"loadBefore": 1, "getTid": 1, "sendBlob": 1, "vote": 0, "tpc_finish": 0, "storea": 0} {
			c := st.calls(method)
			if c.Time.Count == 0 || c.Errors != errors || c.Running != 0 {
				t.Errorf("%s: %+v, want %d errors", method, c, errors)
			}
		}
		of := st.Storages[0]
		if of.Name != "1" || of.Clients != 2 || of.Objects != 1 || of.LastTID != tid || of.LoadedBytes != 10 || of.StoredBytes != 10 ||
			of.Commits != 1 || of.Published != 1 || of.Invalidations != 1 || of.LockWaits.Count != 1 || of.Downloads.Failed != 1 {
			t.Errorf("storage: %+v", of)
		}

		// What a client was sent counts when it has gone, too.
		reader.close()
		eventually(t, "the reader has gone", func() bool { return s.Stats().Connections == 1 })
		if now := s.Stats(); now.Sent < st.Sent {
			t.Errorf("%d bytes were sent, and %d before", now.Sent, st.Sent)
		}
	})
}

// overtaken is a storage in which something is published during each load that
// need not wait.
type overtaken struct {
	zeolite.Storage
	publish func()
}

func (o *overtaken) LoadNow(oid zeolite.OID, before zeolite.TID, _ []byte) (zeolite.Revision, bool) {
	rev, err := o.LoadBefore(context.Background(), oid, before)
	o.publish()
	return rev, err == nil
}

// A load that has to be made again is counted once.
func TestStatsOfOvertakenLoad(t *testing.T) {
	storage := &overtaken{Storage: newMemory(t)}
	s := startServer(t, storage, Options{})
	storage.publish = func() { s.exports["1"].publisher.epoch.Add(2) }
	c := s.connect(t, zrpc.Msgpack)
	c.send("tpc_begin", 7, []byte{}, []byte{}, zrpc.NewDict(), nil, " ")
	c.send("storea", zeolite.OID(1), zeolite.ZeroTID, []byte("0123456789"), 7)
	c.call("vote", 7)
	tidOf(t, c.call("tpc_finish", 7))
	eventually(t, "the commit is counted", func() bool { return s.Stats().calls("tpc_finish").Time.Count == 1 })
	before := s.Stats().Received
	c.call("loadBefore", zeolite.OID(1), zeolite.MaxTID)
	first := s.Stats().Received - before
	eventually(t, "the load is counted", func() bool { return s.Stats().calls("loadBefore").Time.Count > 0 })
	st := s.Stats()
	if load := st.calls("loadBefore"); load.Time.Count != 1 || load.Running != 0 || st.Storages[0].Loads != 1 {
		t.Errorf("counted as %+v, %d loads", load, st.Storages[0].Loads)
	}
	if first > 100 {
		t.Errorf("%d bytes were received", first)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for _, d := range []time.Duration{0, bounds[0], bounds[0] + 1, time.Hour} {
		h.observe(d)
	}
	got := h.read()
	if got.Count != 4 || got.Sum != time.Hour+2*bounds[0]+1 {
		t.Errorf("%+v", got)
	}
	if got.Buckets[0].Count != 2 || got.Buckets[1].Count != 3 || got.Buckets[len(bounds)-1].Count != 3 {
		t.Errorf("buckets: %+v", got.Buckets)
	}
}

// TestCountingAllocatesNothing measures what is added to each call.
func TestCountingAllocatesNothing(t *testing.T) {
	var c serverCounters
	c.init()
	name := []byte("loadBefore")
	var srv stubs.StorageServer
	se := &session{}
	n := testing.AllocsPerRun(1000, func() {
		m := c.methods[string(name)]
		m.running.Add(1)
		r := running{m, time.Now()}
		srv = se
		r.end()
	})
	if n != 0 || srv == nil {
		t.Errorf("%v allocations", n)
	}
}

// fading is a storage that becomes read-only, as when a write fails.
type fading struct {
	zeolite.Storage
	readOnly bool
}

func (f *fading) Info() zeolite.Info {
	info := f.Storage.Info()
	info.ReadOnly = f.readOnly
	return info
}

// TestStatsReadOnly: the numbers say whether clients can write, also if that
// changed since the server began.
func TestStatsReadOnly(t *testing.T) {
	storage := &fading{Storage: newMemory(t)}
	s := startServer(t, storage, Options{})
	if s.Stats().Storages[0].ReadOnly {
		t.Error("a storage that takes transactions is said to be read-only")
	}
	storage.readOnly = true
	if !s.Stats().Storages[0].ReadOnly {
		t.Error("a storage that has become read-only is not said to be")
	}
	s = startServer(t, newMemory(t), Options{ReadOnly: true})
	if !s.Stats().Storages[0].ReadOnly {
		t.Error("a server that is read-only is not said to be")
	}
}
