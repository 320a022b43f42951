package filestorage

import (
	"io"
	"log/slog"
	"time"
)

// Options say how Open opens a storage. The zero value opens an existing or
// new file without blobs, for writing.
type Options struct {
	// Create begins with an empty database, even if there is one already:
	// that one is removed, with its blobs.
	Create bool
	// ReadOnly opens without a lock and changes nothing on disk. The file
	// must exist. Transactions that a writing process commits later are not
	// seen.
	ReadOnly bool

	// BlobDir is the directory of the blobs; empty for a storage without.
	BlobDir string
	// BlobLayout is "bushy", "lawn", or empty to go by the directory's
	// marker file.
	BlobLayout string

	// Quota in bytes refuses records that begin after it; 0 for none.
	Quota int64
	// PackWithoutGC makes Pack keep unreachable objects unless told
	// otherwise; PackRemoveOld makes it remove what it would keep as
	// Data.fs.old and in <blob directory>.old. If the latter is on another file
	// system than the blobs, it gets copies of those that are removed, and not
	// second names of the others.
	PackWithoutGC, PackRemoveOld bool
	// PackDangling makes Pack collect garbage although there are references to
	// objects that do not exist, and log them. Without it, Pack refuses.
	PackDangling bool

	// SpillBytes is how much of a transaction is kept in memory before it
	// goes to a temporary file; 0 means 8 MiB. TempDir is where; empty means
	// beside Data.fs.
	SpillBytes int
	TempDir    string
	// IndexSaveBytes is how much Data.fs may grow before the index file is
	// written anew; 0 means 64 MiB.
	IndexSaveBytes int64

	// WithoutLog makes commits sync Data.fs itself, twice each, and every blob,
	// instead of the write-ahead log beside it: slower, but after a power failure
	// the files are whole without this package.
	WithoutLog bool
	// SyncInterval is how long what was committed may be durable in the log
	// alone before Data.fs and the files of small blobs are synced, too; 0 means
	// a second.
	SyncInterval time.Duration

	// ScanProgress, if not nil, is told now and then how many bytes of the
	// file have been scanned while it is opened.
	ScanProgress func(done, total int64)

	// Logger is told what an operator should know; nil discards it.
	Logger *slog.Logger
	// FileSystem is for tests; nil means OSFileSystem.
	FileSystem FileSystem
}

const (
	defaultSpillBytes     = 8 << 20
	defaultIndexSaveBytes = 64 << 20
	defaultSyncInterval   = time.Second
)

func (o Options) withDefaults() Options {
	if o.SpillBytes <= 0 {
		o.SpillBytes = defaultSpillBytes
	}
	if o.IndexSaveBytes <= 0 {
		o.IndexSaveBytes = defaultIndexSaveBytes
	}
	if o.SyncInterval <= 0 {
		o.SyncInterval = defaultSyncInterval
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.FileSystem == nil {
		o.FileSystem = OSFileSystem{}
	}
	return o
}
