package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// watched is a storage, and all that it publishes, by Watch and by Finish. It is
// safe for concurrent use.
type watched struct {
	*Storage
	t *testing.T

	mu   sync.Mutex
	tids []zeolite.TID
	oids map[zeolite.TID][]zeolite.OID
	lost int
	gap  bool // changes were lost, and nothing was published since
}

func watch(t *testing.T, s *Storage) *watched {
	w := &watched{Storage: s, t: t, oids: map[zeolite.TID][]zeolite.OID{}}
	s.Watch(w.publish, func() {
		w.mu.Lock()
		w.lost++
		w.gap = true
		w.mu.Unlock()
	})
	return w
}

// publish checks what every publication must be.
func (w *watched) publish(tid zeolite.TID, oids []zeolite.OID, visible func()) {
	w.mu.Lock()
	if n := len(w.tids); n > 0 && w.tids[n-1] >= tid {
		w.t.Errorf("%v was published after %v", tid, w.tids[n-1])
	}
	w.tids, w.gap = append(w.tids, tid), false
	w.oids[tid] = slices.Sorted(slices.Values(oids))
	w.mu.Unlock()
	if last := w.LastTID(); last >= tid {
		w.t.Errorf("%v is visible already: LastTID is %v", tid, last)
	}
	visible()
	if last := w.LastTID(); last != tid {
		w.t.Errorf("%v is not visible: LastTID is %v", tid, last)
	}
}

func (w *watched) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.tids)
}

// A commit through one server reaches the other, by notification and not by
// asking now and then.
func TestNotification(t *testing.T) {
	dsn := pgtest.Database(t)
	opts := Options{DSN: dsn, PollInterval: time.Hour}
	one, two := watch(t, storage(t, opts)), watch(t, storage(t, opts))
	a := newAdmin(t, dsn)
	a.listening(2)
	serial := zeolite.ZeroTID
	for i := range 20 {
		from, to := one, two
		if i%2 == 1 {
			from, to = two, one
		}
		text := fmt.Sprint(i)
		var err error
		serial, err = tryPut(t.Context(), from, from.publish, store(t.Context(), 5, serial, text))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the other server publishes it", func() bool { return to.LastTID() == serial })
		rev, err := to.LoadBefore(t.Context(), 5, zeolite.MaxTID)
		if err != nil || rev.TID != serial || string(rev.Data) != string(storagetest.Record(text)) {
			t.Errorf("loaded %v, %v", rev, err)
		}
	}
}

// harm is what a test does to the database while it is used.
type harm func(a *admin, random *rand.Rand)

func killSomething(a *admin, random *rand.Rand) {
	apps := []string{appLoads, appCommits, appFollow}
	a.kill(apps[random.IntN(len(apps))])
}

func TestTwoServers(t *testing.T)       { runServers(t, nil, 150) }
func TestTwoServersInHarm(t *testing.T) { runServers(t, killSomething, 150) }

// runServers lets clients of two servers commit to the same objects, and checks
// that each commit that was acknowledged is there once, that none is there that
// was refused, and that both servers published all of them in the same order.
func runServers(t *testing.T, do harm, commits int) {
	const objects, writers = 6, 3
	dsn := pgtest.Database(t)
	opts := Options{DSN: dsn, PollInterval: 100 * time.Millisecond, DoubtTimeout: time.Minute}
	servers := []*watched{watch(t, storage(t, opts)), watch(t, storage(t, opts))}
	first := put(t, servers[0].Storage, func(tx zeolite.Txn) error {
		for oid := range zeolite.OID(objects) {
			if err := tx.Store(t.Context(), oid, 0, storagetest.Record("start")); err != nil {
				return err
			}
		}
		return nil
	})
	for _, s := range servers {
		eventually(t, "the start is known", func() bool { return s.LastTID() >= first })
	}

	var (
		mu      sync.Mutex // guards what follows
		done    = map[string]zeolite.TID{}
		doubt   = map[string]bool{}
		tried   atomic.Int64
		refused atomic.Int64
		wg      sync.WaitGroup
		stop    = make(chan struct{})
		others  sync.WaitGroup
	)
	for i, s := range servers {
		for j := range writers {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(uint64(i), uint64(j)))
				for k := range commits {
					text := fmt.Sprintf("%d/%d/%d", i, j, k)
					tid, err := commitPair(t.Context(), s, zeolite.OID(random.IntN(objects)), zeolite.OID(random.IntN(objects)), text)
					tried.Add(1)
					mu.Lock()
					switch {
					case err == nil:
						done[text] = tid
					case errors.Is(err, zeolite.ErrInDoubt):
						doubt[text] = true
					case errors.As(err, new(*zeolite.ConflictError)):
					case errors.As(err, new(*zeolite.StorageError)) && do != nil:
						refused.Add(1)
					default:
						t.Errorf("%s: %v", text, err)
					}
					mu.Unlock()
				}
			})
		}
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					readServer(t, s, objects, do != nil)
				}
			}
		})
	}
	harms := 0
	if do != nil {
		a := newAdmin(t, dsn)
		others.Go(func() {
			random := rand.New(rand.NewPCG(7, 7))
			for next := int64(0); ; {
				select {
				case <-stop:
					return
				default:
				}
				if tried.Load() < next {
					time.Sleep(time.Millisecond)
					continue
				}
				next = tried.Load() + 1 + random.Int64N(20)
				do(a, random)
				harms++
			}
		})
	}
	wg.Wait()
	close(stop)
	others.Wait()

	for _, s := range servers {
		if err := s.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// What the database has in the end is the judge.
	stored := map[string]zeolite.TID{}
	changes := map[zeolite.TID][]zeolite.OID{}
	for txn, err := range servers[0].Transactions(t.Context(), first+1, zeolite.MaxTID) {
		if err != nil {
			t.Fatal(err)
		}
		for r, err := range txn.Records {
			if err != nil {
				t.Fatal(err)
			}
			changes[txn.TID] = append(changes[txn.TID], r.OID)
			for text := range maps.Keys(done) {
				if string(r.Data) == string(storagetest.Record(text)) {
					stored[text] = txn.TID
				}
			}
		}
	}
	if !maps.Equal(stored, done) {
		t.Errorf("%d commits were acknowledged, and %d of them are there", len(done), len(stored))
	}
	if len(changes) < len(done) || len(changes) > len(done)+len(doubt) {
		t.Errorf("there are %d transactions; %d were acknowledged, %d in doubt", len(changes), len(done), len(doubt))
	}
	want := slices.Sorted(maps.Keys(changes))
	for i, s := range servers {
		if n := len(want); len(s.tids) < n || !slices.Equal(s.tids[len(s.tids)-n:], want) {
			t.Errorf("server %d published %d transactions, not the %d that there are", i, len(s.tids), n)
			continue
		}
		for tid, oids := range changes {
			slices.Sort(oids)
			if !slices.Equal(s.oids[tid], oids) {
				t.Errorf("server %d published %v as a change of %v, not %v", i, tid, s.oids[tid], oids)
			}
		}
	}
	t.Logf("%d tried, %d done, %d in doubt, %d refused; %d harms", tried.Load(), len(done), len(doubt), refused.Load(), harms)
	if do != nil && harms == 0 || len(done) == 0 {
		t.Error("the test did nothing")
	}
}

// commitPair commits a new state of two objects, based on what the server shows.
func commitPair(ctx context.Context, s *watched, a, b zeolite.OID, text string) (zeolite.TID, error) {
	return tryPut(ctx, s, s.publish, func(tx zeolite.Txn) error {
		for _, oid := range []zeolite.OID{a, b} {
			serial, err := s.CurrentTID(ctx, oid)
			if err != nil {
				return err
			}
			if err := tx.Store(ctx, oid, serial, storagetest.Record(text)); err != nil {
				return err
			}
		}
		return nil
	})
}

// readServer checks that a server shows nothing that it has not published, and
// that what it showed as of a TID does not change.
func readServer(t *testing.T, s *watched, objects int, harmed bool) {
	last := s.LastTID()
	for oid := range zeolite.OID(objects) {
		rev, err := s.LoadBefore(t.Context(), oid, zeolite.MaxTID)
		if now := s.LastTID(); err == nil && (rev.TID > now || rev.End > now) {
			t.Errorf("%v was loaded with %v until %v, LastTID is %v", oid, rev.TID, rev.End, now)
		}
		then, errThen := s.LoadBefore(t.Context(), oid, last+1)
		if errThen == nil && (then.TID > last || (then.End != 0 && then.End <= last)) {
			t.Errorf("%v as of %v: %v until %v", oid, last, then.TID, then.End)
		}
		if err = errors.Join(err, errThen); err != nil && !harmed {
			t.Error(err)
		}
	}
}

// When the database goes away, calls say so; when it returns, all goes on, and
// what was committed meanwhile elsewhere is published.
func TestDatabaseComesBack(t *testing.T) {
	c := pgtest.Start(t, pgtest.Options{})
	dsn := c.Database(t)
	s := watch(t, storage(t, Options{DSN: dsn}))
	first := put(t, s.Storage, store(t.Context(), 1, 0, "first"))
	blob := putBlob(t, s.Storage, 2, noise(3<<20))
	open := openBlob(t, s.Storage, 2, blob)
	defer open.Close()
	for _, end := range []func() error{c.Stop, c.Crash} {
		voted, err := s.Begin(t.Context(), zeolite.TxnMeta{})
		if err != nil {
			t.Fatal(err)
		}
		if err := voted.Store(t.Context(), 1, first, storagetest.Record("voted")); err != nil {
			t.Fatal(err)
		}
		if err := voted.Vote(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		var down *zeolite.StorageError
		for _, load := range []func() error{
			func() error { _, err := s.LoadBefore(t.Context(), 1, first); return err },
			func() error { _, err := s.LoadBefore(t.Context(), 99, zeolite.MaxTID); return err },
			func() error { _, err := s.LoadSerial(t.Context(), 1, first); return err },
			func() error { _, err := s.CurrentTID(t.Context(), 1); return err },
		} {
			if err := load(); !errors.As(err, &down) {
				t.Errorf("a load without database: %v", err)
			}
		}
		if _, err := s.NewOIDs(t.Context(), 1000); !errors.As(err, &down) {
			t.Errorf("new oids without database: %v", err)
		}
		if _, err := voted.Finish(t.Context(), nil); !errors.As(err, &down) || errors.Is(err, zeolite.ErrInDoubt) {
			t.Errorf("finish without database: %v", err)
		}
		if last := s.LastTID(); last != blob {
			t.Errorf("LastTID moved to %v", last)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		rev, err := s.LoadBefore(t.Context(), 1, zeolite.MaxTID)
		if err != nil || rev.TID != first {
			t.Errorf("a load after the database came back: %v, %v", rev, err)
		}
		if got, err := readAll(open, 1<<20); err != nil || len(got) != 3<<20 {
			t.Errorf("a blob that was open: %d bytes, %v", len(got), err)
		}
	}
	other := opened(t, Options{DSN: dsn})
	second := put(t, other, store(t.Context(), 1, first, "second"))
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the commit of another server is published", func() bool { return s.LastTID() == second })
	put(t, s.Storage, store(t.Context(), 1, second, "third"))
}

// A new oid is new on all servers.
func TestNewOIDsOnServers(t *testing.T) {
	dsn := pgtest.Database(t)
	one, two := storage(t, Options{DSN: dsn}), storage(t, Options{DSN: dsn})
	seen := map[zeolite.OID]bool{}
	for range 30 {
		for _, s := range []*Storage{one, two} {
			oids, err := s.NewOIDs(t.Context(), 7)
			if err != nil {
				t.Fatal(err)
			}
			for _, oid := range oids {
				if seen[oid] || oid == 0 {
					t.Fatalf("%v was handed out twice", oid)
				}
				seen[oid] = true
			}
		}
	}
}

// A server that makes the oids count past one that was chosen does not undo what
// others did meanwhile: jump farther, or nearly as far, and go on counting.
func TestOIDsNotSetBack(t *testing.T) {
	for _, to := range []int64{1_000_000, 31_249, 31_240} {
		dsn := pgtest.Database(t)
		s, a, other := storage(t, Options{DSN: dsn}), newAdmin(t, dsn), newAdmin(t, dsn)
		// Holds up all who are about to set it, but not those who look.
		other.exec("BEGIN")
		other.exec("SELECT pg_advisory_xact_lock(-4)")
		other.exec("ALTER SEQUENCE zoid_seq CACHE 1")
		const step = 500_000 / oidsPerStep
		tx := begun(t, s, store(t.Context(), step*oidsPerStep, 0, "far"))
		voted := make(chan error, 1)
		go func() { voted <- tx.Vote(t.Context()) }()
		eventually(t, "the vote waits", func() bool { return a.number("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1 })
		other.exec("SELECT setval('zoid_seq', $1)", to)
		other.exec("COMMIT")
		if err := <-voted; err != nil {
			t.Fatal(err)
		}
		if last := a.number("SELECT last_value FROM zoid_seq"); int64(last) != max(to, step) {
			t.Errorf("the sequence, set to %d, was set to %d", to, last)
		}
	}
}

// Who finds the sequence far enough, or nearly, when it could set it, does not:
// that would undo what is counted at this moment.
func TestOIDsCountedWhileOthersJump(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := storage(t, Options{DSN: dsn}), newAdmin(t, dsn)
	for _, step := range []int64{5_000, 1_000_000, 1_000_005} {
		a.exec("SELECT setval('zoid_seq', 1000000), nextval('zoid_seq')")
		if err := s.jump(t.Context(), step); err != nil {
			t.Fatal(err)
		}
		if last := a.number("SELECT last_value FROM zoid_seq"); int64(last) != max(1_000_001, step) {
			t.Errorf("%d: the sequence is at %d", step, last)
		}
		// How many it has counted ahead in the log of the database: none,
		// after it was set.
		if a.number("SELECT log_cnt FROM zoid_seq") == 0 {
			t.Errorf("%d: the sequence was set", step)
		}
	}
}

// Two servers that vote on the same objects: the second waits, and then has a
// conflict.
func TestLocksBetweenServers(t *testing.T) {
	dsn := pgtest.Database(t)
	one, two := storage(t, Options{DSN: dsn}), storage(t, Options{DSN: dsn})
	a := newAdmin(t, dsn)
	for _, oid := range []zeolite.OID{0, 1} { // the root is new: two servers may create it
		serial := zeolite.ZeroTID
		if oid != 0 {
			serial = put(t, one, store(t.Context(), oid, 0, "start"))
		}
		begin := func(s *Storage) zeolite.Txn {
			tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
			if err != nil {
				t.Fatal(err)
			}
			if err := store(t.Context(), oid, serial, "new")(tx); err != nil {
				t.Fatal(err)
			}
			return tx
		}
		first, second := begin(one), begin(two)
		if err := first.Vote(t.Context()); err != nil {
			t.Fatal(err)
		}
		answer := make(chan error, 1)
		go func() { answer <- second.Vote(t.Context()) }()
		eventually(t, "the second waits for the lock", func() bool {
			return a.number("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == 1
		})
		tid, err := first.Finish(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var conflict *zeolite.ConflictError
		if err := <-answer; !errors.As(err, &conflict) || conflict.OID != oid || conflict.Committed != tid || conflict.Seen != serial {
			t.Errorf("%v: the second voted with %v", oid, err)
		}
		// Whoever is told of a conflict can load what was committed.
		if _, err := two.LoadSerial(t.Context(), oid, tid); err != nil {
			t.Error(err)
		}
		second.Abort()
	}
}

// A voted transaction whose connection breaks is voted again by Finish.
func TestFinishAfterBrokenVote(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := storage(t, Options{DSN: dsn}), newAdmin(t, dsn)
	first := put(t, s, store(t.Context(), 1, 0, "first"))
	voted := func() zeolite.Txn {
		tx, err := s.Begin(t.Context(), zeolite.TxnMeta{})
		if err == nil {
			err = store(t.Context(), 1, first, "second")(tx)
		}
		if err == nil {
			err = tx.Vote(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	tx := voted()
	if a.kill(appCommits) == 0 {
		t.Fatal("there was no connection to end")
	}
	second, err := tx.Finish(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	// If somebody else was faster, that is a conflict.
	first = second
	tx = voted()
	a.kill(appCommits)
	third := put(t, s, store(t.Context(), 1, second, "third"))
	var conflict *zeolite.ConflictError
	if _, err := tx.Finish(t.Context(), nil); !errors.As(err, &conflict) || conflict.Committed != third {
		t.Errorf("Finish: %v", err)
	}
	if n := a.number("SELECT count(*) FROM object_state"); n != 3 {
		t.Errorf("%d revisions, want 3", n)
	}
}

// However transactions are isolated in a database by default, one that has waited
// for its turn sees those that came before it.
func TestIsolation(t *testing.T) {
	dsn := pgtest.Database(t)
	newAdmin(t, dsn).exec(`DO $$ BEGIN
		EXECUTE 'ALTER DATABASE ' || current_database() || ' SET default_transaction_isolation = "repeatable read"';
		END $$`)
	one, two := storage(t, Options{DSN: dsn}), storage(t, Options{DSN: dsn})
	early := votedOn(t, one, store(t.Context(), 1, 0, "one"))
	late := votedOn(t, two, store(t.Context(), 2, 0, "two"))
	if first, second := finish(t, late), finish(t, early); second <= first {
		t.Errorf("%v was committed after %v", second, first)
	}
}
