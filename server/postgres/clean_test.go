package postgres

import (
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// age makes all uploads old.
func (a *admin) age() {
	a.Helper()
	a.exec("UPDATE zeolite_upload SET started = started - interval '1 day'")
}

// The removal of orphans does not keep a server from hearing of commits, however
// long it takes.
func TestListenWhileCleaning(t *testing.T) {
	dsn := pgtest.Database(t)
	a, blocker, other := newAdmin(t, dsn), newAdmin(t, dsn), storage(t, Options{DSN: dsn})
	dead := opened(t, Options{DSN: dsn})
	uploaded(t, dead, noise(3))
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	a.age()
	blocker.exec("BEGIN")
	blocker.exec("LOCK TABLE zeolite_upload IN ACCESS EXCLUSIVE MODE")
	s := opened(t, Options{DSN: dsn, PollInterval: 5 * time.Millisecond, houseTime: 5 * time.Millisecond, answerTime: time.Hour})
	defer s.Close()
	cleaners := func(state string) int {
		return a.number("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1 AND "+state, appClean)
	}
	eventually(t, "the removal waits", func() bool { return cleaners("wait_event_type = 'Lock'") == 1 })
	for oid := range 3 {
		tid := put(t, other, store(t.Context(), zeolite.OID(oid), 0, "other"))
		eventually(t, "the commit is heard of", func() bool { return s.LastTID() == tid })
	}
	if n := cleaners("true"); n != 1 {
		t.Errorf("%d removals at once", n)
	}
	blocker.exec("COMMIT")
	eventually(t, "the orphan is removed", func() bool { return a.number("SELECT count(*) FROM pg_largeobject_metadata") == 0 })
	// One that is under way ends with the storage.
	blocker.exec("BEGIN")
	blocker.exec("LOCK TABLE zeolite_upload IN ACCESS EXCLUSIVE MODE")
	eventually(t, "another waits", func() bool { return cleaners("wait_event_type = 'Lock'") == 1 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	blocker.exec("COMMIT")
}

// A server that was only away is not kept from showing that it lives for as long as
// all its blobs take: a transaction removes few, by their bytes.
func TestOrphansInParts(t *testing.T) {
	dsn := pgtest.Database(t)
	a := newAdmin(t, dsn)
	dead := opened(t, Options{DSN: dsn})
	for range 5 {
		uploaded(t, dead, noise(100))
	}
	uploaded(t, dead, noise(1000))
	a.exec("SELECT lo_unlink(min(loid)) FROM zeolite_upload") // somebody was quicker
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	a.age()
	a.exec("CREATE TABLE removal (xid bigint)")
	a.exec(`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO removal VALUES (txid_current()); RETURN NULL; END'`)
	a.exec("CREATE TRIGGER note AFTER DELETE ON zeolite_upload FOR EACH STATEMENT EXECUTE FUNCTION note()")
	s := opened(t, Options{DSN: dsn})
	defer s.Close()
	s.batches.blobs = 250
	eventually(t, "the dead server's lock is gone", func() bool {
		if _, err := s.removeOrphans(t.Context(), a.conn); err != nil {
			t.Fatal(err)
		}
		return a.number("SELECT count(*) FROM zeolite_upload") == 0
	})
	if n := a.number("SELECT count(*) FROM pg_largeobject_metadata"); n != 0 {
		t.Errorf("%d large objects are left", n)
	}
	// At best 0+100+100, 100+100, 1000; the order is the database's.
	if n := a.number("SELECT count(DISTINCT xid) FROM removal"); n < 3 {
		t.Errorf("%d transactions removed them, want at least 3", n)
	}
}

// When the database has been started again, a server that is back before another
// does not take its uploads for orphans.
func TestNoOrphansAfterRestart(t *testing.T) {
	direct := pgtest.Database(t)
	p, dsn := newProxy(t, direct)
	a, slow := newAdmin(t, direct), storage(t, Options{DSN: dsn})
	fast := storage(t, Options{DSN: direct, PollInterval: 5 * time.Millisecond, OrphanAge: time.Millisecond})
	a.listening(2)
	up := uploaded(t, slow, noise(3))
	a.age()
	p.setDown(true)
	eventually(t, "one has gone", func() bool { return len(a.pids(appFollow)) == 1 })
	a.kill(appFollow)
	eventually(t, "the other listens again", func() bool { return fast.Stats().Listened == 2 })
	tid := put(t, storage(t, Options{DSN: direct}), store(t.Context(), 1, 0, "one"))
	eventually(t, "it looks, and has kept house", func() bool { return fast.LastTID() == tid && !fast.cleaning.busy.Load() })
	p.setDown(false)
	put(t, slow, func(tx zeolite.Txn) error { return tx.StoreBlob(t.Context(), 2, 0, storagetest.BlobRecord(), up) })
}
