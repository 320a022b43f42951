package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeolite-go/zeolite"
)

// blobCache is a directory of blobs that processes share, in ZODB's "zeocache"
// layout, or, with SharedBlobDir, the server's own directory. It is safe for
// concurrent use, by processes too: every change is made under the lock of the
// directory concerned (bloblock.go).
type blobCache struct {
	s      *Storage
	dir    string
	layout string

	locks locks

	mu      sync.Mutex
	flights map[blobKey]*blobFlight

	added    atomic.Int64 // bytes, since the last check of the size
	checking atomic.Bool
}

// blobKey names a blob.
type blobKey struct {
	oid zeolite.OID
	tid zeolite.TID
}

// Layouts, as they are called in the file .layout.
const (
	layoutCache = "zeocache"
	layoutBushy = "bushy"
	layoutLawn  = "lawn"
)

// zeocacheDirs is the number of directories of the zeocache layout.
const zeocacheDirs = 997

// openBlobCache makes the directory ready and removes what uploads of dead
// processes have left in it.
func openBlobCache(s *Storage) (*blobCache, error) {
	b := &blobCache{s: s, dir: s.opt.BlobDir, flights: map[blobKey]*blobFlight{}}
	if err := os.MkdirAll(filepath.Join(b.dir, "tmp"), 0o777); err != nil {
		return nil, err
	}
	marker := filepath.Join(b.dir, ".layout")
	text, err := os.ReadFile(marker)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case s.opt.SharedBlobDir:
		b.layout = strings.TrimSpace(string(text))
		if err != nil {
			b.layout = guessLayout(b.dir)
		}
		if b.layout != layoutBushy && b.layout != layoutLawn {
			return nil, fmt.Errorf("client: %s is not the blob directory of a server: its layout is %q", b.dir, b.layout)
		}
	case err != nil:
		b.layout = layoutCache
		if err := writeMarker(marker); err != nil {
			return nil, err
		}
	case strings.TrimSpace(string(text)) != layoutCache:
		return nil, fmt.Errorf("client: %s is not a blob cache: its layout is %.40q, not %q", b.dir, text, layoutCache)
	default:
		b.layout = layoutCache
	}
	b.removeStale()
	b.check()
	return b, nil
}

// writeMarker writes the .layout file, all of it or nothing.
func writeMarker(path string) error {
	tmp := path + "-" + randomName()
	err := os.WriteFile(tmp, []byte(layoutCache), 0o666)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// guessLayout follows ZODB for directories without a marker: an empty one is
// bushy, an old one is a lawn.
func guessLayout(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		if e.IsDir() && e.Name() != "tmp" {
			return layoutLawn
		}
	}
	return layoutBushy
}

// dirOf returns the directory of an object's blobs.
func (b *blobCache) dirOf(oid zeolite.OID) string {
	switch b.layout {
	case layoutCache:
		return filepath.Join(b.dir, strconv.FormatUint(uint64(oid)%zeocacheDirs, 10))
	case layoutLawn:
		return filepath.Join(b.dir, oid.String())
	}
	dir := b.dir
	for _, c := range oid.Bytes() {
		dir = filepath.Join(dir, fmt.Sprintf("0x%02x", c))
	}
	return dir
}

// path returns the file of a blob.
func (b *blobCache) path(k blobKey) string {
	if b.layout == layoutCache {
		return filepath.Join(b.dirOf(k.oid), fmt.Sprintf("%d.%v.blob", uint64(k.oid)/zeocacheDirs, k.tid))
	}
	return filepath.Join(b.dirOf(k.oid), zeolite.OID(k.tid).String()+".blob")
}

// OpenBlob implements zeolite.BlobStorage. A blob that is not in the cache is
// downloaded whole, once for all processes that want it. A download goes on
// when the context of its caller ends, and is there for the next one.
func (s *Storage) OpenBlob(ctx context.Context, oid zeolite.OID, tid zeolite.TID) (zeolite.Blob, error) {
	switch {
	case s.ctx.Err() != nil:
		return nil, zeolite.ErrClosed
	case s.blobs == nil:
		return nil, zeolite.ErrUnsupported
	}
	if err := s.started(ctx); err != nil {
		return nil, err
	}
	if tid > s.LastTID() {
		return nil, &zeolite.NotFoundError{OID: oid, TID: tid, Blob: true}
	}
	b, k := s.blobs, blobKey{oid, tid}
	// Between the end of a download and the opening of the file somebody who
	// makes room may remove it.
	const attempts = 10
	for range attempts {
		blob, err := b.open(k)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return blob, err
		}
		if b.s.opt.SharedBlobDir {
			return nil, &zeolite.NotFoundError{OID: oid, TID: tid, Blob: true}
		}
		if err := b.fetch(ctx, k); err != nil {
			return nil, err
		}
	}
	return nil, &zeolite.StorageError{Message: "the blob cache is too small: a blob was removed each time before it could be opened"}
}

// open opens a blob that is there, and notes that it was used.
func (b *blobCache) open(k blobKey) (zeolite.Blob, error) {
	path := b.path(k)
	blob, err := zeolite.OpenFileBlob(path)
	if err != nil {
		return nil, err
	}
	if b.layout == layoutCache {
		// File systems are often mounted so that reading leaves no trace. A
		// file of another user cannot be marked; it is just older then.
		var asItIs time.Time
		_ = os.Chtimes(path, time.Now(), asItIs)
	}
	return blob, nil
}

// keep moves the file of a committed upload to its place. If that cannot be done
// the blob can still be downloaded.
func (b *blobCache) keep(u *upload, k blobKey) {
	if err := b.tryKeep(u, k); err != nil {
		b.s.log.Warn("a blob is committed, but cannot be put into the cache", "oid", k.oid, "tid", k.tid,
			"error", errors.Join(err, u.discard(true)))
	}
}

func (b *blobCache) tryKeep(u *upload, k blobKey) error {
	if b.s.opt.SharedBlobDir {
		return u.discard(true) // the server has its own link to it
	}
	unlock, _, err := b.lock(b.s.ctx, b.dirOf(k.oid))
	if err != nil {
		return err
	}
	defer unlock()
	if err := u.moveTo(b.path(k)); err != nil {
		return err
	}
	b.grew(u.Size())
	return nil
}

// protect takes from a file the permission to write.
func protect(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Chmod(path, st.Mode()&^0o222)
}

// create starts an upload.
func (b *blobCache) create() (*upload, error) {
	for {
		path := filepath.Join(b.dir, "tmp", uploadPrefix+randomName()+uploadSuffix)
		file, err := openLocked(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
		if errors.Is(err, errLocked) || errors.Is(err, errRemoved) {
			continue // somebody took it for stale before it was locked
		}
		if err != nil {
			return nil, blobError("cannot create a blob", err)
		}
		return &upload{b: b, file: file, path: path}, nil
	}
}

// share gives the server a name for an upload in the object's directory, and
// leaves ours: the transaction may be aborted.
func (b *blobCache) share(u *upload, oid zeolite.OID, serial zeolite.TID) (string, error) {
	dir := b.dirOf(oid)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", blobError("cannot share a blob", err)
	}
	name := zeolite.OID(serial).String() + randomName() + ".tmp-"
	if err := os.Link(u.path, filepath.Join(dir, name)); err != nil {
		return "", blobError("cannot share a blob", err)
	}
	return name, nil
}
