package filestorage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/zeolite-go/zeolite"
)

// blobDir is a directory of blobs in one of ZODB's layouts:
//
//	bushy  0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x01/0x040d2c883401a944.blob
//	lawn   0x01/0x040d2c883401a944.blob
//
// with the name of the layout in the file .layout, and uploads in tmp. Its
// methods may be called by several goroutines at once.
type blobDir struct {
	path string
	lawn bool
	fs   FileSystem

	mu    sync.Mutex        // held while directories are made
	fresh map[string]uint64 // directories that were made, and whose own names may not be durable
	made  uint64            // how many were made
	lost  uint64            // how often fresh was forgotten
	// known are directories whose names are durable. Of others that is not sure,
	// whoever made them: an earlier process, a client, or Python.
	known map[string]struct{}

	syncMu  sync.Mutex
	syncing map[string]*dirSync // by name, while somebody does (blobsync.go)
}

// knownMax is how many directories are known or fresh at most; then all are
// forgotten. Fresh ones of transactions that were aborted are never synced.
const knownMax = 4096

const (
	layoutMarker = ".layout"
	layoutBushy  = "bushy"
	layoutLawn   = "lawn"
	blobSuffix   = ".blob"

	// uploadPrefix is how the names of our uploads begin. Clients that share
	// the directory have files in tmp, too.
	uploadPrefix = "zeolite-"
	uploadSuffix = ".tmp"
)

// openBlobDir finds out about a directory and makes what is missing, unless it
// is to be only read.
func openBlobDir(fsys FileSystem, path, layout string, readOnly bool) (*blobDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	d := &blobDir{path: path, fs: fsys}
	found, marked, err := d.findLayout()
	if err != nil {
		return nil, err
	}
	if layout == "" || layout == "automatic" {
		layout = found
	}
	if layout != layoutBushy && layout != layoutLawn {
		return nil, &zeolite.StorageError{Message: fmt.Sprintf("blob directory %s has an unknown layout %q", path, layout)}
	}
	if marked && layout != found {
		return nil, &zeolite.StorageError{Message: fmt.Sprintf("blob directory %s has the layout %s, not %s", path, found, layout)}
	}
	d.lawn = layout == layoutLawn
	if readOnly {
		return d, nil
	}
	if err := os.MkdirAll(d.tmp(), 0o777); err != nil {
		return nil, err
	}
	if !marked {
		if err := writeWhole(fsys, filepath.Join(path, layoutMarker), 0o666, []byte(layout)); err != nil {
			return nil, err
		}
	}
	return d, errors.Join(fsys.SyncDir(path), fsys.SyncDir(filepath.Dir(path)))
}

// findLayout goes by the marker, then by what is there: a directory that has
// files but no marker is older than markers, and a lawn. A marker that is empty
// is what a power failure has left of one; and tmp alone, of a new directory.
func (d *blobDir) findLayout() (layout string, marked bool, err error) {
	b, err := os.ReadFile(filepath.Join(d.path, layoutMarker))
	if err == nil && len(b) > 0 {
		return strings.TrimSpace(string(b)), true, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	if err == nil {
		// In a lawn there are blobs two levels down, in a bush directories.
		lawn, err := fs.Glob(os.DirFS(d.path), "0x*/*"+blobSuffix)
		if err != nil || len(lawn) == 0 {
			return layoutBushy, false, err
		}
		return layoutLawn, false, nil
	}
	entries, err := os.ReadDir(d.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && e.Name() != filepath.Base(d.tmp()) {
			return layoutLawn, false, nil
		}
	}
	return layoutBushy, false, nil
}

func (d *blobDir) tmp() string { return filepath.Join(d.path, "tmp") }

// oidDir is the directory of an object's blobs.
func (d *blobDir) oidDir(oid zeolite.OID) string {
	return filepath.Join(d.path, d.relOIDDir(oid))
}

func (d *blobDir) relOIDDir(oid zeolite.OID) string {
	if d.lawn {
		return oid.String()
	}
	var b strings.Builder
	for i, c := range oid.Bytes() {
		if i > 0 {
			b.WriteByte(filepath.Separator)
		}
		fmt.Fprintf(&b, "0x%02x", c)
	}
	return b.String()
}

// file is the name of a committed blob.
func (d *blobDir) file(oid zeolite.OID, tid zeolite.TID) string {
	return filepath.Join(d.oidDir(oid), zeolite.OID(tid).String()+blobSuffix)
}

// makeDir makes the directory of an object's blobs. That it is there after a
// power failure takes a sync of what namesOf returns.
func (d *blobDir) makeDir(oid zeolite.OID) error {
	// Who finds a directory must find it in fresh, too.
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.makeDirs(d.oidDir(oid))
}

func (d *blobDir) makeDirs(dir string) error {
	err := d.fs.Mkdir(dir, 0o777)
	switch {
	case err == nil:
		if len(d.fresh) >= knownMax {
			d.fresh = nil
			d.lost++
		}
		if d.fresh == nil {
			d.fresh = make(map[string]uint64)
		}
		d.made++
		d.fresh[dir] = d.made
		delete(d.known, dir)
		return nil
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist) && len(dir) > len(d.path):
		if err = d.makeDirs(filepath.Dir(dir)); err == nil {
			return d.makeDirs(dir)
		}
		return err
	}
	return &zeolite.StorageError{Message: "cannot make a blob directory", Err: err}
}

// freshDir is a directory that was made as the n-th one, or by somebody else if n is
// 0; when fresh directories had been forgotten so often.
type freshDir struct {
	name string
	n    uint64
	lost uint64
}

// namesOf returns the directories that must be synced, so that a file in dir is
// there after a power failure: dir, and those that names of directories are in
// which may not be durable.
func (d *blobDir) namesOf(dir string) (dirs []string, fresh []freshDir) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dirs = []string{dir}
	for len(dir) > len(d.path) {
		if _, known := d.known[dir]; known {
			break
		}
		fresh = append(fresh, freshDir{dir, d.fresh[dir], d.lost})
		dir = filepath.Dir(dir)
		dirs = append(dirs, dir)
	}
	return dirs, fresh
}

// durable says that the names of directories are: if one was removed and made
// again since, it is not meant.
func (d *blobDir) durable(fresh []freshDir) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil || len(d.known) >= knownMax {
		d.known = make(map[string]struct{})
	}
	for _, f := range fresh {
		if d.fresh[f.name] == f.n && d.lost == f.lost {
			delete(d.fresh, f.name)
			d.known[f.name] = struct{}{}
		}
	}
}

// removeDir removes a directory if it is empty.
func (d *blobDir) removeDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.fs.Remove(dir)
	if err == nil {
		delete(d.known, dir)
		delete(d.fresh, dir)
	}
	return err
}

// removeStale removes uploads that an earlier process left. The caller holds
// the lock of the storage.
func (d *blobDir) removeStale() {
	entries, err := os.ReadDir(d.tmp())
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), uploadPrefix) && strings.HasSuffix(e.Name(), uploadSuffix) {
			os.Remove(filepath.Join(d.tmp(), e.Name()))
		}
	}
}

// removeAll removes the directory's contents.
func (d *blobDir) removeAll() error {
	entries, err := os.ReadDir(d.path)
	for _, e := range entries {
		if err == nil {
			err = os.RemoveAll(filepath.Join(d.path, e.Name()))
		}
	}
	return err
}

// place gives an upload the name of a committed blob, whose directory is made if
// need be.
func (d *blobDir) place(upload string, oid zeolite.OID, tid zeolite.TID) (name string, err error) {
	name = d.file(oid, tid)
	dir, err := os.Stat(filepath.Dir(name))
	if errors.Is(err, fs.ErrNotExist) {
		if err = d.makeDir(oid); err == nil {
			dir, err = os.Stat(filepath.Dir(name))
		}
	}
	if err != nil {
		return "", err
	}
	if err = d.setMode(upload, dir.Mode()); err == nil {
		err = d.fs.Rename(upload, name)
	}
	return name, err
}

// setMode gives an upload the mode of a committed blob. Clients that share the
// directory may have replaced it by a link to another file.
func (d *blobDir) setMode(upload string, dir fs.FileMode) error {
	b, err := zeolite.OpenFileBlob(upload)
	if err != nil {
		return err
	}
	st, err := b.File().Stat()
	if err == nil {
		err = b.File().Chmod(d.mode(st.Mode(), dir))
	}
	return errors.Join(err, b.Close())
}

// mode is that of a committed blob: that of its upload, without leave to
// write, and readable by whom its directory is.
func (d *blobDir) mode(upload, dir fs.FileMode) fs.FileMode {
	return upload.Perm()&^0o222 | dir.Perm()&0o444
}
