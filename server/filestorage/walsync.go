package filestorage

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// dataSync knows how much of Data.fs is durable, and which blobs are not, where
// commits are only known to be so in the write-ahead log, and sees to it that the
// rest follows. Its methods may be called by several goroutines at once.
type dataSync struct {
	s       *Storage
	running sync.Mutex   // one sync at a time, and none after one that failed: it would say that all is well
	synced  atomic.Int64 // Data.fs and blobs are durable up to here; changes under running

	mu    sync.Mutex
	blobs []newBlob // what is committed and not durable

	following sync.WaitGroup
	wake      chan struct{} // there is more
	urgent    chan struct{} // somebody will need it soon
}

func (d *dataSync) init(s *Storage) {
	d.s, d.wake, d.urgent = s, make(chan struct{}, 1), make(chan struct{}, 1)
}

// reached says whether Data.fs and blobs are durable up to end.
func (d *dataSync) reached(end int64) bool { return d.synced.Load() >= end }

// set says that Data.fs, which may be another file than before, is durable up
// to end. The caller holds the commit lock.
func (d *dataSync) set(end int64) {
	d.running.Lock()
	d.synced.Store(end)
	d.running.Unlock()
}

// reach says that Data.fs and blobs have been synced up to end, unless a commit
// meanwhile could not sync what they share. The caller holds running.
func (d *dataSync) reach(end int64) error {
	if err := d.s.failed(); err != nil {
		return err
	}
	d.synced.Store(end)
	return nil
}

// follows adds blobs of transactions that are in the log, before they are
// visible.
func (d *dataSync) follows(blobs []newBlob) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range blobs {
		b.contents = nil // they belong to the upload
		d.blobs = append(d.blobs, b)
	}
}

// note says that more has been written.
func (d *dataSync) note() { signal(d.wake) }

// hurry makes the next sync begin at once.
func (d *dataSync) hurry() {
	signal(d.urgent)
	signal(d.wake)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// start begins to follow the commits, until the storage is stopped.
func (d *dataSync) start() { d.following.Go(d.follow) }

// follow brings Data.fs to the disk behind the commits: every so often while
// there are any, or when somebody is in a hurry.
func (d *dataSync) follow() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-d.wake:
		case <-d.s.stopped.Done():
			return
		}
		pause.Reset(d.s.opts.SyncInterval)
		select {
		case <-pause.C:
		case <-d.urgent:
		case <-d.s.stopped.Done():
			return
		}
		if err := d.now(); err != nil {
			if d.s.failure.Load() != nil {
				return // nothing will be committed any more
			}
			d.s.log.Warn("what was committed stays in the write-ahead log for now", "path", d.s.path, "error", err)
			d.note()
		}
	}
}

// now makes Data.fs durable up to its current end, and blobs with it. If a sync
// fails, nobody can say what is on the disk; but the log has it, so it is enough to
// open the storage again. If one could not begin, for want of file descriptors for
// example, it can be tried again.
func (d *dataSync) now() error {
	d.running.Lock()
	defer d.running.Unlock()
	if err := d.s.failed(); err != nil {
		return err
	}
	g, err := d.s.acquire()
	if err != nil {
		return err
	}
	defer g.release()
	end := g.end.Load()
	if d.reached(end) {
		return nil
	}
	// No blobs are missing that belong to what is before end.
	if err := d.syncBlobs(); err != nil {
		return err
	}
	err = g.file.Sync()
	if d.s.gen.Load() != g {
		return nil // packing has synced the file that counts now
	}
	if err != nil {
		err = fmt.Errorf("cannot sync Data.fs: %w", err)
		d.s.fail(err)
		return err
	}
	return d.reach(end)
}

// upTo is now for who holds the commit lock, and has changed what is behind end: the
// last transaction ends there.
func (d *dataSync) upTo(file File, end int64) error {
	d.running.Lock()
	defer d.running.Unlock()
	if err := d.s.failed(); err != nil {
		return err
	}
	if err := d.syncBlobs(); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		err = fmt.Errorf("cannot sync Data.fs: %w", err)
		d.s.fail(err)
		return err
	}
	return d.reach(end)
}

// blobsNow makes the blobs durable that are committed.
func (d *dataSync) blobsNow() error {
	d.running.Lock()
	defer d.running.Unlock()
	if err := d.s.failed(); err != nil {
		return err
	}
	return d.syncBlobs()
}

// syncBlobs is blobsNow for who holds running.
func (d *dataSync) syncBlobs() error {
	d.mu.Lock()
	blobs := d.blobs
	d.blobs = nil
	d.mu.Unlock()
	if len(blobs) == 0 {
		return nil
	}
	y := syncs{dir: d.s.blobs, behind: true, fail: d.s.fail}
	for _, b := range blobs {
		y.addFile(b.file)
		y.addDir(filepath.Dir(b.file))
	}
	y.start()
	if err := y.wait(); err != nil {
		d.follows(blobs)
		return fmt.Errorf("cannot sync blobs: %w", err)
	}
	return nil
}
