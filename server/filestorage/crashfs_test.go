package filestorage

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// crashFS is a FileSystem that works on real files and remembers every change,
// to tell later what might be left of them after a power failure at any point:
// of what was not synced, anything.
type crashFS struct {
	OSFileSystem
	root string

	mu  sync.Mutex
	ops []fsOp
	// fail, if set, is asked before each change, and before a file is opened
	// that is there, and may refuse it.
	fail func(op fsOp) error
	// inode numbers of files by their path.
	inodes map[string]int
	next   int
}

type fsOp struct {
	kind  string // create, write, truncate, sync, failed sync, rename, link, remove, mkdir, syncdir
	inode int
	name  string // relative to root
	to    string
	off   int64
	data  []byte
}

func newCrashFS(root string) *crashFS { return &crashFS{root: root, inodes: map[string]int{}} }

func (c *crashFS) rel(name string) string {
	r, err := filepath.Rel(c.root, name)
	if err != nil {
		panic(err)
	}
	return r
}

// saves counts how often the index was saved.
func (c *crashFS) saves() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, op := range c.ops {
		if op.kind == "rename" && op.to == "Data.fs.index" {
			n++
		}
	}
	return n
}

// do performs one change and remembers it.
func (c *crashFS) do(op fsOp, change func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		if err := c.fail(op); err != nil {
			if op.kind == "sync" {
				op.kind = "failed sync"
				c.ops = append(c.ops, op)
			}
			return err
		}
	}
	if err := change(); err != nil {
		return err
	}
	switch op.kind {
	case "create":
		c.inodes[op.name] = op.inode
	case "rename":
		c.inodes[op.to] = c.inodes[op.name]
		delete(c.inodes, op.name)
	case "link":
		c.inodes[op.to] = c.inodes[op.name]
	case "remove":
		delete(c.inodes, op.name)
	}
	c.ops = append(c.ops, op)
	return nil
}

func (c *crashFS) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ops)
}

// changes are those of now.
func (c *crashFS) changes() []fsOp {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ops[:len(c.ops):len(c.ops)]
}

func (c *crashFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	rel := c.rel(name)
	_, err := os.Lstat(name)
	creates := flag&os.O_CREATE != 0 && errors.Is(err, fs.ErrNotExist)
	var f File
	if creates {
		c.mu.Lock()
		c.next++
		inode := c.next
		c.mu.Unlock()
		err = c.do(fsOp{kind: "create", name: rel, inode: inode}, func() (err error) {
			f, err = c.OSFileSystem.OpenFile(name, flag, perm)
			return err
		})
	} else if err = c.mayOpen(rel); err == nil {
		f, err = c.OSFileSystem.OpenFile(name, flag, perm)
	}
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	inode, known := c.inodes[rel]
	c.mu.Unlock()
	if !known && flag&(os.O_WRONLY|os.O_RDWR) != 0 {
		panic("writing a file that was not created here: " + rel)
	}
	cf := &crashFile{File: f, c: c, inode: inode}
	if flag&os.O_TRUNC != 0 && !creates {
		err = c.do(fsOp{kind: "truncate", inode: inode}, func() error { return nil })
	}
	return cf, err
}

func (c *crashFS) mayOpen(rel string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail == nil {
		return nil
	}
	return c.fail(fsOp{kind: "open", name: rel})
}

func (c *crashFS) CreateLog(name string, perm fs.FileMode) (File, error) {
	f, err := c.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return nil, err
	}
	return crashLog{f}, nil
}

// crashLog is a file in which each write is durable when it returns.
type crashLog struct{ File }

func (f crashLog) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(b, off)
	if err == nil {
		err = f.Sync()
	}
	return n, err
}

func (c *crashFS) Rename(from, to string) error {
	return c.do(fsOp{kind: "rename", name: c.rel(from), to: c.rel(to)}, func() error { return os.Rename(from, to) })
}

func (c *crashFS) Link(from, to string) error {
	return c.do(fsOp{kind: "link", name: c.rel(from), to: c.rel(to)}, func() error { return os.Link(from, to) })
}

func (c *crashFS) Remove(name string) error {
	return c.do(fsOp{kind: "remove", name: c.rel(name)}, func() error { return os.Remove(name) })
}

func (c *crashFS) Mkdir(name string, perm fs.FileMode) error {
	return c.do(fsOp{kind: "mkdir", name: c.rel(name)}, func() error { return os.Mkdir(name, perm) })
}

func (c *crashFS) SyncDir(name string) error {
	return c.do(fsOp{kind: "syncdir", name: c.rel(name)}, func() error { return nil })
}

type crashFile struct {
	File
	c     *crashFS
	inode int
}

func (f *crashFile) WriteAt(b []byte, off int64) (n int, err error) {
	op := fsOp{kind: "write", inode: f.inode, off: off, data: append([]byte(nil), b...)}
	err = f.c.do(op, func() error {
		n, err = f.File.WriteAt(b, off)
		return err
	})
	return n, err
}

func (f *crashFile) Truncate(size int64) error {
	return f.c.do(fsOp{kind: "truncate", inode: f.inode, off: size}, func() error { return f.File.Truncate(size) })
}

func (f *crashFile) Sync() error {
	return f.c.do(fsOp{kind: "sync", inode: f.inode}, func() error { return nil })
}

func (f *crashFile) Allocate(off, n int64) error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.c.fail != nil {
		return f.c.fail(fsOp{kind: "allocate", inode: f.inode, off: off + n})
	}
	return nil
}

// disk is what a power failure leaves.
type disk struct {
	rnd     *rand.Rand
	inodes  map[int][]byte
	pending map[int][]fsOp // writes to an inode since its last sync
	names   map[string]int // of files
	dirs    map[string]bool
	queue   []fsOp // changes of names that were not synced, in order
}

// crash returns the files that may be there after a power failure behind the
// n-th change.
func (c *crashFS) crash(n int, rnd *rand.Rand) map[string][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &disk{rnd: rnd, inodes: map[int][]byte{}, pending: map[int][]fsOp{}, names: map[string]int{}, dirs: map[string]bool{}}
	for _, op := range c.ops[:n] {
		switch op.kind {
		case "write", "truncate":
			d.pending[op.inode] = append(d.pending[op.inode], op)
		case "sync":
			for _, w := range d.pending[op.inode] {
				d.apply(w)
			}
			d.pending[op.inode] = nil
		case "failed sync":
			// As in Linux: what did not get to the disk will not, whatever
			// later syncs say.
			d.loseWrites(d.pending[op.inode])
			d.pending[op.inode] = nil
		case "syncdir":
			d.syncDir(op.name)
		default:
			d.queue = append(d.queue, op)
		}
	}
	// Changes of names become durable in order: a journal.
	for _, op := range d.queue[:rnd.IntN(len(d.queue)+1)] {
		d.rename(op)
	}
	for _, inode := range slices.Sorted(maps.Keys(d.pending)) {
		d.loseWrites(d.pending[inode])
	}
	files := map[string][]byte{}
	for name, inode := range d.names {
		files[name] = d.inodes[inode]
	}
	return files
}

// syncDir makes the names in a directory durable, and all changes before the
// last that concerns it.
func (d *disk) syncDir(dir string) {
	last := -1
	for i, op := range d.queue {
		if filepath.Dir(op.name) == dir || op.to != "" && filepath.Dir(op.to) == dir {
			last = i
		}
	}
	for _, op := range d.queue[:last+1] {
		d.rename(op)
	}
	d.queue = d.queue[last+1:]
}

func (d *disk) rename(op fsOp) {
	switch op.kind {
	case "create":
		d.names[op.name] = op.inode
	case "rename":
		d.names[op.to] = d.names[op.name]
		delete(d.names, op.name)
	case "link":
		d.names[op.to] = d.names[op.name]
	case "remove":
		delete(d.names, op.name)
	case "mkdir":
		d.dirs[op.name] = true
	}
}

func (d *disk) apply(op fsOp) {
	b := d.inodes[op.inode]
	switch op.kind {
	case "truncate":
		if op.off <= int64(len(b)) {
			b = b[:op.off]
		} else {
			b = append(b, make([]byte, op.off-int64(len(b)))...)
		}
	case "write":
		if end := op.off + int64(len(op.data)); end > int64(len(b)) {
			b = append(b, make([]byte, end-int64(len(b)))...)
		}
		copy(b[op.off:], op.data)
	}
	d.inodes[op.inode] = b
}

// loseWrites applies some of the writes: all, none, or any of the sectors they
// touch.
func (d *disk) loseWrites(ops []fsOp) {
	const sector = 512
	mode := d.rnd.IntN(4)
	keep := []float64{0, 1, 0.5, 0.9}[mode]
	for _, op := range ops {
		if op.kind == "truncate" {
			if d.rnd.Float64() < keep {
				d.apply(op)
			}
			continue
		}
		// The length may be there without the data.
		if d.rnd.Float64() < (keep+1)/2 {
			d.apply(fsOp{kind: "write", inode: op.inode, off: op.off + int64(len(op.data))})
		}
		for len(op.data) > 0 {
			n := min(int64(len(op.data)), sector-op.off%sector)
			if d.rnd.Float64() < keep {
				d.apply(fsOp{kind: "write", inode: op.inode, off: op.off, data: op.data[:n]})
			}
			op.off, op.data = op.off+n, op.data[n:]
		}
	}
}

// imageDir is a directory for files to look at, in memory where Linux has one
// there: most of the time goes into making and removing thousands of files.
func imageDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "zeolite")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// writeImage makes real files of what crash returned.
func writeImage(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	for name, b := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		if blobs, _, found := strings.Cut(name, string(filepath.Separator)); found && strings.HasSuffix(blobs, "blobs") {
			if err := os.WriteFile(filepath.Join(dir, blobs, layoutMarker), []byte(layoutBushy), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (op fsOp) String() string {
	return fmt.Sprintf("%s %d %s %s %d+%d", op.kind, op.inode, op.name, op.to, op.off, len(op.data))
}

// withoutSync is the FileSystem of the operating system for those whom no crash
// follows.
type withoutSync struct{ OSFileSystem }

type unsyncedFile struct{ osFile }

func (unsyncedFile) Sync() error { return nil }

func (withoutSync) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{osFile{f}}, nil
}

func (w withoutSync) CreateLog(name string, perm fs.FileMode) (File, error) {
	return w.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, perm)
}

func (withoutSync) SyncDir(string) error { return nil }
