package filestorage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// A transaction beyond memory is the same as one within.
func TestSpill(t *testing.T) {
	files := map[int][]byte{}
	for _, limit := range []int{1, 50, 5000, 1 << 20} {
		db := newDB(t, Options{SpillBytes: limit})
		tid := zeolite.TID(0x040d2c8a1219b277)
		db.commit(zeolite.TxnMeta{TID: tid, User: []byte("somebody")}, func(tx zeolite.Txn) error {
			for i := range 50 {
				for try := range 3 {
					if err := tx.Store(ctx, zeolite.OID(i), 0, bytes.Repeat([]byte{byte(i), byte(try)}, 1+i*i)); err != nil {
						return err
					}
				}
			}
			return nil
		})
		db.commit(zeolite.TxnMeta{TID: tid + 1}, func(tx zeolite.Txn) error {
			if _, err := tx.Undo(ctx, tid); err != nil {
				return err
			}
			return tx.Store(ctx, 3, tid, []byte("instead"))
		})
		db.close()
		files[limit] = db.bytes()
		if names, _ := filepath.Glob(filepath.Join(filepath.Dir(db.path), "*.tmp")); names != nil {
			t.Errorf("left behind: %v", names)
		}
	}
	for limit, b := range files {
		if !bytes.Equal(b, files[1]) {
			t.Errorf("with %d bytes of memory the file is different", limit)
		}
	}
}

// Transactions that finish at the same time share syncs, are published in
// order, and each is visible when its Finish returns.
func TestGroupCommit(t *testing.T) {
	s, w := newCrashDB(t, Options{})
	defer s.Close()
	const writers, each = 16, 10
	var mu sync.Mutex
	var order []zeolite.TID
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			oid, serial := zeolite.OID(i), zeolite.ZeroTID
			for n := range each {
				tx, err := s.Begin(ctx, zeolite.TxnMeta{})
				if err == nil {
					err = tx.Store(ctx, oid, serial, fmt.Append(nil, n))
				}
				if err == nil {
					err = tx.Vote(ctx)
				}
				if err != nil {
					t.Error(err)
					return
				}
				tid, err := tx.Finish(ctx, func(tid zeolite.TID, oids []zeolite.OID, visible func()) {
					mu.Lock()
					order = append(order, tid)
					mu.Unlock()
					if !slices.Equal(oids, []zeolite.OID{oid}) {
						t.Errorf("published %v", oids)
					}
					if s.LastTID() >= tid {
						t.Error("visible before it was published")
					}
					visible()
				})
				if err != nil {
					t.Error(err)
					return
				}
				if rev, err := s.LoadBefore(ctx, oid, zeolite.MaxTID); err != nil || rev.TID != tid || string(rev.Data) != fmt.Sprint(n) {
					t.Errorf("after Finish: %q at %v, %v, want %v", rev.Data, rev.TID, err, tid)
				}
				serial = tid
			}
		})
	}
	wg.Wait()
	if !slices.IsSorted(order) || len(order) != writers*each {
		t.Errorf("%d transactions were published, in order: %v", len(order), slices.IsSorted(order))
	}
	syncs := 0
	for _, op := range w.fs.changes() {
		if op.kind == "sync" {
			syncs++
		}
	}
	t.Logf("%d syncs for %d transactions", syncs, writers*each)
	if !slices.Equal(tids(t, s), order) {
		t.Error("the file has other transactions than were published, or in another order")
	}
}

func TestQuota(t *testing.T) {
	db := newDB(t, Options{Quota: 1000})
	isQuota := func(err error) bool {
		var e *zeolite.StorageError
		return errors.As(err, &e) && e.Class == "ZODB.FileStorage.FileStorage.FileStorageQuotaError"
	}
	first := db.store(1, 0, strings.Repeat("x", 500))
	tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
	db.must(err)
	defer tx.Abort()
	db.must(tx.Store(ctx, 1, first, make([]byte, 700)))
	if err := tx.Store(ctx, 2, 0, make([]byte, 10)); !isQuota(err) {
		t.Errorf("got error %v, want the quota to be exceeded", err)
	}
	// Python, too, lets the last record go past the quota.
	db.must(tx.Vote(ctx))
	other, err := db.s.Begin(ctx, zeolite.TxnMeta{})
	db.must(err)
	defer other.Abort()
	if err := other.Store(ctx, 3, 0, []byte("x")); !isQuota(err) {
		t.Errorf("space that is reserved does not count: %v", err)
	}
	tx.Abort()
	db.must(other.Store(ctx, 3, 0, []byte("x")))
}

// A full disk is noticed by Vote, not later.
func TestNoSpace(t *testing.T) {
	s, w := newCrashDB(t, Options{})
	defer s.Close()
	limit := int64(1 << 20)
	w.fs.fail = func(op fsOp) error {
		if op.kind == "allocate" && op.off > limit {
			return syscall.ENOSPC
		}
		if op.kind == "write" && op.off+int64(len(op.data)) > limit {
			return syscall.ENOSPC
		}
		return nil
	}
	var voted []zeolite.Txn
	refused := 0
	for i := range 20 {
		tx, err := s.Begin(ctx, zeolite.TxnMeta{})
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Abort()
		if err := tx.Store(ctx, zeolite.OID(i), 0, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		err = tx.Vote(ctx)
		switch {
		case err == nil:
			voted = append(voted, tx)
		case errors.Is(err, syscall.ENOSPC):
			refused++
		default:
			t.Fatal(err)
		}
	}
	if len(voted) != 10 || refused != 10 {
		t.Errorf("%d voted, %d were refused", len(voted), refused)
	}
	voted[0].Abort()
	for _, tx := range voted[1:] {
		if _, err := tx.Finish(ctx, nil); err != nil {
			t.Error(err)
		}
	}
}

// Transactions that must not be open together, but are, do no harm.
func TestFinishChecksAgain(t *testing.T) {
	db := newDB(t, Options{})
	first := db.store(1, 0, "first")
	var txns []zeolite.Txn
	for i := range 2 {
		tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
		db.must(err)
		defer tx.Abort()
		db.must(tx.Store(ctx, 1, first, fmt.Append(nil, i)))
		db.must(tx.Vote(ctx))
		txns = append(txns, tx)
	}
	_, err := txns[0].Finish(ctx, nil)
	db.must(err)
	if _, err := txns[1].Finish(ctx, nil); !errors.As(err, new(*zeolite.ConflictError)) {
		t.Errorf("the second: got error %v, want a conflict", err)
	}
	db.wantLoad(1, zeolite.MaxTID, "0")
}

// Whoever finishes while the storage is closed is either committed or told.
func TestCloseDuringFinish(t *testing.T) {
	for range 30 {
		db := newDB(t, Options{})
		var wg sync.WaitGroup
		var mu sync.Mutex
		var committed []zeolite.TID
		for i := range 6 {
			tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
			db.must(err)
			db.must(tx.Store(ctx, zeolite.OID(i), 0, []byte("x")))
			db.must(tx.Vote(ctx))
			wg.Go(func() {
				tid, err := tx.Finish(ctx, nil)
				if err != nil && !errors.Is(err, zeolite.ErrClosed) {
					t.Error(err)
				}
				if err == nil {
					mu.Lock()
					committed = append(committed, tid)
					mu.Unlock()
				}
			})
		}
		db.close()
		wg.Wait()
		db.open()
		slices.Sort(committed)
		if got := tids(t, db.s); !slices.Equal(got, committed) {
			t.Fatalf("found %v, committed %v", got, committed)
		}
		db.close()
	}
}

func TestOIDsAreNotRepeated(t *testing.T) {
	db := newDB(t, Options{})
	take := func() zeolite.OID {
		t.Helper()
		oids, err := db.s.NewOIDs(ctx, 3)
		db.must(err)
		return oids[0]
	}
	if oid := take(); oid != 1 {
		t.Errorf("the first oid is %v", oid)
	}
	db.reopen()
	if oid := take(); oid != 4 {
		t.Errorf("after opening again: %v, want 4", oid)
	}
	db.store(100, 0, "x")
	if oid := take(); oid != 101 {
		t.Errorf("after storing oid 100: %v", oid)
	}
	// A copy of the directory as a crash would leave it.
	crashed := filepath.Join(t.TempDir(), "Data.fs")
	files := map[string][]byte{}
	for _, suffix := range []string{"", ".oid"} {
		b, err := os.ReadFile(db.path + suffix)
		db.must(err)
		files["Data.fs"+suffix] = b
	}
	writeImage(t, filepath.Dir(crashed), files)
	s, err := Open(crashed, Options{})
	db.must(err)
	defer s.Close()
	oids, err := s.NewOIDs(ctx, 1)
	if err != nil || oids[0] < 104 {
		t.Errorf("after a crash: %v, %v, want 104 or more", oids, err)
	}
}

// Python's server keeps no Data.fs.oid: its clients come here with oids that it
// handed out, while a file of ours tells of what was before.
func TestOIDsOfAnotherProgram(t *testing.T) {
	first := func(s *Storage) zeolite.OID {
		t.Helper()
		oids, err := s.NewOIDs(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		return oids[0]
	}
	db := newDB(t, Options{})
	db.store(20, 0, "x")
	db.reopen()
	if oid := first(db.s); oid != 21 {
		t.Errorf("after an orderly end: oid %v, want 21", oid)
	}
	db.close()
	ours, err := os.ReadFile(db.path + ".oid")
	db.must(err)
	db.open()
	db.store(40, 0, "x")
	db.close()
	db.must(os.WriteFile(db.path+".oid", ours, 0o666)) // as if others had stored 40
	db.open()
	if oid := first(db.s); oid < 41+1000 {
		t.Errorf("after others have committed: oid %v, which one of their clients may have", oid)
	}
	db.close()
	db.must(os.Remove(db.path + ".oid"))
	db.open()
	if oid := first(db.s); oid < 41+1000 {
		t.Errorf("after nobody but others has committed: oid %v, which one of their clients may have", oid)
	}
}

// Loads go on during commits, and see each transaction whole.
func TestLoadsDuringCommits(t *testing.T) {
	db := newDB(t, Options{})
	const objects = 8
	stop := make(chan struct{})
	var wg sync.WaitGroup
	put := func(n int, serial zeolite.TID) zeolite.TID {
		return db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
			for oid := range zeolite.OID(objects) {
				if err := tx.Store(ctx, oid, serial, fmt.Append(nil, n)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	serial := put(0, 0)
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				last := db.s.LastTID()
				var seen []byte
				for oid := range zeolite.OID(objects) {
					rev, err := db.s.LoadBefore(ctx, oid, last+1)
					if err != nil {
						t.Error(err)
						return
					}
					if rev.TID != last || seen != nil && !bytes.Equal(seen, rev.Data) {
						t.Errorf("as of %v: %v is %q of %v, others %q", last, oid, rev.Data, rev.TID, seen)
						return
					}
					seen = rev.Data
				}
			}
		})
	}
	for n := range 100 {
		serial = put(n+1, serial)
	}
	close(stop)
	wg.Wait()
}

func BenchmarkLoad(b *testing.B) {
	db := newDB(b, Options{})
	const objects = 10000
	db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		for oid := range zeolite.OID(objects) {
			if err := tx.Store(ctx, oid, 0, make([]byte, 500)); err != nil {
				return err
			}
		}
		return nil
	})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for oid := zeolite.OID(0); pb.Next(); oid = (oid + 7919) % objects {
			if _, err := db.s.LoadBefore(ctx, oid, zeolite.MaxTID); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			db := newDB(b, Options{})
			var wg sync.WaitGroup
			for i := range writers {
				wg.Go(func() {
					serial := zeolite.ZeroTID
					for range b.N / writers {
						tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
						if err == nil {
							err = errors.Join(tx.Store(ctx, zeolite.OID(i), serial, make([]byte, 500)), tx.Vote(ctx))
						}
						if err == nil {
							serial, err = tx.Finish(ctx, nil)
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// A panic while a group is committed ends writing, and nobody waits for ever.
func TestPanicInCommit(t *testing.T) {
	db := newDB(t, Options{})
	db.s.committer.lock <- struct{}{} // so that both commit together
	var mu sync.Mutex
	var panicked []any
	var errs []error
	var wg sync.WaitGroup
	for i := range 2 {
		tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
		db.must(err)
		db.must(tx.Store(ctx, zeolite.OID(i), 0, []byte("data")))
		db.must(tx.Vote(ctx))
		wg.Go(func() {
			defer func() {
				tx.Abort()
				if r := recover(); r != nil {
					mu.Lock()
					panicked = append(panicked, r)
					mu.Unlock()
				}
			}()
			_, err := tx.Finish(ctx, func(zeolite.TID, []zeolite.OID, func()) { panic("in publish") })
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
		})
	}
	waiting := func() int {
		db.s.committer.mu.Lock()
		defer db.s.committer.mu.Unlock()
		return len(db.s.committer.queue)
	}
	for waiting() < 2 {
		runtime.Gosched()
	}
	<-db.s.committer.lock
	wg.Wait()
	if len(panicked) != 1 || len(errs) != 1 || !errors.Is(errs[0], zeolite.ErrInDoubt) {
		t.Errorf("panics: %v, errors: %v", panicked, errs)
	}
	if _, err := db.s.Begin(ctx, zeolite.TxnMeta{}); err == nil || !db.s.Info().ReadOnly {
		t.Errorf("after it, a transaction begins with error %v", err)
	}
	db.reopen()
	db.wantLoad(0, zeolite.MaxTID, "data")
	db.wantLoad(1, zeolite.MaxTID, "data")
}
