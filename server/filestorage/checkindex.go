package filestorage

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/zeolite-go/zeolite"
)

// savedIndex is Data.fs.index, until it has been compared.
type savedIndex struct {
	index *index // nil if there is none, or when it has been compared
	pos   int64
}

const removeIndexAdvice = "No data is lost, but a server that believes it answers wrongly. Stop the server and remove the file: " +
	"the next start makes a new one."

func (c *checker) indexPath() string { return c.path + ".index" }

func (c *checker) readSavedIndex() error {
	x, pos, err := loadIndexFile(c.indexPath())
	switch {
	case err == nil:
		c.saved = savedIndex{x, pos}
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, fs.ErrPermission):
		return err
	default:
		c.found(Finding{Severity: Warning, File: c.indexPath(), Pos: -1, What: "the saved index cannot be read: " + err.Error(),
			Advice: "No data is lost. The next start scans the whole file and makes a new one."})
	}
	return nil
}

// compareSavedIndex compares the saved index with the file when the walk is at
// the position it was saved for. At the end of the file it must have been
// there.
func (c *checker) compareSavedIndex(pos int64, atEnd bool) {
	x := c.saved.index
	if x == nil || pos < c.saved.pos && !atEnd {
		return
	}
	c.saved.index = nil
	if c.replaced() {
		return // it may be that of the file after a pack
	}
	if pos != c.saved.pos {
		f := Finding{Severity: Damage, File: c.indexPath(), Pos: pos, Advice: removeIndexAdvice,
			What: fmt.Sprintf("the index was saved when a transaction ended at %d, but none does", c.saved.pos)}
		if pos < c.saved.pos {
			f.What = fmt.Sprintf("the index was saved when Data.fs had %d bytes of transactions; it has %d", c.saved.pos, pos)
			f.Advice = "If Data.fs was not put back from a backup, its end is missing: transactions are lost. " +
				"Look for a Data.fs.trN with what was cut off. " + removeIndexAdvice
		}
		c.found(f)
		return
	}
	wrong := func(at int64, oid zeolite.OID, format string, args ...any) {
		c.found(Finding{Severity: Damage, File: c.indexPath(), Pos: at, OID: oid, HasOID: true,
			What: fmt.Sprintf(format, args...), Advice: removeIndexAdvice})
	}
	for oid, at := range x.all() {
		have, ok := c.index.get(oid)
		switch have &^= goneBit; {
		case !ok:
			wrong(at, oid, "the saved index has a record at %d of an object that the file does not have", at)
		case have != at:
			wrong(at, oid, "the saved index has the newest record at %d, the file at %d", at, have)
		}
	}
	for oid, at := range c.index.all() {
		if _, ok := x.get(oid); !ok {
			wrong(at&^goneBit, oid, "the saved index does not have the object")
		}
	}
}
