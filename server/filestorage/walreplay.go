package filestorage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/gofrs/flock"

	"github.com/zeolite-go/zeolite"
)

// walChain is what a log adds to Data.fs: its newest entries, as far back as
// each continues the one before. What came earlier is in Data.fs, durably.
type walChain []walRecord

type walRecord struct {
	walEntry
	transactions []byte
	files        []walBlob
}

// readWAL reads the log path. It fails with fs.ErrNotExist if there is none.
func readWAL(path string) (walChain, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > 2*walSizeMax {
		return nil, fmt.Errorf("%s is too large for a write-ahead log", path)
	}
	b := make([]byte, st.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("cannot read the write-ahead log: %w", err)
	}
	if v, other := otherWAL(b); other {
		return nil, fmt.Errorf("%s has version %q, and was written by another version of zeolite: open the database once with that one", path, v)
	}
	return parseWAL(b), nil
}

// parseWAL returns what is in a log. A log without its first block has not been
// used: that is written before anything else.
func parseWAL(b []byte) walChain {
	epoch, ok := parseWALHeader(b)
	if !ok {
		return nil
	}
	var all walChain
	for b = b[walBlock:]; len(b) >= walBlock; {
		r, ok := parseWALEntry(b)
		if !ok || r.epoch != epoch {
			b = b[walBlock:]
			continue
		}
		all = append(all, r)
		b = b[min(walBlocks(r.length+r.blobs), int64(len(b))):]
	}
	slices.SortFunc(all, func(a, b walRecord) int { return cmp.Compare(a.seq, b.seq) })
	first := max(0, len(all)-1)
	for first > 0 && all[first-1].seq+1 == all[first].seq && all[first-1].next() == all[first].pos && all[first-1].length > 0 {
		first--
	}
	if all = all[first:]; len(all) == 1 && all[0].length == 0 {
		return nil
	}
	return all
}

// errForeignWAL says that Data.fs is not the file that a log was written for, or an
// older copy of it, or that something has written to it since.
var errForeignWAL = errors.New("the write-ahead log does not fit Data.fs")

// missing returns the number of bytes that Data.fs does not have as the log says.
// They may be past its end or zero there, or still the guard that was there
// before, since any part of a write may be lost; but nothing else, or the log is
// not for this file.
func (c walChain) missing(file io.ReaderAt) (n int64, err error) {
	if err := c.checkStart(file); err != nil {
		return 0, err
	}
	var buf []byte
	for _, r := range c {
		buf = slices.Grow(buf[:0], int(r.length))[:r.length]
		have, err := file.ReadAt(buf, r.pos)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, readError(r.pos, err)
		}
		if bytes.Equal(buf[:have], r.transactions) {
			continue
		}
		clear(buf[have:])
		guard := appendGuard(nil, r.last)
		for i, want := range r.transactions {
			switch {
			case i < have && buf[i] == want:
				continue
			case buf[i] != 0 && (i >= len(guard) || buf[i] != guard[i]):
				return 0, errForeignWAL
			}
			n++
		}
	}
	return n, nil
}

// blobs returns the blobs, newest entry last.
func (c walChain) blobs() (all []walBlob) {
	for _, r := range c {
		all = append(all, r.files...)
	}
	return all
}

// checkStart makes sure that Data.fs has the transaction after which the log
// begins, and all that was durable there when its entries were written: a shorter
// file is an older copy that somebody has put in its place.
func (c walChain) checkStart(file io.ReaderAt) error {
	first, durable := c[0], int64(0)
	for _, r := range c {
		durable = max(durable, r.durable)
	}
	if durable > 0 {
		if n, err := file.ReadAt(make([]byte, 1), durable-1); n < 1 {
			if err != nil && !errors.Is(err, io.EOF) {
				return readError(durable-1, err)
			}
			return errForeignWAL
		}
	}
	if first.pos == magicLen && first.last == 0 {
		return nil
	}
	w := &window{file: file, buf: make([]byte, 0, 4096)}
	h, err := w.before(first.pos)
	if err != nil || h.tid != first.last || h.next() != first.pos {
		return errForeignWAL
	}
	return nil
}

// write writes all of it to Data.fs, also what seems to be there: that may be so
// in memory only, if a sync has failed. The guard behind it may be as incomplete
// as the rest was, and goes.
func (c walChain) write(file File) error {
	for _, r := range c {
		if _, err := file.WriteAt(r.transactions, r.pos); err != nil {
			return err
		}
	}
	end := c[len(c)-1].next()
	b := make([]byte, guardLen)
	n, err := file.ReadAt(b, end)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	tids := c.tids()
	guard := appendGuard(nil, tids[len(tids)-1])
	for i, have := range b[:n] {
		if have != 0 && have != guard[i] {
			return nil // another transaction
		}
	}
	size, err := file.Size()
	if err != nil || size > end+guardLen {
		return err
	}
	return file.Truncate(end)
}

// tids returns the TIDs of the transactions.
func (c walChain) tids() (tids []zeolite.TID) {
	for _, r := range c {
		for b := r.transactions; len(b) >= txnHdrLen; {
			h := parseTxnHeader(b, 0)
			tids = append(tids, h.tid)
			if h.length < txnHdrLen || h.next() > int64(len(b)) {
				break
			}
			b = b[h.next():]
		}
	}
	return tids
}

// forgetPresent removes from tids those of transactions that Data.fs has.
func (g *generation) forgetPresent(tids map[zeolite.TID]bool) error {
	if len(tids) == 0 {
		return nil
	}
	end := g.end.Load()
	pos, err := g.findTxn(context.Background(), slices.Min(slices.Collect(maps.Keys(tids))), end)
	for w := newWindow(g.file); err == nil && pos < end && len(tids) > 0; {
		var h txnHeader
		if h, err = w.txn(pos, end); err == nil {
			delete(tids, h.tid)
			pos = h.next()
		}
	}
	return err
}

func (s *Storage) walPath() string { return s.path + ".wal" }

// replayLog brings into Data.fs what a log has that an earlier process left. The
// caller syncs Data.fs and then calls the returned function.
func (s *Storage) replayLog(file File) (done func() error, err error) {
	done = func() error { return nil }
	chain, err := readWAL(s.walPath())
	if errors.Is(err, fs.ErrNotExist) {
		return done, nil
	}
	if err != nil {
		return nil, &zeolite.StorageError{Message: "the write-ahead log cannot be read", Err: err}
	}
	if len(chain) == 0 {
		return s.removeLog, nil
	}
	if s.blobs == nil && len(chain.blobs()) > 0 {
		return nil, &zeolite.StorageError{Message: "the write-ahead log of a server that did not end properly has blobs: open the database with its blob directory once"}
	}
	n, err := chain.missing(file)
	switch {
	case errors.Is(err, errForeignWAL):
		return func() error { return s.setLogAside(chain) }, nil
	case err != nil:
		return nil, err
	}
	if err := chain.write(file); err != nil {
		return nil, &zeolite.StorageError{Message: "cannot write what is in the write-ahead log to Data.fs", Err: err}
	}
	lacked, err := s.blobs.restore(chain.blobs())
	if err != nil {
		return nil, blobError("cannot write the blobs that are in the write-ahead log", err)
	}
	if n > 0 {
		s.log.Warn("Data.fs lacked transactions that were committed; they were in the write-ahead log", "path", s.path, "bytes", n)
	}
	if lacked > 0 {
		s.log.Warn("the blob directory lacked blobs that were committed; they were in the write-ahead log", "path", s.blobs.path, "blobs", lacked)
	}
	return s.removeLog, nil
}

// abandonLog sees to a log without a Data.fs.
func (s *Storage) abandonLog() error {
	chain, err := readWAL(s.walPath())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(chain) == 0:
		return s.removeLog()
	}
	return s.setLogAside(chain)
}

// warnAboutLog says so if Data.fs lacks what is in the log.
func (s *Storage) warnAboutLog(file io.ReaderAt) {
	chain, err := readWAL(s.walPath())
	if err != nil || len(chain) == 0 {
		return
	}
	if n, err := chain.missing(file); (err != nil || n > 0) && !inUse(s.path) {
		s.log.Warn("Data.fs may lack transactions that were committed before a power failure; open it for writing once to bring them in from the write-ahead log",
			"path", s.path, "bytes", n)
	}
	if n := s.blobs.lacks(chain.blobs()); n > 0 && !inUse(s.path) {
		s.log.Warn("blobs may be missing that were committed before a power failure; open the database for writing once to bring them in from the write-ahead log",
			"path", s.blobs.path, "blobs", n)
	}
}

// inUse says whether a process has the database open for writing: what is in its
// log and not yet in Data.fs is on its way there.
func inUse(path string) bool {
	lock := flock.New(path+".lock", flock.SetFlag(os.O_RDONLY))
	free, err := lock.TryRLock()
	if free {
		lock.Unlock()
	}
	return err == nil && !free
}

func (s *Storage) removeLog() error {
	err := s.fs.Remove(s.walPath())
	if err == nil {
		err = s.fs.SyncDir(s.dir())
	}
	if err != nil {
		return &zeolite.StorageError{Message: "cannot remove the write-ahead log", Err: err}
	}
	return nil
}

// setLogAside sees to a log that is not for Data.fs as it is. If that has all its
// transactions nothing is lost: somebody packed it. Otherwise the log is kept.
func (s *Storage) setLogAside(chain walChain) error {
	lost := make(map[zeolite.TID]bool)
	for _, tid := range chain.tids() {
		lost[tid] = true
	}
	wanted := len(lost)
	if g := s.gen.Load(); g != nil {
		if err := g.forgetPresent(lost); err != nil {
			return err
		}
		if err := s.restoreKnown(g, chain.blobs()); err != nil {
			return err
		}
	}
	if len(lost) == 0 {
		return s.removeLog()
	}
	for n := 0; ; n++ {
		name := fmt.Sprintf("%s%d", s.walPath(), n)
		if exists(name) {
			continue
		}
		err := s.fs.Rename(s.walPath(), name)
		if err == nil {
			err = s.fs.SyncDir(s.dir())
		}
		if err != nil {
			return &zeolite.StorageError{Message: "cannot rename the write-ahead log", Err: err}
		}
		s.log.Error("the write-ahead log of a server that did not end properly does not fit Data.fs; since then something else has written to it, or packed it, or put an older copy in its place, and some transactions of the log are NOT there",
			"path", s.path, "transactions", len(lost), "of", wanted, "kept in", name)
		return nil
	}
}
