package client

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/tests/faults"
)

// model is what a cache may say: all revisions of all objects.
type model struct {
	last    zeolite.TID
	objects map[zeolite.OID][]entry
}

// check asks a cache for everything up to its tid.
func (m *model) check(t *testing.T, c *cache) (hits int) {
	t.Helper()
	for oid, list := range m.objects {
		for before := zeolite.TID(1); before <= c.tid+1; before++ {
			rev, ok := c.get(oid, before)
			if !ok {
				continue
			}
			hits++
			var want *entry
			for i := range list {
				if list[i].tid < before {
					want = &list[i]
				}
			}
			if want == nil || want.tid != rev.TID || string(want.data) != string(rev.Data) {
				t.Errorf("%v before %v: got %v %q, want %+v", oid, before, rev.TID, rev.Data, want)
			}
		}
	}
	return hits
}

// step commits at random, and tells a cache of it as a connection would.
func (m *model) step(c *cache, rnd *rand.Rand) {
	m.last++
	var oids []zeolite.OID
	for range rnd.IntN(3) {
		oid := zeolite.OID(rnd.IntN(6))
		if list := m.objects[oid]; len(list) > 0 && list[len(list)-1].tid == m.last {
			continue
		}
		oids = append(oids, oid)
		m.objects[oid] = append(m.objects[oid], entry{tid: m.last, data: fmt.Appendf(nil, "%v at %v", oid, m.last)})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case rnd.IntN(30) == 0:
		c.clearLocked(m.last)
	case rnd.IntN(10) == 0:
		c.forgetLocked(m.last, oids)
	default:
		c.applyLocked(m.last, oids)
	}
	for range 2 {
		oid := zeolite.OID(rnd.IntN(6))
		list := m.objects[oid]
		if len(list) == 0 {
			continue
		}
		i := rnd.IntN(len(list))
		rev := zeolite.Revision{Data: list[i].data, TID: list[i].tid}
		if i+1 < len(list) {
			rev.End = list[i+1].tid
		}
		c.insertLocked(oid, rev)
	}
}

// Whatever a cache says is right, and it keeps to its size.
func TestCacheModel(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		c := newCache(int64(3+rnd.IntN(30)) * (entryOverhead + 60))
		m := model{objects: map[zeolite.OID][]entry{}}
		hits := 0
		for range 60 {
			m.step(c, rnd)
			hits += m.check(t, c)
			size := int64(0)
			for _, e := range c.entriesLocked() {
				size += e.cost()
			}
			if size != c.size || size > c.limit {
				t.Fatalf("size %d, counted %d, limit %d", size, c.size, c.limit)
			}
		}
		if hits == 0 {
			t.Error("the cache never knew anything")
		}
	}
}

// Every beginning of a cache file, and every file with a wrong byte, gives a
// cache that is right as of some time, or an empty one.
func TestCacheFileCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	rnd := rand.New(rand.NewPCG(7, 7))
	c := newCache(1 << 20)
	must(t, c.openJournal(path, "1", slog.New(slog.DiscardHandler)))
	m := model{objects: map[zeolite.OID][]entry{}}
	for range 60 {
		m.step(c, rnd)
	}
	last := c.tid
	must(t, c.closeJournal())
	whole, err := os.ReadFile(path)
	must(t, err)
	reopen := func(content []byte) *cache {
		must(t, os.WriteFile(path, content, 0o666))
		c := newCache(1 << 20)
		must(t, c.openJournal(path, "1", slog.New(slog.DiscardHandler)))
		m.check(t, c)
		must(t, c.closeJournal())
		return c
	}
	if c := reopen(whole); c.tid != last || len(c.objects) == 0 {
		t.Errorf("reopened: tid %v, %d objects; want %v", c.tid, len(c.objects), last)
	}
	for n := 0; n < len(whole); n += 1 + rnd.IntN(13) {
		reopen(whole[:n])
		broken := append([]byte(nil), whole...)
		broken[n] ^= 1 << rnd.IntN(8)
		reopen(broken)
	}
}

// A cache file is for one process, and for one storage.
func TestCacheFileOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	log := slog.New(slog.DiscardHandler)
	a, b := newCache(1<<20), newCache(1<<20)
	must(t, a.openJournal(path, "1", log))
	if err := b.openJournal(path, "1", log); err == nil {
		t.Error("a cache file was opened twice")
	}
	a.mu.Lock()
	a.applyLocked(5, nil)
	a.insertLocked(1, zeolite.Revision{TID: 3, Data: []byte("x")})
	a.mu.Unlock()
	must(t, a.closeJournal())
	must(t, b.openJournal(path, "2", log))
	if len(b.objects) != 0 || b.tid != 0 {
		t.Error("the cache of another storage was used")
	}
	must(t, b.closeJournal())
}

// A cache file does not grow for ever.
func TestCacheFileRewritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	c := newCache(100 << 10)
	must(t, c.openJournal(path, "1", slog.New(slog.DiscardHandler)))
	for i := range 2000 {
		c.mu.Lock()
		c.applyLocked(zeolite.TID(i+1), []zeolite.OID{1})
		c.insertLocked(1, zeolite.Revision{TID: zeolite.TID(i + 1), Data: make([]byte, 10<<10)})
		c.mu.Unlock()
		if i%100 == 0 { // what waits is not bounded by the file
			until(t, "the journal is written", func() bool {
				j := c.journal
				j.mu.Lock()
				defer j.mu.Unlock()
				return len(j.pending) == 0
			})
		}
	}
	must(t, c.closeJournal())
	st, err := os.Stat(path)
	must(t, err)
	if st.Size() > 5<<20 {
		t.Errorf("the file of a cache of 100 KiB has %d bytes", st.Size())
	}
	d := newCache(100 << 10)
	must(t, d.openJournal(path, "1", slog.New(slog.DiscardHandler)))
	if rev, ok := d.get(1, 2001); !ok || rev.TID != 2000 {
		t.Errorf("after all that: %v, %t", rev.TID, ok)
	}
	must(t, d.closeJournal())
}

// Each branch of the verification of a cache that was away.
func TestVerify(t *testing.T) {
	for name, branch := range map[string]struct {
		away func(t *testing.T, writer *Storage, serial zeolite.TID) zeolite.TID
		// asks says whether getInvalidations is called; keeps, whether what
		// did not change is still cached.
		asks, keeps, silent bool
	}{
		"equal": {
			away:  func(_ *testing.T, _ *Storage, serial zeolite.TID) zeolite.TID { return serial },
			keeps: true,
		},
		"invalidations": {
			away: func(t *testing.T, w *Storage, serial zeolite.TID) zeolite.TID {
				return put(t, w, 1, put(t, w, 1, serial, "between"), "changed")
			},
			asks: true, keeps: true,
		},
		"too old": {
			away: func(t *testing.T, w *Storage, serial zeolite.TID) zeolite.TID {
				return put(t, w, 1, serial, "changed")
			},
			asks: true, silent: true,
		},
	} {
		for _, persistent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s persistent=%t", name, persistent), func(t *testing.T) {
				noLeaks(t)
				opt := server.Options{}
				if branch.silent {
					opt.InvalidationAge = 1 // a nanosecond: it can never tell
				}
				srv := serve(t, newMemory(t), opt, "tcp")
				writer := open(t, testOptions(t, srv.addr))
				proxy, err := faults.NewProxy(srv.addr)
				must(t, err)
				defer func() { proxy.Close() }()
				var target atomic.Pointer[string]
				aim := func(p *faults.Proxy) {
					addr := p.Addr().String()
					target.Store(&addr)
				}
				aim(proxy)
				o := testOptions(t, "the:proxy")
				o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, network, *target.Load())
				}
				if persistent {
					o.CachePath = filepath.Join(t.TempDir(), "cache")
				}
				constant := put(t, writer, 2, 0, "constant")
				first := put(t, writer, 1, 0, "first")
				s := open(t, o)
				wantCurrent(t, s, 1, first, "first")
				wantCurrent(t, s, 2, constant, "constant")
				if persistent {
					must(t, s.Close())
				} else {
					proxy.Close()
				}
				serial := branch.away(t, writer, first)
				if !persistent {
					// It finds another way to the server.
					if proxy, err = faults.NewProxy(srv.addr); err != nil {
						t.Fatal(err)
					}
					aim(proxy)
				} else {
					proxy.Reset()
					s = open(t, o)
				}
				must(t, s.Sync(t.Context()))
				text := "first"
				if serial != first {
					text = "changed"
				}
				wantCurrent(t, s, 1, serial, text)
				wantCurrent(t, s, 2, constant, "constant")
				counts := proxy.Counts(faults.ClientToServer)
				if asked := counts["getInvalidations"] > 0; asked != branch.asks {
					t.Errorf("getInvalidations was called %d times", counts["getInvalidations"])
				}
				loads := 2
				if branch.keeps {
					loads--
				}
				if serial == first {
					loads--
				}
				if counts["loadBefore"] != loads {
					t.Errorf("%d loads, want %d", counts["loadBefore"], loads)
				}
			})
		}
	}
}

// A cache that knows more than the server is not used.
func TestVerifyServerBehind(t *testing.T) {
	noLeaks(t)
	back := memory.New(memory.Options{})
	srv := serve(t, back, server.Options{}, "tcp")
	o := testOptions(t, srv.addr)
	o.CachePath = filepath.Join(t.TempDir(), "cache")
	s := open(t, o)
	put(t, s, 1, 0, "x")
	must(t, s.Close())
	srv.stop()
	must(t, back.Close())
	srv.storage = newMemory(t)
	srv.start()
	o.WaitTimeout = 50e6
	if _, err := Open(t.Context(), o); err == nil {
		t.Error("a server that is behind the cache was accepted")
	}
}
