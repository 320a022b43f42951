package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// This file is about the methods that zeolite's server has beyond ZEO. They are
// only called on a connection whose server listed them.

// setExtensions takes down which extensions get_info lists.
func (l *link) setExtensions(info *zrpc.Dict) {
	v, _ := info.Get("extensions")
	items, _ := zrpc.Sequence(v)
	var names []string
	for _, item := range items {
		if name, ok := item.(string); ok {
			names = append(names, name)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.extensions = names
}

// has tells whether the server has all of some extensions.
func (l *link) has(names ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		if !slices.Contains(l.extensions, name) {
			return false
		}
	}
	return true
}

// loadManyMost is how many objects one call asks for.
const loadManyMost = 1000

// errNoLoadMany says that objects must be loaded one by one.
var errNoLoadMany = errors.New("the server does not know loadMany")

// loadMany brings the revisions of many objects into the cache, by calls for
// many objects each that are sent at once.
func (s *Storage) loadMany(ctx context.Context, oids []zeolite.OID, before zeolite.TID) error {
	g, ctx := errgroup.WithContext(ctx)
	for part := range slices.Chunk(oids, loadManyMost) {
		g.Go(func() error {
			for len(part) > 0 {
				n, err := s.loadSome(ctx, part, before)
				if err != nil {
					return err
				}
				part = part[n:]
			}
			return nil
		})
	}
	return g.Wait()
}

// loadSome makes one call, and returns for how many of the oids it was
// answered: at least one.
func (s *Storage) loadSome(ctx context.Context, oids []zeolite.OID, before zeolite.TID) (n int, err error) {
	err = s.read(ctx, func(l *link) error {
		if !l.has("loadMany") {
			return errNoLoadMany
		}
		answered := new(int) // a late answer goes nowhere else
		err := l.stub.LoadManyHook(ctx, oids, before, func(loaded []stubs.Loaded, err error) {
			if err != nil {
				return
			}
			// As in ask, before any later message is looked at.
			s.cache.mu.Lock()
			defer s.cache.mu.Unlock()
			for i, r := range loaded[:min(len(loaded), len(oids))] {
				if r.Found {
					s.cache.insertLocked(oids[i], r.Revision)
				}
			}
			*answered = len(loaded)
		})
		if err != nil {
			return err
		}
		if n = *answered; n == 0 || n > len(oids) {
			return &zeolite.StorageError{Message: "the server's answer to loadMany does not fit the call"}
		}
		return nil
	})
	return n, err
}

// resume asks for the rest of a blob of which a file has the beginning, and
// compares the whole with what the server has. False means that the file is
// not the beginning of the blob: it has to be fetched anew.
func (l *link) resume(ctx context.Context, k blobKey, d *download) (whole bool, err error) {
	info, err := l.stub.BlobInfo(ctx, k.oid, k.tid)
	if err != nil {
		return false, err
	}
	have := d.bytes()
	if have > info.Size {
		return false, nil
	}
	if err := l.stub.SendBlobFrom(ctx, k.oid, k.tid, have); err != nil {
		return false, err
	}
	if d.bytes() != info.Size {
		return false, nil
	}
	sum, err := checksum(d.file)
	return err == nil && sum == info.SHA256, err
}

// checksum is the SHA-256 of a file.
func checksum(f *os.File) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}
