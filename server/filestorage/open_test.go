package filestorage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// A scan tells how far it is, and can be cancelled; the database is as before.
func TestOpenCancelled(t *testing.T) {
	db := newDB(t, Options{})
	serial := zeolite.ZeroTID
	for range 40 {
		serial = db.store(1, serial, strings.Repeat("x", 1<<20))
	}
	db.close()
	db.must(os.Remove(db.path + ".index"))
	before := db.bytes()

	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	_, err := OpenContext(ctx, db.path, Options{ScanProgress: func(done, total int64) {
		if calls++; done <= 0 || done >= total || total != int64(len(before)) {
			t.Errorf("progress: %d of %d", done, total)
		}
		cancel()
	}})
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("error %v after %d calls", err, calls)
	}
	if string(db.bytes()) != string(before) {
		t.Error("the file changed")
	}
	db.open()
	db.wantLoad(1, zeolite.MaxTID, strings.Repeat("x", 1<<20))
}

// Who just looks whether a database is in use keeps nobody from opening it.
func TestLockWhileSomebodyLooks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Data.fs")
	done := make(chan struct{})
	looking := make(chan struct{})
	go func() {
		defer close(looking)
		for {
			select {
			case <-done:
				return
			default:
				inUse(path)
			}
		}
	}()
	for range 1000 {
		s := &Storage{path: path}
		if err := s.takeLock(); err != nil {
			t.Error(err)
			break
		}
		if other := (&Storage{path: path}); other.takeLock() == nil {
			t.Error("the database was locked twice")
			other.lock.Unlock()
		}
		s.lock.Unlock()
	}
	close(done)
	<-looking
}
