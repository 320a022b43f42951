package postgres

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// everything a pack has to do with: old revisions, blobs, deletions, what came
// back from one, garbage in chains, and an undo. The result is the TID to pack
// to; there is more after it.
func historyToPack(t *testing.T, s *Storage) (packTo zeolite.TID) {
	t.Helper()
	ctx := t.Context()
	serials := map[zeolite.OID]zeolite.TID{}
	do := func(fill func(tx zeolite.Txn) error, oids ...zeolite.OID) zeolite.TID {
		t.Helper()
		tid := put(t, s, fill)
		for _, oid := range oids {
			serials[oid] = tid
		}
		return tid
	}
	write := func(oid zeolite.OID, text string, refs ...zeolite.OID) zeolite.TID {
		t.Helper()
		return do(func(tx zeolite.Txn) error {
			return tx.Store(ctx, oid, serials[oid], storagetest.Record(text, refs...))
		}, oid)
	}
	blob := func(oid zeolite.OID, size int) {
		t.Helper()
		up := uploaded(t, s, noise(size))
		do(func(tx zeolite.Txn) error {
			return tx.StoreBlob(ctx, oid, serials[oid], storagetest.BlobRecord(), up)
		}, oid)
	}
	remove := func(oid zeolite.OID) {
		t.Helper()
		do(func(tx zeolite.Txn) error { return tx.Delete(ctx, oid, serials[oid]) }, oid)
	}
	write(0, "root", 1, 2, 3, 4, 5)
	for i := range 4 {
		write(1, fmt.Sprint("one ", i))
		blob(2, 1000+i)
		blob(10, 2000+i) // nothing refers to it
		write(11, fmt.Sprint("garbage ", i), 12)
	}
	write(12, "garbage below garbage", 10)
	write(3, "to be deleted")
	remove(3)
	write(4, "to come back")
	remove(4)
	write(4, "came back")
	write(13, "deleted garbage")
	remove(13)
	undone := write(1, "to be undone")
	do(func(tx zeolite.Txn) error {
		_, err := tx.Undo(ctx, undone)
		return err
	})
	serials[1], _ = s.CurrentTID(ctx, 1)
	write(5, "gone at the pack")
	remove(5)
	write(20, "garbage that is linked later", 21)
	write(21, "below it")
	packTo = s.LastTID()
	write(5, "back after the pack")
	blob(2, 5000)
	write(0, "root later", 1, 2, 3, 4, 5, 20)
	return packTo
}

// view is what readers see who look at the database as it was after the pack's
// moment, or later: each object's revisions, and the blobs of them.
func view(t *testing.T, s *Storage, packTo zeolite.TID) map[string]string {
	t.Helper()
	seen := map[string]string{}
	for _, at := range []zeolite.TID{packTo, s.LastTID()} {
		for _, oid := range []zeolite.OID{0, 1, 2, 3, 4, 5, 20, 21} {
			name := fmt.Sprintf("%v as of %v", oid, at)
			rev, err := s.LoadBefore(t.Context(), oid, at+1)
			if err != nil {
				// Whether an object is gone, was never there, or will come
				// later is not for a pack to keep.
				if !errors.As(err, new(*zeolite.NotFoundError)) && !errors.Is(err, zeolite.ErrNotYet) {
					t.Fatalf("%s: %v", name, err)
				}
				seen[name] = "none"
				continue
			}
			seen[name] = fmt.Sprintf("%v %x", rev.TID, md5.Sum(rev.Data))
			if oid != 2 {
				continue
			}
			b := openBlob(t, s, oid, rev.TID)
			data, err := readAll(b, 1<<20)
			if err != nil {
				t.Fatalf("the blob of %s: %v", name, err)
			}
			b.Close()
			seen[name] += fmt.Sprintf(" %x", md5.Sum(data))
		}
	}
	return seen
}

// rowsOf is what all tables have, but the numbers of large objects.
func rowsOf(t *testing.T, dsn string) string {
	t.Helper()
	var all []string
	for _, query := range []string{
		"SELECT tid, packed, is_empty FROM transaction ORDER BY 1",
		"SELECT zoid, tid, prev_tid, md5, state_size, md5(state) FROM object_state ORDER BY 1, 2",
		"SELECT * FROM current_object ORDER BY 1",
		"SELECT zoid, tid, chunk_num, md5(lo_get(chunk)) FROM blob_chunk ORDER BY 1, 2",
		"SELECT count(*) FROM pg_largeobject_metadata",
		"SELECT count(*) FROM zeolite_upload",
	} {
		all = append(all, query+":\n"+strings.Join(pgtest.Shared(t).Query(t, dsn, query), "\n"))
	}
	return strings.Join(all, "\n")
}

// A pack that ends after any of its steps has taken nothing that a reader can
// ask for, and leaves a database that the next server opens and packs to the
// same result as if nothing had happened.
func TestPackFailsAfterEveryStep(t *testing.T) {
	cluster, original := pgtest.Shared(t), pgtest.Database(t)
	s := opened(t, Options{DSN: original})
	packTo := historyToPack(t, s)
	want := view(t, s, packTo)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	// pack packs a database, and is ended after so many steps, if that many
	// are needed.
	pack := func(t *testing.T, dsn string, steps int) (ended bool) {
		s, a := opened(t, Options{DSN: dsn}), newAdmin(t, dsn)
		defer a.conn.Close(t.Context())
		s.batches = batches{sweep: 6, blobs: 3000, mark: 6}
		done := 0
		err := s.Pack(t.Context(), packTo, zeolite.PackOptions{Progress: func(zeolite.PackProgress) {
			if done++; done == steps {
				ended = a.kill(appPack) == 1
			}
		}})
		if ended != (err != nil) || (err != nil && !errors.As(err, new(*zeolite.StorageError))) {
			t.Fatalf("ended after step %d: %v; Pack: %v", steps, ended, err)
		}
		if got := view(t, s, packTo); !maps.Equal(got, want) {
			t.Errorf("readers see %v, not %v", got, want)
		}
		for info, err := range s.UndoLog(t.Context()) {
			if err != nil {
				t.Errorf("the undo log: %v, %v", info, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		// The lock of the pack goes with the process in the database.
		eventually(t, "the pack has left the database", func() bool { return len(a.pids(appPack)) == 0 })
		return ended
	}
	const never = 1 << 30
	once := cluster.Copy(t, original)
	if pack(t, once, never) {
		t.Fatal("it was ended")
	}
	result := rowsOf(t, once)
	if n := strings.Count(rowsOf(t, original), "\n"); n-strings.Count(result, "\n") < 20 {
		t.Fatalf("the pack removed hardly anything:\n%s", result)
	}
	steps := 1
	for ; ; steps++ {
		dsn := cluster.Copy(t, original)
		if !pack(t, dsn, steps) {
			break
		}
		// A third server packs after the second was ended too, elsewhere.
		if steps%3 == 0 {
			pack(t, dsn, 1+steps/2)
		}
		pack(t, dsn, never)
		if got := rowsOf(t, dsn); got != result {
			t.Fatalf("ended after step %d and packed again:\n%s\nwant\n%s", steps, got, result)
		}
	}
	if steps < 12 {
		t.Errorf("the pack has only %d steps", steps)
	}
	t.Logf("ended after each of %d steps", steps-1)
}

// A pack passes over what a voted transaction is about to write, and neither
// waits for the other.
func TestPackBesideVoted(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := storage(t, Options{DSN: dsn}), newAdmin(t, dsn)
	ctx := t.Context()
	put(t, s, func(tx zeolite.Txn) error { return tx.Store(ctx, 0, 0, storagetest.Record("root")) })
	garbage := put(t, s, func(tx zeolite.Txn) error {
		return errors.Join(tx.Store(ctx, 1, 0, storagetest.Record("one")), tx.Store(ctx, 2, 0, storagetest.Record("two")))
	})
	voted, err := s.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		t.Fatal(err)
	}
	defer voted.Abort()
	if err := errors.Join(store(ctx, 1, garbage, "again")(voted), voted.Vote(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := s.Pack(ctx, zeolite.MaxTID, zeolite.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	kept := func() []zeolite.OID {
		var oids []zeolite.OID
		for oid := range zeolite.OID(3) {
			if _, err := s.LoadBefore(ctx, oid, zeolite.MaxTID); err == nil {
				oids = append(oids, oid)
			}
		}
		return oids
	}
	if got := kept(); !slices.Equal(got, []zeolite.OID{0, 1}) {
		t.Errorf("after the pack there are %v", got)
	}
	tid, err := voted.Finish(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if rev, err := s.LoadBefore(ctx, 1, zeolite.MaxTID); err != nil || rev.TID != tid {
		t.Errorf("loaded %v, %v", rev.TID, err)
	}
	if err := s.Pack(ctx, zeolite.MaxTID, zeolite.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := kept(); !slices.Equal(got, []zeolite.OID{0}) {
		t.Errorf("after another pack there are %v", got)
	}
	if n := a.number("SELECT count(*) FROM object_state"); n != 1 {
		t.Errorf("%d revisions are left", n)
	}
}

// A load that a commit and a pack overtake finds the revision that is current
// then.
func TestLoadOvertakenByPack(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a, blocker := storage(t, Options{DSN: dsn, PollInterval: time.Hour}), newAdmin(t, dsn), newAdmin(t, dsn)
	for _, load := range []func() (zeolite.TID, error){
		func() (zeolite.TID, error) {
			rev, err := s.LoadBefore(t.Context(), 1, zeolite.MaxTID)
			return rev.TID, err
		},
		func() (zeolite.TID, error) { return s.CurrentTID(t.Context(), 1) },
		func() (tid zeolite.TID, err error) {
			infos, err := s.History(t.Context(), 1, 1)
			if err == nil {
				tid = infos[0].TID
			}
			return tid, err
		},
	} {
		first := put(t, s, store(t.Context(), 1, s.LastTID(), "first"))
		second := first + 1
		blocker.exec("BEGIN")
		blocker.exec("LOCK TABLE object_state IN ACCESS EXCLUSIVE MODE")
		var found zeolite.TID
		loaded := make(chan error, 1)
		go func() {
			var err error
			found, err = load()
			loaded <- err
		}()
		eventually(t, "the load waits", func() bool { return a.number("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1 })
		blocker.exec("INSERT INTO transaction (tid, username, description) VALUES ($1, '', '')", int64(second))
		blocker.exec("INSERT INTO object_state SELECT zoid, $1, 0, md5, state_size, state FROM object_state WHERE tid = $2", int64(second), int64(first))
		blocker.exec("UPDATE current_object SET tid = $1", int64(second))
		blocker.exec("DELETE FROM object_state WHERE tid <= $1", int64(first))
		s.publisher.mu.Lock()
		s.publisher.show(second, []zeolite.OID{1}, nil)
		s.publisher.mu.Unlock()
		blocker.exec("COMMIT")
		if err := <-loaded; err != nil || found != second {
			t.Errorf("found %v, %v, want %v", found, err, second)
		}
	}
}

// A server that has not heard yet of the commit that another one packs to does
// not take an object for missing of which it showed what is packed away.
func TestBehindPack(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := storage(t, Options{DSN: dsn, PollInterval: time.Hour}), newAdmin(t, dsn)
	put(t, s, store(t.Context(), 0, 0, "root"))
	first := put(t, s, store(t.Context(), 1, 0, "first"))
	second := first + 1
	notFound := func(err error) bool { return errors.As(err, new(*zeolite.NotFoundError)) }
	func() {
		s.publisher.mu.Lock() // it hears of nothing
		defer s.publisher.mu.Unlock()
		a.exec("INSERT INTO transaction (tid, username, description) VALUES ($1, '', '')", int64(second))
		a.exec("INSERT INTO object_state SELECT zoid, $1, 0, md5, state_size, state FROM object_state WHERE tid = $2", int64(second), int64(first))
		a.exec("UPDATE current_object SET tid = $1 WHERE zoid = 1", int64(second))
		a.exec("DELETE FROM object_state WHERE tid = $1", int64(first))
		for _, before := range []zeolite.TID{first, first + 1} {
			if _, err := s.LoadBefore(t.Context(), 1, before); !errors.Is(err, zeolite.ErrNotYet) {
				t.Errorf("LoadBefore(%v): %v, want ErrNotYet", before, err)
			}
		}
		for _, before := range []zeolite.TID{0, zeolite.MaxTID} {
			if _, err := s.LoadBefore(t.Context(), 1, before); !notFound(err) {
				t.Errorf("LoadBefore(%v): %v", before, err)
			}
		}
		if _, err := s.CurrentTID(t.Context(), 1); !notFound(err) {
			t.Errorf("CurrentTID: %v", err)
		}
		if _, err := s.History(t.Context(), 1, 1); !notFound(err) {
			t.Errorf("History: %v", err)
		}
	}()
	rec, err := s.NextRecord(t.Context(), 0)
	if err != nil || rec.OID != 0 || !rec.More || rec.Next != 1 {
		t.Errorf("the walk begins with %v, %v", rec, err)
	}
	rec, err = s.NextRecord(t.Context(), 1)
	if err != nil || rec.OID != 1 || rec.TID != second || rec.More || s.LastTID() != second {
		t.Errorf("the walk goes on with %v, %v; LastTID is %v", rec, err, s.LastTID())
	}
}

// What is not there, or gone, is looked for once, however fast others commit; and
// what is only there behind the horizon, a few times.
func TestMissingWhileOthersCommit(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := storage(t, Options{DSN: dsn, PollInterval: time.Hour}), newAdmin(t, dsn)
	last := put(t, s, store(t.Context(), 1, 0, "first"))
	put(t, s, func(tx zeolite.Txn) error { return tx.Delete(t.Context(), 1, last) })
	a.exec("INSERT INTO transaction (tid, username, description) VALUES ($1, '', '')", int64(zeolite.MaxTID)-1)
	a.exec("INSERT INTO object_state SELECT 2, $1, 0, md5, state_size, state FROM object_state WHERE tid = $2", int64(zeolite.MaxTID)-1, int64(last))
	stop := make(chan struct{})
	var commits sync.WaitGroup
	commits.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				s.publisher.mu.Lock()
				s.publisher.show(s.LastTID()+1, nil, nil)
				s.publisher.mu.Unlock()
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for oid, most := range map[zeolite.OID]int64{1: 1, 2: overtakenMax, 3: 1} {
		for name, load := range map[string]func() error{
			"LoadBefore": func() error { _, err := s.LoadBefore(ctx, oid, zeolite.MaxTID); return err },
			"CurrentTID": func() error { _, err := s.CurrentTID(ctx, oid); return err },
		} {
			before := s.loads.Stat().AcquireCount()
			if err := load(); !errors.As(err, new(*zeolite.NotFoundError)) {
				t.Errorf("%s of %v: %v", name, oid, err)
			}
			if n := s.loads.Stat().AcquireCount() - before; n > most {
				t.Errorf("%s of %v asked %d times, want at most %d", name, oid, n, most)
			}
		}
	}
	close(stop)
	commits.Wait()
}
