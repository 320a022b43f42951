package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/tests/peers"
)

const (
	killObjects = 12
	// So that a few hundred records make the journal be written anew.
	killRecord = 8 << 10
	killCache  = 6 * killRecord
)

// killOptions are those of the clients of TestCacheFileKilled.
func killOptions(addr, path string) Options {
	return Options{Addresses: []string{addr}, CachePath: path, CacheSize: killCache, Logger: slog.New(slog.DiscardHandler)}
}

// cacheUser is a process that commits and loads at random, with a persistent
// cache, until it is killed. It prints a line after each step.
func cacheUser(addr, path, seed string) {
	s, err := Open(context.Background(), killOptions(addr, path))
	if err != nil {
		panic(err)
	}
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		panic(err)
	}
	rnd := rand.New(rand.NewPCG(n, 1))
	for {
		oid := zeolite.OID(rnd.IntN(killObjects))
		var err error
		switch rnd.IntN(4) {
		case 0:
			err = changeOne(s, rnd, oid)
		case 1:
			_, err = s.LoadBefore(context.Background(), oid, s.LastTID()-zeolite.TID(rnd.Uint64N(1e8)))
		default:
			_, err = s.LoadBefore(context.Background(), oid, zeolite.MaxTID)
		}
		if err != nil && !isAbsent(err) {
			panic(err)
		}
		fmt.Println()
	}
}

// changeOne commits a revision of an object, unless somebody else is first.
func changeOne(s zeolite.Storage, rnd *rand.Rand, oid zeolite.OID) error {
	ctx := context.Background()
	rev, err := s.LoadBefore(ctx, oid, zeolite.MaxTID)
	if err != nil && !isAbsent(err) {
		return err
	}
	data := make([]byte, killRecord)
	copy(data, fmt.Appendf(nil, "%v %d", oid, rnd.Uint64()))
	tx, err := s.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		return err
	}
	defer tx.Abort()
	if err := tx.Store(ctx, oid, rev.TID, data); err != nil {
		return err
	}
	err = tx.Vote(ctx)
	if err == nil {
		_, err = tx.Finish(ctx, nil)
	}
	if errors.As(err, new(*zeolite.ConflictError)) {
		return nil
	}
	return err
}

// A process is killed, again and again, at random moments while it and another
// client commit. What its cache file says then is right as of the transaction
// up to which it goes, and a client that opens it serves nothing stale.
func TestCacheFileKilled(t *testing.T) {
	rounds := 12
	if peers.Long() {
		rounds = 300
	}
	noLeaks(t)
	back := newMemory(t)
	srv := serve(t, back, server.Options{}, "tcp")
	other := open(t, testOptions(t, srv.addr))
	path := filepath.Join(t.TempDir(), "cache")
	rnd := rand.New(rand.NewPCG(1, 2))
	kept := 0
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("ZEOLITE_TEST_AS=cache %s %s %d", srv.addr, path, round))
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		steps := bufio.NewScanner(out)
		for n := rnd.IntN(400); n >= 0; n-- {
			if !steps.Scan() {
				t.Fatalf("round %d: the process ended by itself: %v", round, cmd.Wait())
			}
			if n%7 == 0 {
				must(t, changeOne(other, rnd, zeolite.OID(rnd.IntN(killObjects))))
			}
		}
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		kept += checkCacheFile(t, back, path)
		// It comes back to a database that has changed.
		for range rnd.IntN(3) {
			must(t, changeOne(other, rnd, zeolite.OID(rnd.IntN(killObjects))))
		}
		s, err := Open(t.Context(), killOptions(srv.addr, path))
		must(t, err)
		must(t, s.Sync(t.Context()))
		for oid := range zeolite.OID(killObjects) {
			want, err := back.LoadBefore(t.Context(), oid, zeolite.MaxTID)
			if isAbsent(err) {
				continue
			}
			must(t, err)
			wantCurrent(t, s, oid, want.TID, string(want.Data))
		}
		must(t, s.Close())
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	t.Logf("%d kills, after which %d revisions were still cached", rounds, kept)
	if kept == 0 {
		t.Error("nothing was ever left in the cache file")
	}
}

// checkCacheFile reads a copy of a cache file and compares it with the server.
func checkCacheFile(t *testing.T, back *memory.Storage, path string) (kept int) {
	t.Helper()
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0 // it was killed before the first one was there
	}
	must(t, err)
	copied := filepath.Join(t.TempDir(), "copy")
	must(t, os.WriteFile(copied, content, 0o666))
	c := newCache(killCache)
	must(t, c.openJournal(copied, "1", quiet(t)))
	defer func() { must(t, c.closeJournal()) }()
	for _, e := range c.entriesLocked() {
		kept++
		want, err := back.LoadBefore(t.Context(), e.oid, e.tid+1)
		if err != nil || want.TID != e.tid || string(want.Data) != string(e.data) {
			t.Errorf("the file has a revision %v of %v that differs from the server's %v (%v)", e.tid, e.oid, want.TID, err)
		}
		// One that is called current may have ended after the file did.
		if e.end != want.End && !(e.end == 0 && want.End > c.tid) {
			t.Errorf("the file, which goes up to %v, has a revision %v of %v that ends at %v; it ended at %v",
				c.tid, e.tid, e.oid, e.end, want.End)
		}
	}
	return kept
}
