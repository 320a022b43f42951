package filestorage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/zeolite-go/zeolite"
)

// Severity says how bad a finding is.
type Severity int

// The severities.
const (
	// Note is normal: what a crash or a running server leaves.
	Note Severity = iota
	// Warning is odd, but nothing that was committed is affected.
	Warning
	// Damage is something that a reader of the database will meet.
	Damage
)

func (s Severity) String() string {
	switch s {
	case Note:
		return "note"
	case Warning:
		return "warning"
	}
	return "damage"
}

// Finding is one thing that Check found.
type Finding struct {
	Severity Severity
	// File is the file it is about, and Pos the position in it: that of the
	// transaction, the record or the field that is wrong. Findings about a
	// blob or the saved index name the position of the record in Data.fs that
	// the file does not agree with; without one it is -1.
	File string
	Pos  int64
	// OID and TID are the object and the transaction, as far as HasOID and
	// TID != 0 say that they are known.
	OID    zeolite.OID
	HasOID bool
	TID    zeolite.TID
	// What says what is wrong; Advice whether data is lost, and what to do.
	What, Advice string
}

func (f Finding) String() string {
	s := f.Severity.String() + ": " + f.File
	if f.Pos >= 0 {
		s += fmt.Sprintf(" at %d", f.Pos)
	}
	if f.TID != 0 {
		s += fmt.Sprintf(", transaction %v", f.TID)
	}
	if f.HasOID {
		s += fmt.Sprintf(", oid %v", f.OID)
	}
	return s + ": " + f.What
}

// CheckOptions say what Check looks at. The zero value is good for a database
// without blobs.
type CheckOptions struct {
	// BlobDir is the directory of the blobs; without it they are not checked.
	BlobDir string
	// MaxFindings is how many findings the report keeps; 0 means 1000. All
	// are counted.
	MaxFindings int
	// Found, if not nil, is told each finding when it is made.
	Found func(Finding)
	// Progress, if not nil, is told now and then how far a phase is: bytes of
	// the file, or blobs.
	Progress func(phase string, done, total int64)
}

// Report is what Check found out about a database.
type Report struct {
	// Bytes is the length of what was checked: up to the last transaction.
	Bytes, Transactions, Records, Objects int64
	// Blobs is the number of records of blobs, BlobFiles that of the files
	// that were looked at.
	Blobs, BlobFiles int64
	// LastTID is the last transaction.
	LastTID zeolite.TID
	// Findings are the first findings; Notes, Warnings and Damages count all.
	Findings                 []Finding
	Notes, Warnings, Damages int
}

// Check reads a whole database and says what is wrong with it. It changes
// nothing and takes no lock, so a server may have the database open: what is
// committed after Check began is not looked at.
//
// It reads Data.fs twice, from the start to the end. First the structure: the
// lengths, order and status of transactions, what their records say about
// themselves, and all pointers. Behind damage it looks for the next record or
// transaction that can be recognized. Then the contents: each record must be
// two pickles, each reference of a current record must lead to an object, and
// each blob must have its file. The saved index is compared at the position it
// was saved for. A changed byte inside a pickle, or in the texts of a
// transaction, that leaves it well-formed cannot be noticed: the format has no
// checksums.
//
// Memory is about 20 bytes for each object, and 16 for each revision of a blob.
//
// An error says that the database could not be read, or that ctx was cancelled;
// the report then covers what was done.
func Check(ctx context.Context, path string, opts CheckOptions) (*Report, error) {
	if opts.MaxFindings <= 0 {
		opts.MaxFindings = 1000
	}
	c := &checker{ctx: ctx, opts: opts, report: &Report{}, index: newIndex(), odd: make(map[int64]oddTxn)}
	err := c.run(path)
	c.report.Objects = int64(c.index.len())
	return c.report, err
}

// checker is one Check under way. It is used by one goroutine.
type checker struct {
	ctx    context.Context
	opts   CheckOptions
	report *Report

	path string
	file *os.File
	w    *window // walks
	far  *window // follows pointers
	size int64   // of the file when the check began

	// index has the newest record of each object as of the walk's position,
	// with goneBit if it says that the object is gone.
	index *index
	saved savedIndex

	last        zeolite.TID // of the last transaction
	end         int64       // where the transactions end
	warnedAhead bool

	// odd has the transactions that are damaged as a whole, by position.
	odd map[int64]oddTxn

	blobs []blobRevision
	// logged are blobs that are in the write-ahead log of a server that ended
	// without closing.
	logged []walBlob
}

// oddTxn says where the records of a damaged transaction end at most, and where
// the next transaction is.
type oddTxn struct{ end, next int64 }

// goneBit in a position of checker.index says that the object is gone.
const goneBit = markBit

func (c *checker) run(path string) error {
	var err error
	if c.path, err = filepath.Abs(path); err != nil {
		return err
	}
	// The index first: a server may save it anew at any time, and what it
	// then knows is behind what is checked here.
	if err := c.readSavedIndex(); err != nil {
		return err
	}
	if c.file, err = os.Open(c.path); err != nil {
		return err
	}
	defer c.file.Close()
	st, err := c.file.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return &zeolite.StorageError{Message: path + " is not a file"}
	}
	c.size = st.Size()
	logged, err := readWAL(c.path + ".wal")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.w, c.far = newWindow(c.file), &window{file: c.file, buf: make([]byte, 0, 4096)}
	if err := c.magic(); err != nil {
		return err
	}
	if err := c.structure(); err != nil {
		return err
	}
	c.report.Bytes, c.report.LastTID = c.end, c.last
	c.compareSavedIndex(c.end, true)
	if err := c.pendingLog(logged); err != nil {
		return err
	}
	if err := c.contents(); err != nil {
		return err
	}
	if c.opts.BlobDir == "" {
		return nil
	}
	return c.blobFiles()
}

// pendingLog compares Data.fs with what the write-ahead log had when the check
// began.
func (c *checker) pendingLog(logged walChain) error {
	if len(logged) == 0 {
		return nil
	}
	n, err := logged.missing(c.file)
	if inUse(c.path) {
		return nil
	}
	c.logged = logged.blobs()
	switch {
	case err == nil && n == 0:
	case errors.Is(err, errForeignWAL):
		c.found(Finding{Severity: Warning, File: c.path + ".wal", Pos: -1,
			What:   "a server did not end properly, and its write-ahead log does not fit Data.fs: since then something else has written to that, or packed it, or put an older copy in its place",
			Advice: "Opening the file for writing says whether it lacks transactions, and keeps the log as Data.fs.walN if so."})
	case err != nil:
		return err
	default:
		c.found(Finding{Severity: Damage, File: c.path + ".wal", Pos: -1,
			What:   fmt.Sprintf("the write-ahead log has %d bytes of transactions that Data.fs lacks: a power failure came before they were there", n),
			Advice: "Nothing that was committed is lost. Open the file for writing with zeolite, before any other program does: that brings them in."})
	}
	return nil
}

// magic checks how the file begins.
func (c *checker) magic() error {
	b, err := c.w.bytes(0, magicLen)
	if err != nil {
		return err
	}
	switch {
	case string(b) == magic || c.size == 0: // Python takes an empty file for a new database
	case string(b) == magicPy2:
		return checkMagic(osFile{c.file}, c.path)
	default:
		// One damaged byte is no reason to give up a database.
		if pos, err := c.findTxn(magicLen); err != nil || pos != magicLen {
			return errors.Join(err, checkMagic(osFile{c.file}, c.path))
		}
		c.found(Finding{Severity: Damage, Pos: 0, What: fmt.Sprintf("the file begins with %q, not %q", b, magic),
			Advice: "No data is lost. Overwrite the first four bytes."})
	}
	return nil
}

// found takes note of a finding; it is about Data.fs unless it names a file.
func (c *checker) found(f Finding) {
	if f.File == "" {
		f.File = c.path
	}
	r := c.report
	switch f.Severity {
	case Note:
		r.Notes++
	case Warning:
		r.Warnings++
	case Damage:
		r.Damages++
	}
	if len(r.Findings) < c.opts.MaxFindings {
		r.Findings = append(r.Findings, f)
	}
	if c.opts.Found != nil {
		c.opts.Found(f)
	}
}

// step is called for each transaction: it sees to cancellation and progress.
func (c *checker) step(phase string, done, total int64) error {
	if c.opts.Progress != nil {
		c.opts.Progress(phase, done, total)
	}
	return c.ctx.Err()
}

// replaced says that Data.fs is another file by now: a server has packed it.
func (c *checker) replaced() bool {
	mine, err := c.file.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(c.path)
	return err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(mine, now)
}
