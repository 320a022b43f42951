package filestorage

import (
	"errors"
	"sync"

	"github.com/zeolite-go/zeolite"
)

// allocateChunk is how much disk space is reserved at least at a time, so that
// not each vote asks the file system.
const allocateChunk = 4 << 20

// spareMax is how much may stay reserved that nobody needs: what large transactions
// leave that were aborted, and other files on the disk may lack.
const spareMax = 64 << 20

// space keeps account of the disk space behind the end of Data.fs: what voted
// transactions will need has been reserved. Its methods may be called by
// several goroutines at once.
type space struct {
	mu        sync.Mutex
	file      File
	end       int64 // where the next transaction will be written
	reserved  int64 // bytes that voted transactions will need after end
	allocated int64 // the file has disk space up to here
	quota     int64 // no record may begin after it; 0 for none

	spare func() // is called when more than spareMax is
}

func quotaError() error {
	return &zeolite.StorageError{
		Class:   "ZODB.FileStorage.FileStorage.FileStorageQuotaError",
		Message: "The storage quota has been exceeded.",
	}
}

// checkQuota fails if a record that begins n bytes into a transaction would be
// past the quota.
func (sp *space) checkQuota(n int64) error {
	if sp.quota == 0 {
		return nil
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.end+sp.reserved+n > sp.quota {
		return quotaError()
	}
	return nil
}

// reserve sets aside n bytes, the last record of which begins at lastRecord.
func (sp *space) reserve(n, lastRecord int64) error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.quota != 0 && lastRecord > 0 && sp.end+sp.reserved+lastRecord > sp.quota {
		return quotaError()
	}
	if err := sp.allocate(n); err != nil {
		return &zeolite.StorageError{Message: "cannot reserve disk space for the transaction", Err: err}
	}
	sp.reserved += n
	return nil
}

// allocate makes sure there is space for n bytes beyond what is reserved. The
// caller holds mu.
func (sp *space) allocate(n int64) error {
	need := sp.end + sp.reserved + n + guardLen
	if need <= sp.allocated {
		return nil
	}
	want := max(need, sp.allocated+allocateChunk)
	err := sp.file.Allocate(sp.allocated, want-sp.allocated)
	if err != nil && want > need {
		want = need
		err = sp.file.Allocate(sp.allocated, want-sp.allocated)
	}
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	sp.allocated = want
	return nil
}

// endNow returns where the next transaction will be written.
func (sp *space) endNow() int64 {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return sp.end
}

// release gives back what reserve set aside.
func (sp *space) release(n int64) {
	sp.mu.Lock()
	sp.reserved -= n
	spare := sp.hasSpare()
	sp.mu.Unlock()
	if spare {
		sp.spare()
	}
}

// hasSpare is called with mu held.
func (sp *space) hasSpare() bool {
	return sp.reserved == 0 && sp.allocated-sp.end > spareMax
}

// giveBack gives back what is allocated behind the end, and keep bytes there. The
// caller holds the commit lock.
func (sp *space) giveBack(keep int64) error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if !sp.hasSpare() {
		return nil
	}
	sp.allocated = sp.end
	return sp.file.Truncate(sp.end + keep)
}

// giveSpaceBack has that done when nobody commits.
func (s *Storage) giveSpaceBack() {
	if !s.startBackground() {
		return
	}
	go func() {
		defer s.background.Done()
		select {
		case s.committer.lock <- struct{}{}:
		case <-s.stopped.Done():
			return
		}
		defer func() { <-s.committer.lock }()
		if s.writable(s.stopped) != nil {
			return
		}
		var keep int64
		if s.guardAt == s.space.endNow() {
			keep = guardLen
		}
		if err := s.space.giveBack(keep); err != nil {
			s.log.Warn("cannot give disk space back", "path", s.path, "error", err)
		}
	}()
}

// committed moves the end; n of the reserved bytes have been used.
func (sp *space) committed(end, n int64) {
	sp.mu.Lock()
	sp.end, sp.reserved = end, sp.reserved-n
	spare := sp.hasSpare()
	sp.mu.Unlock()
	if spare {
		sp.spare()
	}
}

// replace starts account on another file, which is cut to end, and allocates there
// what is reserved now.
func (sp *space) replace(file File, end int64) error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	old := [3]int64{sp.end, sp.allocated}
	oldFile := sp.file
	sp.file, sp.end, sp.allocated = file, end, end
	if sp.reserved == 0 {
		return nil
	}
	if err := sp.allocate(0); err != nil {
		sp.file, sp.end, sp.allocated = oldFile, old[0], old[1]
		return err
	}
	return nil
}
