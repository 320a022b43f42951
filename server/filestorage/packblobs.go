package filestorage

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/zeolite-go/zeolite"
)

// removedBlob names the blob of a revision that is packed away.
type removedBlob struct {
	oid zeolite.OID
	tid zeolite.TID
}

// removedList is a file in the blob directory that says what a pack is going to
// remove: lines of 32 hexadecimal digits, an oid and a tid. (Python also writes
// lines of 16, an oid.) It is written before the packed database takes its
// place, so that what is left to do after a crash can be done later; each entry
// is believed only if the database does not have the revision.
const removedList = ".removed"

// writeRemoved adds to the list, where a pack that did not end has left one.
func (p *packer) writeRemoved() error {
	d := p.s.blobs
	if d == nil {
		return nil
	}
	list := filepath.Join(d.path, removedList)
	left, err := os.ReadFile(list)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		lines := strings.Fields(string(left))
		for _, r := range p.removed {
			lines = append(lines, fmt.Sprintf("%x%x", r.oid.Bytes(), r.tid.Bytes()))
		}
		p.removed = nil
		slices.Sort(lines)
		text := strings.Join(append(slices.Compact(lines), ""), "\n")
		err = writeWhole(d.fs, list+uploadSuffix, 0o666, []byte(text))
	}
	if err == nil {
		err = d.fs.Rename(list+uploadSuffix, list)
	}
	if err == nil {
		err = d.syncDir(d.path, p.s.fail)
	}
	return blobError("cannot write down which blobs to remove", err)
}

// removePackedBlobs removes the blobs that are listed, or moves them to
// <blob directory>.old; the others get a second name there. If resumed is set,
// an earlier process began to.
func (s *Storage) removePackedBlobs(ctx context.Context, resumed bool) error {
	d := s.blobs
	if d == nil {
		return nil
	}
	list := filepath.Join(d.path, removedList)
	f, err := os.Open(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	old := d.path + ".old"
	if !resumed {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	if s.opts.PackRemoveOld {
		old = ""
	} else if err := d.startOld(old); err != nil {
		return err
	}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.removeListed(lines.Text(), old); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if old != "" {
		if err := d.linkAll(ctx, old); err != nil {
			return err
		}
	}
	return d.fs.Remove(list)
}

// removeListed removes what one line of the list names, or moves it to old,
// unless the database still has it.
func (s *Storage) removeListed(line, old string) error {
	b, err := hex.DecodeString(strings.TrimSpace(line))
	if err != nil || len(b) != 2*zeolite.IDLen {
		s.log.Warn("passing over a line of the list of blobs to remove", "line", line)
		return nil
	}
	oid, _ := zeolite.OIDFromBytes(b[:zeolite.IDLen])
	tid, _ := zeolite.TIDFromBytes(b[zeolite.IDLen:])
	g, err := s.acquire()
	if err != nil {
		return err
	}
	defer g.release()
	var buf [recHdrLen + backLen]byte
	if h, _, err := g.revision(oid, tid, buf[:]); err != nil || h.pos != 0 {
		return err
	}
	d := s.blobs
	name := d.file(oid, tid)
	if old == "" {
		err = d.fs.Remove(name)
	} else {
		to := old + strings.TrimPrefix(name, d.path)
		if err = os.MkdirAll(filepath.Dir(to), 0o777); err == nil {
			err = d.fs.Rename(name, to)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Directories go when they are empty. A commit makes its own again, so
	// none may be on its way into one.
	s.committer.lock <- struct{}{}
	defer func() { <-s.committer.lock }()
	for dir := filepath.Dir(name); len(dir) > len(d.path); dir = filepath.Dir(dir) {
		if d.removeDir(dir) != nil {
			break
		}
	}
	return nil
}

// startOld makes the directory that keeps what blobs there were.
func (d *blobDir) startOld(old string) error {
	err := os.Mkdir(old, 0o777)
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = os.Link(filepath.Join(d.path, layoutMarker), filepath.Join(old, layoutMarker))
	}
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	return err
}

// linkAll gives every blob a second name in old.
func (d *blobDir) linkAll(ctx context.Context, old string) error {
	return filepath.WalkDir(d.path, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if e.IsDir() || !strings.HasSuffix(name, blobSuffix) {
			return ctx.Err()
		}
		to := old + strings.TrimPrefix(name, d.path)
		err = os.Link(name, to)
		if errors.Is(err, fs.ErrNotExist) {
			if err = os.MkdirAll(filepath.Dir(to), 0o777); err == nil {
				err = os.Link(name, to)
			}
		}
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
		return err
	})
}
