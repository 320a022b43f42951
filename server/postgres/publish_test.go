package postgres

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// votedPacked is a copy of a transaction that was packed, which has voted.
func votedPacked(t *testing.T, s zeolite.Storage, oid zeolite.OID) zeolite.Txn {
	t.Helper()
	tx, err := s.Begin(t.Context(), zeolite.TxnMeta{Status: 'p', TID: s.LastTID() + 1<<32})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tx.Abort)
	if err := tx.Restore(t.Context(), oid, storagetest.Record("packed"), 0); err != nil {
		t.Fatal(err)
	}
	if err := tx.Vote(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tx
}

// Whoever watches is told that changes were lost before it is told of the
// transaction that ends the loss: or nobody could register until somebody
// commits.
func TestLostBeforePublished(t *testing.T) {
	dsn := pgtest.Database(t)
	opts := Options{DSN: dsn, PollInterval: time.Hour}
	s, other := watch(t, storage(t, opts)), storage(t, opts)
	last := finish(t, votedPacked(t, other, 1))
	if err := s.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.lost != 1 || s.gap || s.LastTID() != last {
		t.Errorf("told of %d losses, and that %v; LastTID is %v, want %v", s.lost, s.gap, s.LastTID(), last)
	}
}

// A packed transaction that was copied through this server is no loss, also if
// it is found in the database before its Finish publishes it.
func TestOwnPackedTransaction(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := watch(t, storage(t, Options{DSN: dsn, PollInterval: time.Hour})), newAdmin(t, dsn)
	tx := votedPacked(t, s, 1)
	done := make(chan error, 1)
	func() {
		s.publisher.mu.Lock()
		defer s.publisher.mu.Unlock()
		go func() {
			_, err := tx.Finish(t.Context(), s.publish)
			done <- err
		}()
		eventually(t, "it is committed", func() bool { return a.number("SELECT count(*) FROM transaction WHERE tid > 0") == 1 })
		if err := s.catchUp(t.Context(), changesOn(a.conn), zeolite.MaxTID); err != nil {
			t.Error(err)
		}
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s.lost != 0 || s.count() != 1 {
		t.Errorf("told of %d losses, %d transactions", s.lost, s.count())
	}
}

// Whoever waits for somebody else to publish, whom the database keeps waiting,
// waits no longer than it wants to.
func TestCatchUpGivesUp(t *testing.T) {
	s := storage(t, Options{DSN: pgtest.Database(t), PollInterval: time.Hour})
	s.publisher.mu.Lock()
	defer s.publisher.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.CatchUp(ctx) }()
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits still")
	}
}

// If it cannot be read what was published before anybody watched, whoever
// watches is not left in a loss without an end.
func TestWatchCannotRead(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := storage(t, Options{DSN: dsn, PollInterval: time.Hour}), newAdmin(t, dsn)
	put(t, s, store(t.Context(), 1, 0, "published to nobody"))
	a.exec("ALTER TABLE transaction RENAME TO away")
	defer a.exec("ALTER TABLE away RENAME TO transaction")
	lost, gap := 0, false
	s.Watch(func(tid zeolite.TID, oids []zeolite.OID, visible func()) {
		visible()
		gap = gap && tid < s.LastTID()
	}, func() { lost, gap = lost+1, true })
	if lost != 1 || gap {
		t.Errorf("told of %d losses, and that %v", lost, gap)
	}
}

// CatchUp leaves connections to those who load: one of them may hold up what it
// publishes, as a server does for a load that it tried too often.
func TestLoadWhilePublishing(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := storage(t, Options{DSN: dsn, PollInterval: time.Hour, LoadConns: 1}), newAdmin(t, dsn)
	a.listening(1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	published := false
	s.Watch(func(_ zeolite.TID, _ []zeolite.OID, visible func()) {
		published = true
		if _, err := s.LoadBefore(ctx, 1, zeolite.MaxTID); !errors.As(err, new(*zeolite.NotFoundError)) {
			t.Errorf("load: %v", err)
		}
		visible()
	}, func() {})
	// Nobody announces this.
	a.exec("INSERT INTO transaction (tid, username, description) VALUES (1, '', '')")
	if err := s.CatchUp(ctx); err != nil || !published {
		t.Errorf("CatchUp: %v, published: %v", err, published)
	}
}

// A database that says nothing any more does not keep those for ever who wait for
// what it has, nor those behind them.
func TestSilentDatabase(t *testing.T) {
	dsn := pgtest.Database(t)
	p, through := newProxy(t, dsn)
	s, other := storage(t, Options{DSN: through, PollInterval: time.Hour, answerTime: time.Second / 2}), storage(t, Options{DSN: dsn})
	p.setSilent(true)
	last := put(t, other, store(t.Context(), 1, 0, "first"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 3 {
		if err := s.CatchUp(ctx); !errors.As(err, new(*zeolite.StorageError)) {
			t.Fatalf("CatchUp: %v", err)
		}
	}
	p.setSilent(false)
	eventually(t, "the database speaks again", func() bool { return s.CatchUp(t.Context()) == nil })
	if s.LastTID() != last {
		t.Errorf("LastTID is %v, want %v", s.LastTID(), last)
	}
}

// Who accepts a connection and says nothing does not keep a server for ever from
// hearing of the commits of others.
func TestSilenceAtConnecting(t *testing.T) {
	dsn := pgtest.Database(t)
	p, through := newProxy(t, dsn)
	s := storage(t, Options{DSN: through, PollInterval: time.Hour, answerTime: time.Second})
	eventually(t, "it listens", func() bool { return s.Stats().Listened == 1 })
	p.setDown(true)
	p.setSilent(true)
	p.setDown(false)
	eventually(t, "it waits for an answer", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.muted > 0
	})
	p.forget()
	eventually(t, "it listens again", func() bool { return s.Stats().Listened == 2 })
}
