package filestorage

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeolite-go/zeolite"
)

// How a group of transactions becomes durable, all or none of each, in order.
// There are two ways. Small groups go through the write-ahead log:
//
//  1. The log gets an entry with the group, and a checksum. Its blocks are on
//     disk when that write returns.
//  2. The group is written to Data.fs, which is synced later (walsync.go), or
//     after a power failure written again from the log (walreplay.go).
//
// Large groups, and all if there is no log, take two syncs of Data.fs instead of
// writing everything twice:
//
//  1. Behind the last transaction is the guard, on disk: an empty transaction
//     with status 'c'. (A group before this one has left it there; if there was
//     none, or that went into the log, it takes one more sync.)
//  2. The group is written over it, each transaction with status 'c', and a
//     new guard behind. Sync.
//  3. The status bytes are set, first to last. Sync.
//
// Before the first sync any part of the group may be on disk or not, but the
// first byte of it that a reader looks at for its status was 'c' before and is
// 'c' after, so every reader stops there. After the first sync all of the group
// is there; what is left to happen is one byte for each transaction, and a
// transaction counts when its byte and those of all before it are there. Fewer
// syncs will not do in Data.fs alone: a reader knows a committed transaction by
// its header, and nothing vouches for the bytes behind it, which a disk may bring
// in any order.
//
// So after a power failure a file without a log can be opened by any reader of
// the format. With a log, Data.fs may lack the end, or have holes there, until
// this package has opened it. If just the process ended, nothing is missing in
// either case: what was written is in the page cache.
//
// Blobs have their names by then; how they become durable is told in blobsync.go.
// All this is one step of the committer: it runs with the commit lock held.

// groupBuffer is how much of a group is gathered for one write.
const groupBuffer = 1 << 20

// writeGroup makes transactions durable that have been laid out from pos on,
// without gaps; last is the TID of the last of them. After an error none of
// them is in the file; if the error wraps zeolite.ErrInDoubt, that is not sure.
func (s *Storage) writeGroup(g *generation, group []*Txn, pos int64, last zeolite.TID, logged bool, blobs *groupBlobs) (end int64, err error) {
	// Until all is prepared there is nothing to undo.
	var entry []byte
	if logged {
		entry, err = s.logEntry(group, blobs)
	} else {
		err = s.guard(g, pos)
	}
	if logged || err != nil {
		err = errors.Join(err, s.blobsSynced(blobs))
	}
	if err != nil {
		return pos, &zeolite.StorageError{Message: "cannot write the transaction", Err: err}
	}
	mayCount := true // some of the group, unless it is undone: the log may have it
	if logged {
		end, err = s.writeLogged(g, entry, pos, blobs)
	} else {
		end, mayCount, err = s.writeSynced(g, group, pos, last, blobs)
	}
	if err == nil {
		return end, nil
	}
	err = &zeolite.StorageError{Message: "cannot write the transaction", Err: err}
	undo := s.cutBack(g, pos)
	if undo == nil && logged {
		undo = s.wal.void()
	}
	if undo != nil {
		s.fail(fmt.Errorf("cannot restore Data.fs to its state before a transaction that failed (%w): %w", err, undo))
		if mayCount {
			err = errors.Join(zeolite.ErrInDoubt, err)
		}
	}
	return pos, err
}

// blobsSynced waits until the blobs of a group that will not be in the log are
// durable. A sync may have failed for who syncs others: then ours says nothing.
func (s *Storage) blobsSynced(blobs *groupBlobs) error {
	return errors.Join(blobs.syncs.wait(), s.failed())
}

// useLog says whether a group goes into the write-ahead log. It is made if there
// is none.
func (s *Storage) useLog(group []*Txn) bool {
	if s.wal == nil {
		return false
	}
	var size int64
	for _, t := range group {
		size += t.reserved
		if !t.stage.inMemory() || size > walGroupMax {
			return false
		}
	}
	if err := s.wal.open(); err != nil {
		s.log.Warn("commits sync Data.fs itself from now on, which takes longer", "error", err)
		s.wal = nil
		return false
	}
	return true
}

// logEntry returns what the log gets for a group, behind room for a header, and
// sees to it that the log has room for it.
func (s *Storage) logEntry(group []*Txn, blobs *groupBlobs) ([]byte, error) {
	var size int64
	for _, t := range group {
		size += t.reserved
	}
	b := s.wal.buffer(size + blobs.logged())[:walHeaderLen]
	for _, t := range group {
		b = append(b, t.stage.buf...)
		b[len(b)-len(t.stage.buf)+statusOffset] = t.meta.Status
	}
	b, err := blobs.appendTo(b)
	if err != nil {
		return nil, err
	}
	return b, s.wal.makeRoom(size + blobs.logged())
}

// writeLogged writes a group to the log, and then to Data.fs.
func (s *Storage) writeLogged(g *generation, b []byte, pos int64, blobs *groupBlobs) (end int64, err error) {
	size := int64(len(b)) - walHeaderLen - blobs.logged()
	if err := s.wal.append(b[:cap(b)], size, blobs.logged(), pos, g.lastTID()); err != nil {
		return 0, err
	}
	if _, err := g.file.WriteAt(b[walHeaderLen:walHeaderLen+size], pos); err != nil {
		return 0, err
	}
	return pos + size, nil
}

// guard sees to it that the guard is at pos, durably, and all that comes before.
func (s *Storage) guard(g *generation, pos int64) error {
	if s.guardAt == pos {
		return nil
	}
	if _, err := g.file.WriteAt(appendGuard(nil, g.lastTID()), pos); err != nil {
		return err
	}
	if err := s.data.upTo(g.file, pos); err != nil {
		return err
	}
	s.guardAt = pos
	return nil
}

// writeSynced writes a group to Data.fs, over the guard, with two syncs. begun says
// that it got as far as the statuses: after an error, too, some may be there.
func (s *Storage) writeSynced(g *generation, group []*Txn, pos int64, last zeolite.TID, blobs *groupBlobs) (end int64, begun bool, err error) {
	if end, err = s.writeUncommitted(g, group, pos, last); err == nil {
		err = g.file.Sync()
	}
	if err = errors.Join(err, s.blobsSynced(blobs)); err != nil {
		return end, false, err
	}
	if err = setStatuses(g.file, group); err == nil {
		err = g.file.Sync()
	}
	if err == nil {
		s.data.set(end)
		s.guardAt = end
	}
	return end, true, err
}

// writeUncommitted writes the group with status 'c', and the guard.
func (s *Storage) writeUncommitted(g *generation, group []*Txn, pos int64, last zeolite.TID) (int64, error) {
	w := &groupWriter{file: g.file, pos: pos, buf: s.groupBuf[:0]}
	for _, t := range group {
		if err := t.write(w); err != nil {
			return 0, err
		}
	}
	end := w.pos + int64(len(w.buf))
	var guard [guardLen]byte
	if err := w.write(appendGuard(guard[:0], last)); err != nil {
		return 0, err
	}
	err := w.flush()
	s.groupBuf = w.buf[:0]
	return end, err
}

// setStatuses marks the transactions as committed, in order.
func setStatuses(file File, group []*Txn) error {
	for _, t := range group {
		if _, err := file.WriteAt([]byte{t.meta.Status}, t.pos+statusOffset); err != nil {
			return err
		}
	}
	return nil
}

// cutBack removes everything from pos on, where the last visible transaction
// ends.
func (s *Storage) cutBack(g *generation, pos int64) error {
	s.guardAt = 0
	if err := g.file.Truncate(pos); err != nil {
		return err
	}
	if err := s.data.upTo(g.file, pos); err != nil {
		return err
	}
	// Cutting the file has given back what was allocated for others.
	if err := s.space.replace(g.file, pos); err != nil {
		s.log.Error("cannot reserve disk space again; transactions that voted may fail", "error", err)
	}
	return nil
}

// groupWriter gathers small writes and passes large ones on.
type groupWriter struct {
	file File
	pos  int64 // of buf
	buf  []byte
}

func (w *groupWriter) write(b []byte) error {
	if len(w.buf)+len(b) > groupBuffer {
		if err := w.flush(); err != nil {
			return err
		}
		if len(b) >= groupBuffer/2 {
			_, err := w.file.WriteAt(b, w.pos)
			w.pos += int64(len(b))
			return err
		}
	}
	w.buf = append(w.buf, b...)
	return nil
}

func (w *groupWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.file.WriteAt(w.buf, w.pos)
	w.pos += int64(len(w.buf))
	w.buf = w.buf[:0]
	return err
}

// layout fixes everything that depends on the place of the transaction in the
// file: its TID and position, and what the records point to.
func (t *Txn) layout(g *generation, tid zeolite.TID, pos int64) error {
	t.tid, t.pos = tid, pos
	for i := range t.recs {
		r := &t.recs[i]
		if r.dead {
			continue
		}
		prev, known := g.index.get(r.oid)
		if prev == unreadable {
			return errUnreadable
		}
		if r.checked && (r.seenIn != g || r.seenPos != prev) {
			if err := g.stillCurrent(r, prev, known); err != nil {
				return err
			}
		}
		if t.stage.inMemory() {
			t.place(t.stage.buf[r.off:], prev)
		}
	}
	if t.stage.inMemory() {
		binary.BigEndian.PutUint64(t.stage.buf, uint64(tid))
		binary.BigEndian.PutUint64(t.stage.buf[8:], uint64(t.reserved-lengthLen))
	}
	return nil
}

// place fills in a record header.
func (t *Txn) place(b []byte, prev int64) {
	binary.BigEndian.PutUint64(b[8:], uint64(t.tid))
	binary.BigEndian.PutUint64(b[16:], uint64(prev))
	binary.BigEndian.PutUint64(b[24:], uint64(t.pos))
}

// stillCurrent makes sure that the object has not changed since its record was
// staged. Whoever calls Finish must see to that; but a mistake there would
// otherwise be a lost update that nobody notices.
func (g *generation) stillCurrent(r *stagedRecord, pos int64, known bool) error {
	if !known {
		return nil // new, or packed away since
	}
	var buf [recHdrLen + backLen]byte
	h, _, err := g.readHeader(r.oid, pos, buf[:])
	if err == nil && h.tid != r.seen {
		err = &zeolite.ConflictError{OID: r.oid, Committed: h.tid, Seen: r.seen}
	}
	return err
}

// write writes the transaction as layout left it.
func (t *Txn) write(w *groupWriter) error {
	if t.stage.inMemory() {
		return w.write(t.stage.buf)
	}
	return t.writeSpilled(w)
}

// writeSpilled copies a transaction from its temporary file, without the
// records that were replaced.
func (t *Txn) writeSpilled(w *groupWriter) error {
	g := t.s.gen.Load()
	headLen := t.stage.size()
	if len(t.recs) > 0 {
		headLen = t.recs[0].off
	}
	head := make([]byte, headLen)
	if err := t.stage.readAt(head, 0); err != nil {
		return err
	}
	binary.BigEndian.PutUint64(head, uint64(t.tid))
	binary.BigEndian.PutUint64(head[8:], uint64(t.reserved-lengthLen))
	if err := w.write(head); err != nil {
		return err
	}
	chunk := make([]byte, groupBuffer)
	for i := range t.recs {
		r := &t.recs[i]
		if r.dead {
			continue
		}
		prev, _ := g.index.get(r.oid)
		if prev == unreadable {
			return errUnreadable
		}
		for done, total := int64(0), r.len(); done < total; {
			b := chunk[:min(total-done, int64(len(chunk)))]
			if err := t.stage.readAt(b, r.off+done); err != nil {
				return err
			}
			if done == 0 {
				t.place(b, prev)
			}
			if err := w.write(b); err != nil {
				return err
			}
			done += int64(len(b))
		}
	}
	var length [lengthLen]byte
	binary.BigEndian.PutUint64(length[:], uint64(t.reserved-lengthLen))
	return w.write(length[:])
}
