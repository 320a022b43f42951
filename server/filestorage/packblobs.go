package filestorage

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/zeolite-go/zeolite"
)

// removedBlob names the blob of a revision that is packed away.
type removedBlob struct {
	oid zeolite.OID
	tid zeolite.TID
}

// removedList is a file in the blob directory that says what a pack is going to
// remove: lines of 32 hexadecimal digits, an oid and a tid. (Python also writes
// lines of 16, an oid that is gone with all its blobs.) It is written before the
// packed database takes its place, so that what is left to do after a crash can be
// done later; each entry is believed only if the database does not have it.
const removedList = ".removed"

// writeRemoved adds to the list, where a pack that did not end has left one.
func (p *packer) writeRemoved() error {
	d := p.s.blobs
	if d == nil {
		return nil
	}
	left, err := os.ReadFile(filepath.Join(d.path, removedList))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		lines := strings.Fields(string(left))
		for _, r := range p.removed {
			lines = append(lines, fmt.Sprintf("%x%x", r.oid.Bytes(), r.tid.Bytes()))
		}
		p.removed = nil
		slices.Sort(lines)
		err = d.writeList(slices.Compact(lines), p.s.fail)
	}
	return blobError("cannot write down which blobs to remove", err)
}

// writeList writes the list of blobs to remove. fail is that of syncDir.
func (d *blobDir) writeList(lines []string, fail func(error)) error {
	list := filepath.Join(d.path, removedList)
	err := writeWhole(d.fs, list+uploadSuffix, 0o666, []byte(strings.Join(append(lines, ""), "\n")))
	if err == nil {
		err = d.fs.Rename(list+uploadSuffix, list)
	}
	if err == nil {
		err = d.syncDir(d.path, fail)
	}
	return err
}

// removePackedBlobs removes the blobs that are listed, or moves them to
// <blob directory>.old; the others get a second name there. What cannot be removed
// stays in the list, for another time. If resumed is set, an earlier process began.
func (s *Storage) removePackedBlobs(ctx context.Context, resumed bool) error {
	d := s.blobs
	if d == nil {
		return nil
	}
	list := filepath.Join(d.path, removedList)
	text, err := os.ReadFile(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	old := d.path + ".old"
	if !resumed {
		if err := d.dropOld(old); err != nil {
			return err
		}
	}
	var noLinks error
	if s.opts.PackRemoveOld {
		old = ""
	} else if noLinks, err = d.startOld(old); err != nil {
		return fmt.Errorf("they cannot be kept: %w", err)
	}
	var left []string
	var failure error
	for line := range strings.FieldsSeq(string(text)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.removeListed(line, old); err != nil {
			left = append(left, line)
			if failure == nil {
				failure = err
			}
		}
	}
	if old != "" {
		if noLinks == nil {
			noLinks, err = d.linkAll(ctx, old)
		}
		if noLinks != nil {
			s.log.Warn("blobs that packing does not remove have no second name in the directory of old ones, only where they are",
				"directory", old, "error", noLinks)
		}
	}
	if failure != nil {
		failure = fmt.Errorf("%d are left for the next time, the first because of: %w", len(left), failure)
	}
	switch {
	case err != nil:
		return errors.Join(failure, err)
	case failure != nil:
		return errors.Join(failure, d.writeList(left, s.fail))
	}
	return d.fs.Remove(list)
}

// dropOld removes what an earlier pack has kept. The directory itself stays if a
// file system is mounted there, and so does what every new one has.
func (d *blobDir) dropOld(old string) error {
	if st, err := os.Lstat(old); err == nil && st.IsDir() { // else a link, say
		entries, err := os.ReadDir(old)
		for _, e := range entries {
			if e.Name() != "lost+found" {
				err = errors.Join(err, os.RemoveAll(filepath.Join(old, e.Name())))
			}
		}
		if err != nil {
			return err
		}
	}
	err := d.fs.Remove(old)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EBUSY) {
		return nil
	}
	return err
}

// removeListed removes what one line of the list names, or moves it to old,
// unless the database still has it.
func (s *Storage) removeListed(line, old string) error {
	b, err := hex.DecodeString(line)
	if err != nil || len(b) != 2*zeolite.IDLen && len(b) != zeolite.IDLen {
		s.log.Warn("passing over a line of the list of blobs to remove", "line", line)
		return nil
	}
	oid, _ := zeolite.OIDFromBytes(b[:zeolite.IDLen])
	if len(b) == zeolite.IDLen {
		return s.removeAllOf(oid, old)
	}
	tid, _ := zeolite.TIDFromBytes(b[zeolite.IDLen:])
	return s.removeBlob(oid, tid, old)
}

// removeAllOf removes all blobs of an object, if that does not exist.
func (s *Storage) removeAllOf(oid zeolite.OID, old string) error {
	g, err := s.acquire()
	if err != nil {
		return err
	}
	defer g.release()
	// In this order: what is committed from now on is newer.
	last := g.lastTID()
	switch pos, known := g.index.get(oid); {
	case pos == unreadable:
		return errUnreadable
	case known:
		return nil
	}
	d := s.blobs
	files, err := os.ReadDir(d.oidDir(oid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, f := range files {
		b, ok := d.parse(filepath.Join(d.oidDir(oid), f.Name()))
		if ok && b.oid == oid && b.tid <= last {
			err = errors.Join(err, s.removeBlob(oid, b.tid, old))
		}
	}
	return err
}

// removeBlob removes a blob, or moves it to old, unless the database still has it.
func (s *Storage) removeBlob(oid zeolite.OID, tid zeolite.TID, old string) error {
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
		err = d.moveTo(old+strings.TrimPrefix(name, d.path), name)
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

// moveTo moves a blob to where old ones are, which may be another file system.
func (d *blobDir) moveTo(to, name string) error {
	err := os.MkdirAll(filepath.Dir(to), 0o777)
	if err == nil {
		err = d.fs.Rename(name, to)
	}
	if err == nil || !otherFileSystem(err) {
		return err
	}
	if err = copyBlobFile(to, name); err == nil {
		err = d.fs.Remove(name)
	}
	return err
}

// copyBlobFile makes a durable copy of a blob.
func copyBlobFile(to, name string) error {
	b, err := zeolite.OpenFileBlob(name)
	if err != nil {
		return err
	}
	defer b.Close()
	st, err := b.File().Stat()
	if err != nil {
		return err
	}
	// A crash may have interrupted an earlier copy.
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, st.Mode().Perm())
	if err != nil {
		return err
	}
	if _, err = io.Copy(f, b.File()); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(to)
	}
	return err
}

// startOld makes the directory that keeps what blobs there were. noLinks is why no
// file can have a second name there: it may be on another file system.
func (d *blobDir) startOld(old string) (noLinks, err error) {
	if err := os.Mkdir(old, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	marker := filepath.Join(old, layoutMarker)
	noLinks = d.fs.Link(filepath.Join(d.path, layoutMarker), marker)
	if noLinks == nil || errors.Is(noLinks, fs.ErrExist) {
		return nil, nil
	}
	layout := layoutBushy
	if d.lawn {
		layout = layoutLawn
	}
	return noLinks, os.WriteFile(marker, []byte(layout), 0o666)
}

// linkAll gives every blob a second name in old. noLinks is why that was not possible
// for the first that has none.
func (d *blobDir) linkAll(ctx context.Context, old string) (noLinks, err error) {
	err = filepath.WalkDir(d.path, func(name string, e fs.DirEntry, err error) error {
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
		err = d.fs.Link(name, to)
		if errors.Is(err, fs.ErrNotExist) {
			if err = os.MkdirAll(filepath.Dir(to), 0o777); err == nil {
				err = d.fs.Link(name, to)
			}
		}
		switch {
		case err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist):
			return nil
		case noLinks == nil:
			noLinks = err
		}
		if otherFileSystem(err) {
			return fs.SkipAll
		}
		return nil
	})
	return noLinks, err
}
