package filestorage

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/references"
)

// blobRevision is a record of a blob.
type blobRevision struct {
	oid zeolite.OID
	tid zeolite.TID
}

func (a blobRevision) compare(b blobRevision) int {
	return cmp.Or(cmp.Compare(a.oid, b.oid), cmp.Compare(a.tid, b.tid))
}

// texts checks user, description and extension of a transaction.
func (c *checker) texts(h *txnHeader) {
	user, desc, ext, err := c.w.texts(*h)
	if err != nil {
		return // the transaction is damaged otherwise
	}
	odd := func(what string) {
		c.found(Finding{Severity: Warning, Pos: h.pos, TID: h.tid, What: what,
			Advice: "Only what people see of the transaction is affected; no object is."})
	}
	if !utf8.Valid(user) || !utf8.Valid(desc) {
		odd("the user or the description of the transaction is not UTF-8")
	}
	if len(ext) > 0 {
		// A data record is two pickles: let None be the second.
		if _, err := references.Check(nil, append(ext, "N."...)); err != nil {
			odd("the extension of the transaction is not a pickle")
		}
	}
}

// contents walks the transactions once more and checks the data of their
// records, the references of those that are current, and notes the blobs.
func (c *checker) contents() error {
	var buf []byte
	var oids []zeolite.OID
	for pos := int64(magicLen); pos < c.end; {
		b, err := c.w.bytes(pos, txnHdrLen)
		if err != nil {
			return err
		}
		if len(b) < txnHdrLen {
			return nil
		}
		h := parseTxnHeader(b, pos)
		t, next := &txnWalk{checker: c, h: h, end: h.end()}, h.next()
		if odd, ok := c.odd[pos]; ok {
			t.end, next = odd.end, odd.next
		}
		for at := h.records(); at < t.end && h.status != statusUndone; {
			r, ok, err := t.recordAt(at)
			if err != nil {
				return err
			}
			if !ok {
				if at, err = t.findRecord(at + 1); err != nil {
					return err
				}
				if at < 0 {
					break
				}
				continue
			}
			if oids, err = c.data(&r, &buf, oids[:0]); err != nil {
				return err
			}
			at = r.next()
		}
		pos = next
		if err := c.step("contents", pos, c.end); err != nil {
			return err
		}
	}
	return nil
}

// data checks the data of one record.
func (c *checker) data(r *recHeader, buf *[]byte, oids []zeolite.OID) ([]zeolite.OID, error) {
	have, _ := c.index.get(r.oid)
	current := have&^goneBit == r.pos
	data, err := c.dataOf(r, buf)
	if err != nil || data == nil {
		return oids, err
	}
	if oids, err = references.Check(oids, data); err != nil {
		if r.dataLen != 0 { // else that is said of the record that has it
			f := Finding{Severity: Damage, Pos: r.pos, OID: r.oid, HasOID: true, TID: r.tid, What: err.Error(),
				Advice: "An earlier state of the object is lost; its current one is not affected. Packing removes the record."}
			if current {
				f.Advice = "The current state of the object is lost: programs fail to load it. Restore it from a backup, or undo to an earlier one."
			}
			c.found(f)
		}
		return oids, nil
	}
	if references.IsBlob(data) {
		c.blobs = append(c.blobs, blobRevision{r.oid, r.tid})
		c.report.Blobs++
	}
	if !current {
		return oids, nil
	}
	slices.Sort(oids)
	for _, oid := range slices.Compact(oids) {
		to, ok := c.index.get(oid)
		if ok && to&goneBit == 0 {
			continue
		}
		state := "does not exist"
		if ok {
			state = fmt.Sprintf("is gone since the record at %d", to&^goneBit)
		}
		c.found(Finding{Severity: Damage, Pos: r.pos, OID: r.oid, HasOID: true, TID: r.tid,
			What: fmt.Sprintf("the object refers to oid %v, which %s", oid, state),
			Advice: "Programs that follow the reference fail with POSKeyError. Restore the object from a backup or from before a pack, " +
				"or remove the reference."})
	}
	return oids, nil
}

// dataOf returns the data of a record, or of the one it points to; nil if the
// object is gone or the pointer is damaged. It may be in buf.
func (c *checker) dataOf(r *recHeader, buf *[]byte) ([]byte, error) {
	if r.dataLen > 0 {
		return c.read(c.w, r, buf)
	}
	for d, below := *r, r.pos; ; below = d.pos {
		if d.back == 0 {
			return nil, nil
		}
		next, why, err := c.target(r.oid, d.back, below)
		if err != nil || why != "" {
			return nil, err
		}
		if d = next; d.dataLen > 0 {
			return c.read(c.far, &d, buf)
		}
	}
}

// read reads the data of a record: what fits through the window, so that the
// file is read in large pieces, the rest by itself.
func (c *checker) read(w *window, r *recHeader, buf *[]byte) ([]byte, error) {
	if r.dataLen > math.MaxInt {
		return nil, readError(r.pos, fmt.Errorf("%d bytes of data do not fit into memory", r.dataLen))
	}
	n := int(r.dataLen) // the record ends within the file
	if n <= windowSize/2 {
		return w.need(r.pos+recHdrLen, n)
	}
	if cap(*buf) < n {
		*buf = make([]byte, n)
	}
	b := (*buf)[:n]
	if _, err := c.file.ReadAt(b, r.pos+recHdrLen); err != nil {
		return nil, readError(r.pos, err)
	}
	return b, nil
}

// blobFiles compares the blobs with their files.
func (c *checker) blobFiles() error {
	d, err := openBlobDir(OSFileSystem{}, c.opts.BlobDir, "", true)
	if err != nil {
		return err
	}
	if _, err := os.Stat(d.path); err != nil && len(c.blobs) > 0 && len(c.logged) == 0 {
		return err
	}
	logged := make(map[blobRevision]bool)
	for _, b := range c.logged {
		logged[blobRevision{b.oid, b.tid}] = true
	}
	if n := d.lacks(c.logged); n > 0 {
		c.found(Finding{Severity: Damage, File: c.path + ".wal", Pos: -1,
			What:   fmt.Sprintf("the write-ahead log has %d blobs whose files are missing or different: a power failure came before they were there", n),
			Advice: "Nothing that was committed is lost. Open the file for writing with zeolite and this blob directory, before any other program does: that brings them in."})
	}
	slices.SortFunc(c.blobs, blobRevision.compare)
	for i, b := range c.blobs {
		name := d.file(b.oid, b.tid)
		st, err := os.Lstat(name)
		switch {
		case err == nil && st.Mode().IsRegular():
			c.report.BlobFiles++
		case logged[b]: // told above
		case err == nil:
			pos := c.revisionPos(b)
			c.found(Finding{Severity: Damage, File: name, Pos: pos, OID: b.oid, HasOID: true, TID: b.tid,
				What:   fmt.Sprintf("the blob of the record at %d is not a regular file", pos),
				Advice: "The server does not serve it: somebody else may have put it there. Put the file in its place, from a backup if it cannot be found."})
		case errors.Is(err, fs.ErrNotExist):
			if c.replaced() {
				return nil // a pack has removed what it replaced
			}
			pos := c.revisionPos(b)
			c.found(Finding{Severity: Damage, File: name, Pos: pos, OID: b.oid, HasOID: true, TID: b.tid,
				What: fmt.Sprintf("the blob of the record at %d has no file", pos), Advice: "The blob is lost. Restore the file from a backup."})
		default:
			return err
		}
		if i%256 == 0 {
			if err := c.step("blobs", int64(i), int64(len(c.blobs))); err != nil {
				return err
			}
		}
	}
	return c.blobOrphans(d)
}

// revisionPos returns the position of a record, -1 if it cannot be found.
func (c *checker) revisionPos(b blobRevision) int64 {
	at, _ := c.index.get(b.oid)
	for at &^= goneBit; at != 0; {
		h, err := c.far.need(at, recHdrLen)
		if err != nil {
			break
		}
		r := parseRecHeader(h, at)
		if r.oid != b.oid || r.prev >= at {
			break
		}
		if r.tid == b.tid {
			return at
		}
		at = r.prev
	}
	return -1
}

// blobOrphans looks for files of blobs that no record has.
func (c *checker) blobOrphans(d *blobDir) error {
	err := filepath.WalkDir(d.path, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a server goes on working
			}
			return err
		}
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if e.IsDir() {
			if name == d.tmp() {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, blobSuffix) {
			return nil
		}
		b, ok := d.parse(name)
		if ok && b.tid > c.last {
			return nil // committed since, or being committed
		}
		if ok {
			if _, ok = slices.BinarySearchFunc(c.blobs, b, blobRevision.compare); ok {
				return nil
			}
		}
		c.found(Finding{Severity: Warning, File: name, Pos: -1, OID: b.oid, HasOID: b != blobRevision{}, TID: b.tid,
			What: "no record belongs to this file", Advice: "It only takes space. A crash, or a pack that was interrupted, may leave it."})
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// parse finds out which blob a file is.
func (d *blobDir) parse(name string) (blobRevision, bool) {
	rel, err := filepath.Rel(d.path, filepath.Dir(name))
	if err != nil {
		return blobRevision{}, false
	}
	hex := strings.TrimPrefix(rel, "0x")
	if !d.lawn {
		hex = strings.ReplaceAll(strings.ReplaceAll(rel, "0x", ""), string(filepath.Separator), "")
	}
	oid, err1 := strconv.ParseUint(hex, 16, 64)
	base := strings.TrimSuffix(filepath.Base(name), blobSuffix)
	tid, err2 := strconv.ParseUint(strings.TrimPrefix(base, "0x"), 16, 64)
	b := blobRevision{zeolite.OID(oid), zeolite.TID(tid)}
	return b, err1 == nil && err2 == nil && d.file(b.oid, b.tid) == name
}
