package server

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// TestRegister follows the rules of the first call.
func TestRegister(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		p := s.dial(t, enc)
		e := p.callRaises("builtins.ValueError", "register", "nope", false)
		if got := e.State.(zrpc.Tuple); len(got) != 1 || got[0] != "unknown storage: nope" {
			t.Errorf("register raised %v", e)
		}
		p.assertOneLine("unknown storage")
		// It may try again; Python sends 0 for false.
		if tid := tidOf(t, p.call("register", "1", 0)); tid != 0 {
			t.Errorf("register: %v, want zero", tid)
		}
		tid := p.commit(1, 0, record("x"))
		q := s.dial(t, enc)
		if got := tidOf(t, q.call("register", "1", 1)); got != tid {
			t.Errorf("register: %v, want %v", got, tid)
		}
	})
}

// TestReadOnlyServer refuses writable registrations, and tells the log why, once
// for each connection; the client may fall back.
func TestReadOnlyServer(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{ReadOnly: true})
		p := s.dial(t, enc)
		p.callRaises("ZODB.POSException.ReadOnlyError", "register", "1", false)
		p.callRaises("ZODB.POSException.ReadOnlyError", "register", "1", false)
		p.call("register", "1", true)
		p.call("get_info")
		told := 0
		for _, r := range s.logs.all() {
			if r.client == p.name && r.level == slog.LevelInfo && strings.Contains(r.text, "the storage is read-only") {
				told++
			}
		}
		if told != 1 {
			t.Errorf("the log says %d times that the client was refused, want once", told)
		}
	})
}

// TestReadOnlyConnection may read and pack, and nothing else.
func TestReadOnlyConnection(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		b := s.newBystander(t)
		p := s.connectReadOnly(t, enc)
		const readOnly = "ZODB.POSException.ReadOnlyError"
		p.callRaises(readOnly, "new_oids", 5)
		p.callRaises(readOnly, "vote", newTxnID())
		p.callRaises(readOnly, "tpc_finish", newTxnID())
		p.callRaises(readOnly, "tpc_abort", newTxnID())
		p.assertLoads(b.oid, b.tid, record("bystander"))
		p.call("undoLog", 0, -20)
		p.call("iterator_start", nil, nil)
		for _, c := range []struct {
			name string
			args []any
		}{
			{"tpc_begin", []any{newTxnID(), []byte("u"), []byte("d"), zrpc.NewDict()}},
			{"storea", []any{b.oid, b.tid, []byte("x"), newTxnID()}},
			{"storeBlobStart", nil},
			{"undoa", []any{[]byte("AAAAAAAAAAA="), newTxnID()}},
		} {
			q := s.connectReadOnly(t, enc)
			q.send(c.name, c.args...)
			q.waitClosed()
			q.assertOneLine("one-way call " + c.name + " failed: ZODB.POSException.ReadOnlyError")
			b.assertFine()
		}
	})
}

// TestHandshakeDeadline: who does not register in time is let go.
func TestHandshakeDeadline(t *testing.T) {
	t.Parallel()
	s := startServer(t, newMemory(t), Options{Limits: Limits{Handshake: 500 * time.Millisecond}})
	p := s.dialRaw(t, zrpc.Pickle)
	p.readFrame()
	p.waitClosed()
	p.assertOneLine("handshake failed")
	q := s.dial(t, zrpc.Pickle)
	q.waitClosed()
	q.assertOneLine("did not register within ")
	// Who did may take all the time in the world.
	r := s.connect(t, zrpc.Pickle)
	<-time.After(time.Second)
	r.call("ping")
}

// TestHandshakeHasOneDeadline: who takes long to shake hands has less time to
// register.
func TestHandshakeHasOneDeadline(t *testing.T) {
	t.Parallel()
	const limit, wait = 1500 * time.Millisecond, time.Second
	s := startServer(t, newMemory(t), Options{Limits: Limits{Handshake: limit}})
	start := time.Now()
	p := s.dialRaw(t, zrpc.Pickle)
	p.readFrame()
	<-time.After(wait)
	p.writeFrame([]byte{byte(p.enc), '5'})
	p.waitClosed()
	if took := time.Since(start); took >= limit+wait {
		t.Errorf("the client was let go after %v, want %v", took, limit)
	}
}

// TestRegisteredJustInTime: the deadline is not for who has registered.
func TestRegisteredJustInTime(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	p := s.connect(t, zrpc.Pickle)
	p.session().expire()
	p.call("ping")
}

// slowClose is a connection that takes its time to close, as TLS does.
type slowClose struct {
	net.Conn
	until chan struct{}
}

func (c slowClose) Close() error {
	<-c.until
	return c.Conn.Close()
}

// TestDeadlineThatHasPassed: whatever is done first, the end of the connection or
// the register that has arrived, nothing of the client stays.
func TestDeadlineThatHasPassed(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	register := (&peer{t: t, enc: zrpc.Pickle}).encode(zrpc.Tuple{int64(1), false, "register", zrpc.Tuple{"1", false}})
	register = append(zrpc.AppendFrameHeader(nil, len(register)), register...)
	for range 200 {
		ours, theirs := net.Pipe()
		until := make(chan struct{})
		s.running.Add(1)
		se := newSession(s.Server, slowClose{ours, until}, zrpc.Pickle, s.log)
		se.start(time.Now().Add(-time.Second))
		if _, err := theirs.Write(register); err != nil { // until it is read
			t.Fatal(err)
		}
		close(until)
		theirs.Close()
	}
	s.running.Wait()
	if n := s.exports["1"].publisher.count(); n != 0 {
		t.Errorf("%d clients are left", n)
	}
}

// TestTrap08_EncodingIsTheClients: whatever the server announces, the client's
// letter counts, connection by connection.
func TestTrap08_EncodingIsTheClients(t *testing.T) {
	for _, announced := range encodings {
		s := startServer(t, newMemory(t), Options{Encoding: announced})
		p := s.dialRaw(t, zrpc.Pickle)
		if got := p.readFrame(); !bytes.Equal(got, []byte{byte(announced), '5'}) {
			t.Errorf("announced %q", got)
		}
		for _, enc := range encodings {
			s.connect(t, enc).call("get_info")
		}
	}
}

// statusKeys are those that ZEO's monitors know, in its order.
var statusKeys = []string{"connections", "loads", "stores", "commits", "aborts", "active_txns", "lock_time", "conflicts",
	"conflicts_resolved", "start", "waiting", "timeout-thread-is-alive", "last-transaction"}

// TestServerStatus checks the keys, and that the numbers mean what they say.
func TestServerStatus(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		p, q := s.connect(t, enc), s.connect(t, enc)
		d := dictOf(t, p.call("server_status"))
		if got := keys(d); !slices.Equal(got, statusKeys) {
			t.Errorf("keys %v, want %v", got, statusKeys)
		}
		want := func(key string, value zrpc.Value) {
			t.Helper()
			d := dictOf(t, p.call("server_status"))
			if got, _ := d.Get(key); got != value {
				t.Errorf("%s is %v (%T), want %v (%T)", key, got, got, value, value)
			}
		}
		want("connections", int64(2))
		want("timeout-thread-is-alive", "stub")
		want("lock_time", nil)
		want("last-transaction", "0000000000000000")
		tid := p.commit(1, 0, record("x"))
		s.waitIdle()
		want("commits", int64(1))
		want("stores", int64(1))
		want("last-transaction", tid.String())
		id := q.voted(1, tid, record("y"))
		want("active_txns", int64(1))
		status, _ := dictOf(t, p.call("server_status")).Get("lock_time")
		if at, ok := status.(float64); !ok || time.Since(time.Unix(int64(at), 0)) > time.Hour {
			t.Errorf("lock_time is %v", status)
		}
		other := p.tpcBegin()
		p.store(other, 1, tid, record("z"))
		vote := p.begin("vote", other)
		s.waitForQueue(1)
		want("waiting", int64(1))
		q.call("tpc_abort", id)
		want("aborts", int64(1))
		p.result(vote)
		p.call("tpc_abort", other)
		want("active_txns", int64(0))
		conflicting := p.tpcBegin()
		p.store(conflicting, 1, 0, record("z"))
		p.call("vote", conflicting)
		want("conflicts", int64(1))
		p.call("tpc_abort", conflicting)
		start, _ := dictOf(t, p.call("server_status")).Get("start")
		if _, err := time.Parse(time.ANSIC, start.(string)); err != nil {
			t.Errorf("start: %v", err)
		}
	})
}

// TestRuok: a monitor gets the status of every storage as JSON.
func TestRuok(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	p := s.dialRaw(t, zrpc.Pickle)
	p.writeFrame([]byte("ruok")) // it need not wait for the announcement
	p.readFrame()
	text := p.readFrame()
	if _, err := p.tryReadFrame(); err == nil {
		t.Error("the connection goes on after ruok")
	}
	var all map[string]map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	at := 0
	for _, key := range statusKeys {
		i := strings.Index(string(text[at:]), `"`+key+`": `)
		if i < 0 {
			t.Fatalf("no %q after byte %d, written as Python does: %s", key, at, text)
		}
		at += i
	}
	if len(all) != 1 || len(all["1"]) != len(statusKeys) {
		t.Errorf("ruok: %s", text)
	}
}

// TestRuokIsASCII, whatever storages are named.
func TestRuokIsASCII(t *testing.T) {
	const name = "Bücher 𝄞"
	s := New(Options{})
	if err := s.AddStorage(name, newMemory(t)); err != nil {
		t.Fatal(err)
	}
	text := string(s.statusJSON())
	var all map[string]map[string]any
	if err := json.Unmarshal([]byte(text), &all); err != nil || all[name] == nil {
		t.Errorf("%v in %s", err, text)
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r >= 0x80 }); i >= 0 {
		t.Errorf("no ASCII at byte %d: %s", i, text)
	}
}

// TestNewOIDs: never twice the same, 1 to 100 at a time, 100 by default.
func TestNewOIDs(t *testing.T) {
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		s := startServer(t, open(t), Options{})
		seen := map[zeolite.OID]bool{}
		for _, enc := range encodings {
			p := s.connect(t, enc)
			for _, c := range []struct {
				args []any
				want int
			}{{nil, 100}, {[]any{7}, 7}, {[]any{0}, 1}, {[]any{-3}, 1}, {[]any{100_000}, 100}} {
				oids := tupleOf(t, p.call("new_oids", c.args...))
				if len(oids) != c.want {
					t.Errorf("new_oids%v: %d, want %d", c.args, len(oids), c.want)
				}
				for _, o := range oids {
					oid := oidOf(t, o)
					if seen[oid] || oid == 0 {
						t.Errorf("oid %v twice", oid)
					}
					seen[oid] = true
				}
			}
		}
	})
}

// TestClientLabel goes to the log, and cannot forge lines there.
func TestClientLabel(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	p := s.connect(t, zrpc.Msgpack)
	p.send("set_client_label", "web\n2 ERROR")
	p.sync()
	r := s.logs.wait(t, "the label", func(r logRecord) bool { return strings.Contains(r.text, "web") })
	if strings.Contains(r.text, "\n") || r.client != p.name {
		t.Errorf("label logged as %q", r.text)
	}
}

// TestTrap09_GetInvalidations takes every branch.
func TestTrap09_GetInvalidations(t *testing.T) {
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
			s := startServer(t, open(t), Options{Limits: Limits{Invalidations: 5}})
			p := s.connect(t, enc)
			ask := func(since zeolite.TID) (zeolite.TID, []zeolite.OID, bool) {
				t.Helper()
				v := p.call("getInvalidations", since)
				if v == nil {
					return 0, nil, false
				}
				pair := tupleOf(t, v)
				oids := []zeolite.OID{}
				for _, o := range tupleOf(t, pair[1]) {
					oids = append(oids, oidOf(t, o))
				}
				slices.Sort(oids)
				return tidOf(t, pair[0]), oids, true
			}
			if tid, oids, ok := ask(0); !ok || tid != 0 || len(oids) != 0 {
				t.Errorf("empty storage: %v %v %v", tid, oids, ok)
			}
			var tids []zeolite.TID
			for i := range 4 {
				tids = append(tids, p.commit(zeolite.OID(i+1), 0, record("x")))
			}
			last := tids[3]
			for i, want := range [][]zeolite.OID{{2, 3, 4}, {3, 4}, {4}, {}} {
				if tid, oids, ok := ask(tids[i]); !ok || tid != last || !slices.Equal(oids, want) {
					t.Errorf("since transaction %d: %v %v %v, want %v %v", i, tid, oids, ok, last, want)
				}
			}
			if tid, oids, ok := ask(last + 5); !ok || tid != last || len(oids) != 0 {
				t.Errorf("newer than the last: %v %v %v", tid, oids, ok)
			}
			if tid, oids, ok := ask(tids[1] - 1); !ok || tid != last || len(oids) != 3 {
				t.Errorf("between two: %v %v %v", tid, oids, ok)
			}
			if _, oids, ok := ask(0); !ok || len(oids) != 4 {
				t.Errorf("all: %v %v", oids, ok)
			}
			p.commit(9, 0, record("x"))
			p.commit(10, 0, record("x"))
			if _, oids, ok := ask(0); ok {
				t.Errorf("more than the limit: %v, want None", oids)
			}
		})
	})
	t.Run("age", func(t *testing.T) {
		s := startServer(t, newMemory(t), Options{InvalidationAge: time.Hour})
		p := s.connect(t, zrpc.Pickle)
		tid := p.commit(1, 0, record("x"))
		old := zeolite.TIDFromTime(time.Now().Add(-2 * time.Hour))
		if v := p.call("getInvalidations", old); v != nil {
			t.Errorf("too old: %v, want None", v)
		}
		recent := zeolite.TIDFromTime(time.Now().Add(-30 * time.Minute))
		if v := p.call("getInvalidations", recent); v == nil {
			t.Error("recent: None")
		}
		if v := p.call("getInvalidations", tid); v == nil {
			t.Error("up to date: None")
		}
	})
	t.Run("age and queue", func(t *testing.T) {
		s := startServer(t, newMemory(t), Options{InvalidationAge: time.Hour, InvalidationQueueSize: 2})
		p := s.connect(t, zrpc.Pickle)
		old := zeolite.TIDFromTime(time.Now().Add(-60 * time.Hour))
		for i, known := range []bool{true, true, false} {
			p.commit(zeolite.OID(i+1), 0, record("x"))
			v := p.call("getInvalidations", old)
			if (v != nil) != known || known && len(tupleOf(t, tupleOf(t, v)[1])) != i+1 {
				t.Errorf("%d transactions after a weekend: %v", i+1, v)
			}
		}
	})
}
