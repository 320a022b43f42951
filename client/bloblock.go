package client

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/gofrs/flock"
)

// locks are the locks of directories as goroutines of this process have them,
// so that one of them at most waits for the lock of other processes. It is
// safe for concurrent use.
type locks struct {
	mu sync.Mutex
	by map[string]chan struct{} // capacity 1: full while held
}

func (l *locks) of(dir string) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = map[string]chan struct{}{}
	}
	c := l.by[dir]
	if c == nil {
		c = make(chan struct{}, 1)
		l.by[dir] = c
	}
	return c
}

// lock takes the lock of a directory, as Python's client does: flock(2) on its
// file .lock, which is never removed. It waits for others until the context
// ends, and says whether it had to wait for another process.
func (b *blobCache) lock(ctx context.Context, dir string) (unlock func(), waited bool, err error) {
	own := b.locks.of(dir)
	select {
	case own <- struct{}{}:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		<-own
		return nil, false, err
	}
	f := newFlock(filepath.Join(dir, ".lock"))
	if ok, err := f.TryLock(); err != nil || ok {
		unlock, err = b.locked(f, own, err)
		return unlock, false, err
	}
	// The call blocks and cannot be stopped, so that it ends at the very
	// moment when the other process is done, or dies.
	got := make(chan error)
	go func() {
		err := f.Lock()
		select {
		case got <- err:
		case <-ctx.Done():
			f.Unlock()
		}
	}()
	select {
	case err := <-got:
		unlock, err = b.locked(f, own, err)
		return unlock, true, err
	case <-ctx.Done():
		<-own
		return nil, false, ctx.Err()
	}
}

func (b *blobCache) locked(f *flock.Flock, own chan struct{}, err error) (func(), error) {
	if err != nil {
		<-own
		return nil, err
	}
	writePID(f.Path())
	return func() {
		f.Unlock()
		<-own
	}, nil
}

// tryLock is lock that does not wait.
func (b *blobCache) tryLock(dir string) (unlock func(), ok bool) {
	own := b.locks.of(dir)
	select {
	case own <- struct{}{}:
	default:
		return nil, false
	}
	f := newFlock(filepath.Join(dir, ".lock"))
	if ok, err := f.TryLock(); err != nil || !ok {
		<-own
		return nil, false
	}
	unlock, _ = b.locked(f, own, nil)
	return unlock, true
}

func newFlock(path string) *flock.Flock {
	return flock.New(path, flock.SetPermissions(0o666))
}

// writePID writes for people who has the lock, in the form of zc.lockfile. The
// lock does not depend on it.
func writePID(path string) {
	_ = os.WriteFile(path, fmt.Appendf(nil, " %d\n", os.Getpid()), 0o666)
}

func randomName() string { return strings.ToLower(rand.Text()[:16]) }
