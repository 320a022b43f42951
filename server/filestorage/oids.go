package filestorage

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/zeolite-go/zeolite"
)

// oidReserve is how many oids Data.fs.oid is ahead of those handed out, so
// that it is rarely written. So many are skipped after a crash, and when
// another program has committed.
const oidReserve = 10000

// oidAllocator hands out oids. Those that were handed out but not stored are
// not in Data.fs, so the next one is also kept in the file Data.fs.oid: a
// client may well store them after the server was restarted. After an orderly
// end the file also has the last transaction. Its methods may be called by
// several goroutines at once.
type oidAllocator struct {
	mu    sync.Mutex
	next  zeolite.OID
	saved zeolite.OID // the file says so
	ended zeolite.TID // so does it, if the end was orderly
}

// load begins with next, or with what the file says if that is more. If last is
// not the transaction of the file, others have committed, as Python's server:
// its clients have oids left, a hundred each, and come here with them.
func (a *oidAllocator) load(path string, next zeolite.OID, last zeolite.TID) {
	saved, ended := readOIDFile(path)
	if ended != last {
		if ahead := next + oidReserve; zeolite.CheckOID(ahead, 0) == nil {
			next = ahead
		}
	}
	a.next, a.saved, a.ended = max(next, saved), max(next, saved), ended
}

// readOIDFile returns zeros for what is not there.
func readOIDFile(path string) (next zeolite.OID, ended zeolite.TID) {
	b, err := os.ReadFile(path + ".oid")
	if err != nil {
		return 0, 0
	}
	number, tid, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil {
		return 0, 0
	}
	if ended, err = zeolite.ParseTID(tid); err != nil {
		ended = 0
	}
	return zeolite.OID(n), ended
}

// check refuses the largest oids, unless they were handed out.
func (a *oidAllocator) check(oid zeolite.OID) error {
	if zeolite.CheckOID(oid, 0) == nil {
		return nil
	}
	a.mu.Lock()
	last := a.next - 1
	a.mu.Unlock()
	return zeolite.CheckOID(oid, last)
}

// noteUsed makes sure that oid is never handed out.
func (a *oidAllocator) noteUsed(oid zeolite.OID) {
	a.mu.Lock()
	if oid >= a.next {
		a.next = oid + 1
	}
	a.mu.Unlock()
}

// take hands out n oids.
func (a *oidAllocator) take(fsys FileSystem, path string, n int) ([]zeolite.OID, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next+zeolite.OID(n) >= 1<<63 {
		return nil, &zeolite.StorageError{Message: "all oids have been used"}
	}
	oids := make([]zeolite.OID, n)
	for i := range oids {
		oids[i] = a.next
		a.next++
	}
	if a.next > a.saved {
		if err := a.write(fsys, path, a.next+oidReserve, 0); err != nil {
			return nil, &zeolite.StorageError{Message: "cannot reserve oids", Err: err}
		}
	}
	return oids, nil
}

// save writes the file for an orderly end after the transaction last.
func (a *oidAllocator) save(fsys FileSystem, path string, last zeolite.TID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.saved != a.next || a.ended != last {
		a.write(fsys, path, a.next, last)
	}
}

// write replaces the file at once. It is not synced: oids may be handed out
// again if the machine dies before anything was stored with them.
func (a *oidAllocator) write(fsys FileSystem, path string, next zeolite.OID, ended zeolite.TID) error {
	name, tmp := path+".oid", path+".oid.tmp"
	text := fmt.Appendf(nil, "%d", uint64(next))
	if ended != 0 {
		text = fmt.Appendf(text, " %v", ended)
	}
	if err := os.WriteFile(tmp, append(text, '\n'), 0o666); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	a.saved, a.ended = next, ended
	return nil
}

// NewOIDs implements zeolite.Storage.
func (s *Storage) NewOIDs(ctx context.Context, n int) ([]zeolite.OID, error) {
	if err := s.writable(ctx); err != nil {
		return nil, err
	}
	if n <= 0 || n > 1<<20 {
		return nil, &zeolite.StorageError{Message: fmt.Sprintf("%d new oids were asked for", n)}
	}
	return s.oids.take(s.fs, s.path, n)
}
