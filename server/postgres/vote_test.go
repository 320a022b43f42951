package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// begun returns a transaction with what fill does.
func begun(t testing.TB, s zeolite.Storage, fill func(tx zeolite.Txn) error) zeolite.Txn {
	t.Helper()
	tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tx.Abort)
	if err := fill(tx); err != nil {
		t.Fatal(err)
	}
	return tx
}

// votedOn is begun, and votes.
func votedOn(t testing.TB, s zeolite.Storage, fill func(tx zeolite.Txn) error) zeolite.Txn {
	t.Helper()
	tx := begun(t, s, fill)
	if err := tx.Vote(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tx
}

func finish(t testing.TB, tx zeolite.Txn) zeolite.TID {
	t.Helper()
	tid, err := tx.Finish(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return tid
}

// A server that has not heard yet of what another has committed stores against
// the revisions it knows. Its vote finds all conflicts, with the revisions that
// are in the way, and those can be loaded.
func TestConflictsFoundByVote(t *testing.T) {
	dsn := pgtest.Database(t)
	one, deaf := storage(t, Options{DSN: dsn}), storage(t, Options{DSN: dsn})
	ctx := t.Context()
	all := func(serial zeolite.TID, text string, oids ...zeolite.OID) func(tx zeolite.Txn) error {
		return func(tx zeolite.Txn) error {
			for _, oid := range oids {
				if err := tx.Store(ctx, oid, serial, storagetest.Record(text)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	first := put(t, one, all(0, "first", 1, 2, 3, 4))
	if err := deaf.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	for _, oid := range []zeolite.OID{1, 2, 3, 4} {
		if _, err := deaf.LoadBefore(ctx, oid, zeolite.MaxTID); err != nil { // it remembers the serial
			t.Fatal(err)
		}
	}
	// What is being published holds up what else there is to publish.
	deaf.publisher.mu.Lock()
	held := true
	defer func() {
		if held {
			deaf.publisher.mu.Unlock()
		}
	}()
	second := put(t, one, all(first, "second", 1, 3))
	third := put(t, one, all(first, "third", 4))
	tx := begun(t, deaf, func(tx zeolite.Txn) error {
		return errors.Join(all(first, "late", 3, 2, 1)(tx), tx.CheckCurrent(ctx, 4, first))
	})
	answer := make(chan error, 1)
	go func() { answer <- tx.Vote(ctx) }()
	a := newAdmin(t, dsn)
	eventually(t, "the vote is over, and wants to publish", func() bool {
		return a.number("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid IN (1, 2, 3, 4)") == 0 &&
			deaf.commits.Stat().AcquireCount() > 0 && deaf.commits.Stat().AcquiredConns() == 0
	})
	deaf.publisher.mu.Unlock()
	held = false
	conflicts := zeolite.Conflicts(<-answer)
	want := map[zeolite.OID]zeolite.ConflictError{
		1: {OID: 1, Committed: second, Seen: first}, 3: {OID: 3, Committed: second, Seen: first},
		4: {OID: 4, Committed: third, Seen: first, Read: true},
	}
	if len(conflicts) != len(want) {
		t.Errorf("conflicts: %v", conflicts)
	}
	for _, c := range conflicts {
		if !reflect.DeepEqual(*c, want[c.OID]) {
			t.Errorf("conflict %v, want %v", *c, want[c.OID])
		}
		if _, err := deaf.LoadSerial(ctx, c.OID, c.Committed); err != nil {
			t.Error(err)
		}
	}
	tx.Abort()
	put(t, deaf, all(second, "resolved", 3, 1))
}

// Two servers create the same object: one of them meets a conflict, also if
// neither has committed yet.
func TestBothCreate(t *testing.T) {
	dsn := pgtest.Database(t)
	one, two := storage(t, Options{DSN: dsn}), storage(t, Options{DSN: dsn})
	a := newAdmin(t, dsn)
	create := func(tx zeolite.Txn) error {
		return errors.Join(store(t.Context(), 7, 0, "seven")(tx), store(t.Context(), 8, 0, "eight")(tx))
	}
	first, second := votedOn(t, one, create), begun(t, two, create)
	answer := make(chan error, 1)
	go func() { answer <- second.Vote(t.Context()) }()
	eventually(t, "the second waits", func() bool {
		return a.number("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1
	})
	tid := finish(t, first)
	conflicts := zeolite.Conflicts(<-answer)
	if len(conflicts) != 2 || conflicts[0].Committed != tid || conflicts[1].Committed != tid {
		t.Errorf("the second voted with %v", conflicts)
	}
	second.Abort()
	// If the first gives up, the second is the creator.
	create = store(t.Context(), 9, 0, "nine")
	first, second = votedOn(t, one, create), begun(t, two, create)
	go func() { answer <- second.Vote(t.Context()) }()
	eventually(t, "the second waits", func() bool {
		return a.number("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1
	})
	first.Abort()
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	finish(t, second)
}

// Transactions that finish in another order than they voted are committed in
// that order, whole, with blobs, undo and deletions.
func TestFinishInAnotherOrder(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := watch(t, storage(t, Options{DSN: dsn})), newAdmin(t, dsn)
	ctx := t.Context()
	start := put(t, s.Storage, func(tx zeolite.Txn) error {
		return errors.Join(store(ctx, 1, 0, "one")(tx), store(ctx, 2, 0, "two")(tx))
	})
	data := noise(300_000)
	up := uploaded(t, s.Storage, data)
	txns := []zeolite.Txn{
		votedOn(t, s, func(tx zeolite.Txn) error {
			return errors.Join(tx.StoreBlob(ctx, 10, 0, storagetest.BlobRecord(), up), store(ctx, 1, start, "changed")(tx),
				store(ctx, 11, 0, "new")(tx), store(ctx, 12, 0, "new")(tx))
		}),
		votedOn(t, s, func(tx zeolite.Txn) error { return tx.Delete(ctx, 2, start) }),
		votedOn(t, s, store(ctx, 3, 0, "three")),
		votedOn(t, s, store(ctx, 4, 0, "four")),
	}
	var tids []zeolite.TID
	for _, i := range []int{3, 0, 2, 1} {
		tid, err := txns[i].Finish(ctx, s.publish)
		if err != nil {
			t.Fatal(err)
		}
		tids = append(tids, tid)
	}
	var shown []zeolite.TID
	for info, err := range s.Transactions(ctx, start+1, zeolite.MaxTID) {
		if err != nil {
			t.Fatal(err)
		}
		shown = append(shown, info.TID)
	}
	if st := s.Stats(); st.Renumbered != 3 || st.Voted != 0 {
		t.Errorf("%+v", st)
	}
	if fmt.Sprint(shown) != fmt.Sprint(tids) {
		t.Errorf("the database has %v, finished were %v", shown, tids)
	}
	b := openBlob(t, s.Storage, 10, tids[1])
	defer b.Close()
	if got, err := readAll(b, 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the blob differs: %v", err)
	}
	if n := a.number("SELECT count(*) FROM object_state WHERE tid = $1", int64(tids[1])); n != 4 {
		t.Errorf("the transaction has %d records, want 4", n)
	}
	if n := a.number(`SELECT count(*) FROM current_object c WHERE c.tid <> (SELECT max(tid) FROM object_state o WHERE o.zoid = c.zoid)`); n != 0 {
		t.Errorf("%d objects have a wrong current revision", n)
	}
	if n := a.number("SELECT count(*) FROM transaction WHERE tid > 0"); n != 5 {
		t.Errorf("%d transactions, want 5", n)
	}
	// An undo that is overtaken.
	undo := votedOn(t, s, func(tx zeolite.Txn) error {
		_, err := tx.Undo(ctx, tids[3])
		return err
	})
	put(t, s.Storage, store(ctx, 5, 0, "five"))
	tid := finish(t, undo)
	if rev, err := s.LoadBefore(ctx, 2, zeolite.MaxTID); err != nil || rev.TID != tid || string(rev.Data) != string(storagetest.Record("two")) {
		t.Errorf("after the undo: %v, %v", rev, err)
	}
}

// A transaction that is to keep its TID cannot, if a later one was faster.
func TestOvertakenCopy(t *testing.T) {
	dsn := pgtest.Database(t)
	one, two := storage(t, Options{DSN: dsn}), storage(t, Options{DSN: dsn})
	last := put(t, one, store(t.Context(), 1, 0, "one"))
	tx, err := one.Begin(t.Context(), zeolite.TxnMeta{TID: last + 1})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Abort()
	if err := errors.Join(tx.Restore(t.Context(), 2, storagetest.Record("two"), 0), tx.Vote(t.Context())); err != nil {
		t.Fatal(err)
	}
	put(t, two, store(t.Context(), 3, 0, "three"))
	if _, err := tx.Finish(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "not later") {
		t.Errorf("Finish: %v", err)
	}
	if _, err := one.CurrentTID(t.Context(), 2); !errors.As(err, new(*zeolite.NotFoundError)) {
		t.Errorf("it left something: %v", err)
	}
}

// The disk of the database fills up: votes say so, and what has voted before
// finishes, since it has all the room it needs.
func TestDiskFull(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := storage(t, Options{DSN: dsn}), newAdmin(t, dsn)
	ctx := t.Context()
	serial := put(t, s, store(ctx, 1, 0, "start"))
	// Whatever takes room in a table fails while disk_full has a row that
	// names it.
	a.exec("CREATE TABLE disk_full (name text)")
	a.exec(`CREATE FUNCTION take_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF EXISTS (SELECT FROM disk_full WHERE name = TG_TABLE_NAME) THEN
			RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
		END IF;
		RETURN NEW; END $$`)
	tables := []string{"transaction", "object_state", "current_object", "blob_chunk"}
	for _, table := range tables {
		a.exec("CREATE TRIGGER take_room BEFORE INSERT OR UPDATE ON " + table + " FOR EACH ROW EXECUTE FUNCTION take_room()")
	}
	for i, table := range tables {
		first := uploaded(t, s, noise(1000+i))
		before := votedOn(t, s, func(tx zeolite.Txn) error {
			return errors.Join(store(ctx, 1, serial, "before")(tx), tx.StoreBlob(ctx, zeolite.OID(100+i), 0, storagetest.BlobRecord(), first))
		})
		a.exec("INSERT INTO disk_full VALUES ($1)", table)
		second := uploaded(t, s, noise(500+i))
		late := begun(t, s, func(tx zeolite.Txn) error {
			return errors.Join(store(ctx, 3, 0, "late")(tx), tx.StoreBlob(ctx, zeolite.OID(200+i), 0, storagetest.BlobRecord(), second))
		})
		var failed *zeolite.StorageError
		if err := late.Vote(ctx); !errors.As(err, &failed) || !strings.Contains(err.Error(), "No space left") {
			t.Errorf("%s: vote: %v", table, err)
		}
		serial = finish(t, before)
		a.exec("DELETE FROM disk_full")
		// The upload is as it was, and there is room again.
		if err := late.Vote(ctx); err != nil {
			t.Errorf("%s: %v", table, err)
		}
		late.Abort()
		if err := second.Discard(); err != nil {
			t.Error(err)
		}
	}
	if n := a.number("SELECT count(*) FROM pg_largeobject_metadata"); n != len(tables) {
		t.Errorf("%d large objects, want %d", n, len(tables))
	}
	if _, err := s.CurrentTID(ctx, 3); !errors.As(err, new(*zeolite.NotFoundError)) {
		t.Errorf("a vote that failed left something: %v", err)
	}
}

// Clients that vote and stall take all connections for commits. Others wait,
// and are told why if it takes too long; who finishes, or is aborted, makes room.
func TestStalledVoters(t *testing.T) {
	dsn := pgtest.Database(t)
	const conns = 3
	s := storage(t, Options{DSN: dsn, CommitConns: conns, LockTimeout: 2 * time.Second})
	ctx := t.Context()
	var stalled []zeolite.Txn
	for i := range zeolite.OID(conns) {
		stalled = append(stalled, votedOn(t, s, store(ctx, i, 0, "stalled")))
	}
	late := begun(t, s, store(ctx, 10, 0, "late"))
	var failed *zeolite.StorageError
	if err := late.Vote(ctx); !errors.As(err, &failed) || !strings.Contains(err.Error(), "all 3 connections for commits") {
		t.Errorf("Vote: %v", err)
	}
	if st := s.Stats(); st.Voted != conns || st.OldestVote == 0 || st.Pools[1].Busy != conns || st.Pools[1].Max != conns || st.Pools[1].GivenUp == 0 {
		t.Errorf("%+v", st)
	}
	// Everything else goes on.
	if _, err := s.LoadBefore(ctx, 1, zeolite.MaxTID); !errors.As(err, new(*zeolite.NotFoundError)) {
		t.Error(err)
	}
	if _, err := s.NewOIDs(ctx, 100); err != nil {
		t.Error(err)
	}
	finish(t, stalled[0])
	if err := late.Vote(ctx); err != nil {
		t.Fatal(err)
	}
	// A queue moves on.
	patient := storage(t, Options{DSN: dsn, CommitConns: conns})
	stalled = nil
	for i := range zeolite.OID(conns) {
		stalled = append(stalled, votedOn(t, patient, store(ctx, 20+i, 0, "stalled")))
	}
	var queue sync.WaitGroup
	for i := range zeolite.OID(2 * conns) {
		tx := begun(t, patient, store(ctx, 30+i, 0, "queued"))
		queue.Go(func() {
			if err := tx.Vote(ctx); err != nil {
				t.Error(err)
				return
			}
			if _, err := tx.Finish(ctx, nil); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "all wait", func() bool { return patient.commits.Stat().EmptyAcquireCount() >= conns })
	for _, tx := range stalled {
		tx.Abort()
	}
	queue.Wait()
	finish(t, late)
}

// Many transactions that vote at once, some of them for a long time, on two
// servers: each finds its place.
func TestManyVoters(t *testing.T) {
	dsn := pgtest.Database(t)
	servers := []*Storage{storage(t, Options{DSN: dsn}), storage(t, Options{DSN: dsn})}
	var wg sync.WaitGroup
	var mu sync.Mutex
	tids := map[zeolite.TID]bool{}
	const workers, commits = 8, 25
	for w := range workers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 1))
			var waiting []zeolite.Txn
			for i := range commits {
				tx := begun(t, servers[w%2], store(t.Context(), zeolite.OID(1000*w+i), 0, "some"))
				if err := tx.Vote(t.Context()); err != nil {
					t.Error(err)
					return
				}
				waiting = append(waiting, tx)
				for len(waiting) > 2 || (len(waiting) > 0 && i == commits-1) {
					k := random.IntN(len(waiting))
					tid, err := waiting[k].Finish(t.Context(), nil)
					if err != nil {
						t.Error(err)
					}
					waiting = append(waiting[:k], waiting[k+1:]...)
					mu.Lock()
					if tids[tid] {
						t.Errorf("%v was given twice", tid)
					}
					tids[tid] = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if n := newAdmin(t, dsn).number("SELECT count(*) FROM transaction WHERE tid > 0"); n != workers*commits || len(tids) != n {
		t.Errorf("%d transactions, %d tids, want %d", n, len(tids), workers*commits)
	}
}

// Who resolves a conflict is not overtaken again: between its votes it keeps
// other servers from its objects.
func TestHold(t *testing.T) {
	dsn := pgtest.Database(t)
	one, two := storage(t, Options{DSN: dsn}), storage(t, Options{DSN: dsn})
	a, ctx := newAdmin(t, dsn), t.Context()
	first := put(t, one, store(ctx, 1, 0, "first"))
	tx := begun(t, one, store(ctx, 1, first, "mine"))
	if err := two.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	second := put(t, two, store(ctx, 1, first, "second"))
	if conflicts := zeolite.Conflicts(tx.Vote(ctx)); len(conflicts) != 1 || conflicts[0].Committed != second {
		t.Fatalf("conflicts: %v", conflicts)
	}
	third := put(t, two, store(ctx, 1, second, "third"))
	if err := tx.(zeolite.Holder).Hold(ctx, []zeolite.OID{1, 7, 1}); err != nil {
		t.Fatal(err)
	}
	// What came before it is known now; nothing comes after it.
	if conflicts := zeolite.Conflicts(tx.Store(ctx, 1, second, storagetest.Record("resolved"))); len(conflicts) != 1 || conflicts[0].Committed != third {
		t.Errorf("conflicts: %v", conflicts)
	}
	late := begun(t, two, store(ctx, 1, third, "late"))
	answer := make(chan error, 1)
	go func() { answer <- late.Vote(ctx) }()
	eventually(t, "the other waits", func() bool {
		return a.number("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1
	})
	if err := errors.Join(store(ctx, 1, third, "resolved")(tx), store(ctx, 2, 0, "more")(tx), tx.Vote(ctx)); err != nil {
		t.Fatal(err)
	}
	fourth := finish(t, tx)
	if conflicts := zeolite.Conflicts(<-answer); len(conflicts) != 1 || conflicts[0].Committed != fourth {
		t.Errorf("the other: %v", conflicts)
	}
	late.Abort()

	// Its connection may break meanwhile, or the client give up.
	for _, end := range []func(tx zeolite.Txn){
		func(tx zeolite.Txn) {
			if a.kill(appCommits) == 0 {
				t.Error("there was no connection to end")
			}
			fourth = put(t, two, store(ctx, 1, fourth, "while it was away"))
			if err := errors.Join(store(ctx, 1, fourth, "resolved")(tx), tx.Vote(ctx)); err != nil {
				t.Error(err)
				return
			}
			fourth = finish(t, tx)
		},
		func(tx zeolite.Txn) { tx.Abort() },
	} {
		tx = begun(t, one, func(zeolite.Txn) error { return nil })
		if err := tx.(zeolite.Holder).Hold(ctx, []zeolite.OID{1}); err != nil {
			t.Fatal(err)
		}
		end(tx)
		if n := one.Stats().Voted; n != 0 {
			t.Errorf("%d transactions keep connections", n)
		}
		if err := two.CatchUp(ctx); err != nil {
			t.Fatal(err)
		}
		fourth = put(t, two, store(ctx, 1, fourth, "after it"))
		if err := one.CatchUp(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
