package filestorage

import (
	"runtime"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// TestVoteNow asks before votes of several kinds whether they have to wait.
func TestVoteNow(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reading only what is in memory is known for Linux alone")
	}
	db := newDB(t, Options{})
	db.store(1, 0, "first")
	undone := db.store(2, db.store(2, 0, "before"), "after")
	db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error {
		_, err := tx.Undo(ctx, undone)
		return err
	})
	for _, c := range []struct {
		what string
		oids []zeolite.OID
		size int
		want bool
	}{
		{"an object that is there and a new one", []zeolite.OID{1, 77}, 100, true},
		{"a record that refers to another", []zeolite.OID{1, 2}, 100, false},
		{"more than is allocated", []zeolite.OID{1}, 2 * allocateChunk, false},
	} {
		if got := db.s.VoteNow(c.oids, c.size); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
	db.s.space.mu.Lock() // as while somebody allocates
	if db.s.VoteNow([]zeolite.OID{1}, 100) {
		t.Error("would have waited for an allocation")
	}
	db.s.space.mu.Unlock()
	db.close()
	if db.s.VoteNow([]zeolite.OID{1}, 100) {
		t.Error("a storage that is closed is ready for votes")
	}
	db.open()
}

// TestFinishNowWithBlobs: those that go into the log are no reason to wait, others
// are.
func TestFinishNowWithBlobs(t *testing.T) {
	db := newBlobDB(t)
	db.store(1, 0, "first")
	db.s.committer.took.Store(1)
	blobs := map[zeolite.OID]zeolite.BlobUpload{}
	for i, size := range []int{100, logBlobMax, logBlobMax + 1} {
		u, err := db.s.CreateBlob(ctx)
		db.must(err)
		defer u.Discard()
		_, err = u.Write(make([]byte, size))
		db.must(err)
		blobs[zeolite.OID(i)] = u
		if db.s.FinishNow(blobs) {
			t.Errorf("with an upload of %d bytes that is not complete: true", size)
		}
		db.must(u.Complete())
		if got, want := db.s.FinishNow(blobs), size <= logBlobMax; got != want {
			t.Errorf("with %d bytes: %v, want %v", size, got, want)
		}
	}
}

// TestFinishNow asks when nothing is known of the disk yet, when it is quick, when
// it is not, and when somebody else commits.
func TestFinishNow(t *testing.T) {
	db := newDB(t, Options{})
	assert := func(when string, want bool) {
		t.Helper()
		if got := db.s.FinishNow(nil); got != want {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	assert("before the first commit", false)
	db.store(1, 0, "first")
	if took := db.s.committer.took.Load(); took <= 0 {
		t.Errorf("a commit took %d ns to write", took)
	}
	db.s.committer.took.Store(int64(quickWrite))
	assert("after a quick write", true)
	db.s.committer.took.Store(int64(quickWrite) + 1)
	assert("after a slow write", false)
	db.s.committer.took.Store(1)
	db.s.committer.lock <- struct{}{}
	assert("while somebody commits", false)
	<-db.s.committer.lock
	assert("after that", true)
}
