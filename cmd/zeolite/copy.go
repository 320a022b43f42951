package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/client"
)

const copyHelp = `Copy a database with its whole history, blobs included, and compare the copy with
the original. Each is a Data.fs, the address of a server, or a PostgreSQL database
(postgres://USER@HOST/NAME, or libpq's keywords), whose tables are created if absent.
A copy that was interrupted goes on where it stopped.

  zeolite copy var/Data.fs 127.0.0.1:8100 -src-blobs var/blobs -dst-blobs /tmp/cache
  zeolite copy 127.0.0.1:8100 backup/Data.fs -src-blobs /tmp/cache -dst-blobs backup/blobs
  zeolite copy var/Data.fs 'host=db dbname=zodb user=zope' -src-blobs var/blobs

If there are blobs, a Data.fs needs the directory they are in, and a server one to
cache them in, which may be removed afterwards.

The extensions of transactions are compared unless there is a server between: it
may put the same into other bytes.
`

func copyCommand(args []string) error {
	fs := newFlags("copy", copyHelp)
	src, dst := &target{}, &target{writable: true, create: true}
	fs.StringVar(&src.blobs, "src-blobs", "", "the blob `DIR` of the source, or where its blobs are cached")
	fs.StringVar(&dst.blobs, "dst-blobs", "", "the blob `DIR` of the copy, or where its blobs are cached")
	fs.StringVar(&src.storage, "src-storage", "1", "the `NAME` of the source at its server")
	fs.StringVar(&dst.storage, "dst-storage", "1", "the `NAME` of the copy at its server")
	noVerify := fs.Bool("no-verify", false, "do not compare the copy with the source in the end")
	rest, err := fs.parseMixed(args)
	if err != nil {
		return err
	}
	if len(rest) != 2 {
		return &usageError{"give a source and a destination"}
	}
	src.name, dst.name = rest[0], rest[1]
	src.timeout, dst.timeout = 10*time.Second, 10*time.Second
	bar := newProgress()
	src.progress = func(p client.BlobProgress) {
		bar.bar(fmt.Sprintf("downloading the blob of %v", p.OID), p.Done, p.Total, byteCount)
	}
	ctx, stop := interruptible()
	defer stop()
	from, err := src.open(ctx)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	defer from.Close()
	to, err := dst.open(ctx)
	if err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	c := &copier{from: from, to: to, extensions: src.direct() && dst.direct(), bar: bar}
	err = c.run(ctx, !*noVerify)
	c.bar.clear()
	return errors.Join(err, to.Close())
}

// copier copies one storage to another. One goroutine uses it.
type copier struct {
	from, to   zeolite.Storage
	extensions bool // are to be the same bytes
	bar        *progress
}

func (c *copier) run(ctx context.Context, verify bool) error {
	last := c.from.LastTID() // what is committed later is not for this copy
	done, err := c.resumeAfter(ctx)
	if err != nil {
		return err
	}
	start := done + 1
	if done == 0 {
		start = 0
	}
	txns, records, size := 0, 0, int64(0)
	var first time.Time
	day := func(sec int64) string { return first.Add(time.Duration(sec) * time.Second).Format(time.DateOnly) }
	for txn, err := range c.from.Transactions(ctx, start, last) {
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		n, bytes, err := c.transaction(ctx, txn)
		if err != nil {
			return fmt.Errorf("transaction %v: %w", txn.TID, err)
		}
		txns, records, size = txns+1, records+n, size+bytes
		if first.IsZero() {
			first = txn.TID.Time()
		}
		c.bar.bar("copying", int64(txn.TID.Time().Sub(first).Seconds()), int64(last.Time().Sub(first).Seconds()), day)
	}
	c.bar.clear()
	if done != 0 {
		fmt.Fprintf(os.Stdout, "Went on after transaction %v.\n", done)
	}
	fmt.Fprintf(os.Stdout, "Copied %d transactions, %d records, %s.\n", txns, records, byteCount(size))
	if !verify {
		return nil
	}
	n, err := c.verify(ctx, last)
	if err != nil {
		return fmt.Errorf("the copy differs: %w", err)
	}
	fmt.Fprintf(os.Stdout, "Compared %d transactions: the copy is equal.\n", n)
	return nil
}

// resumeAfter returns the last transaction of an earlier, unfinished copy; zero
// if the destination is empty. Any other content is an error.
func (c *copier) resumeAfter(ctx context.Context) (zeolite.TID, error) {
	last := c.to.LastTID()
	if last == 0 {
		return 0, nil
	}
	for txn, err := range c.from.Transactions(ctx, last, last) {
		if err != nil {
			return 0, fmt.Errorf("source: %w", err)
		}
		return txn.TID, nil
	}
	return 0, fmt.Errorf("the destination is not a copy of the source: its last transaction %v is not in the source", last)
}

// transaction copies one transaction. It may have several records of an object,
// which is how Python's server stores blobs: the last one counts, but the blob
// is the same.
func (c *copier) transaction(ctx context.Context, txn *zeolite.TransactionRecord) (records int, size int64, err error) {
	t, err := c.to.Begin(ctx, zeolite.TxnMeta{User: txn.User, Description: txn.Description, Extension: txn.Extension,
		TID: txn.TID, Status: txn.Status})
	if err != nil {
		return 0, 0, err
	}
	defer t.Abort()
	uploads := map[zeolite.OID]zeolite.BlobUpload{}
	for rec, err := range txn.Records {
		if err != nil {
			return 0, 0, fmt.Errorf("source: %w", err)
		}
		upload := uploads[rec.OID]
		if upload == nil {
			if upload, err = c.blob(ctx, rec); err != nil {
				return 0, 0, fmt.Errorf("object %v: %w", rec.OID, err)
			}
			if upload != nil {
				defer upload.Discard()
				uploads[rec.OID] = upload
				size += upload.Size()
			}
		}
		if upload != nil {
			err = t.RestoreBlob(ctx, rec.OID, rec.Data, rec.DataTID, upload)
		} else {
			err = t.Restore(ctx, rec.OID, rec.Data, rec.DataTID)
		}
		if err != nil {
			return 0, 0, err
		}
		records, size = records+1, size+int64(len(rec.Data))
	}
	if err := t.Vote(ctx); err != nil {
		return 0, 0, err
	}
	_, err = t.Finish(ctx, nil)
	return records, size, err
}

// mayBeBlob tells whether a record can be that of a blob: the name of its class
// is in it. It may also be one that refers to a blob.
func mayBeBlob(data []byte) bool { return bytes.Contains(data, []byte("ZODB.blob")) }

// blob uploads the blob that belongs to a record; nil if there is none.
func (c *copier) blob(ctx context.Context, rec zeolite.DataRecord) (zeolite.BlobUpload, error) {
	if !mayBeBlob(rec.Data) {
		return nil, nil
	}
	from, ok := c.from.(zeolite.BlobStorage)
	if !ok || !c.from.Info().Blobs {
		return nil, errors.New("it is a blob or refers to one; say with -src-blobs where the blobs of the source are, or are to be cached")
	}
	b, err := from.OpenBlob(ctx, rec.OID, rec.TID)
	if errors.As(err, new(*zeolite.NotFoundError)) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	defer b.Close()
	to, ok := c.to.(zeolite.BlobStorage)
	if !ok || !c.to.Info().Blobs {
		return nil, errors.New("it is a blob; say with -dst-blobs where the blobs of the copy go, or are to be cached")
	}
	upload, err := to.CreateBlob(ctx)
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	content := &shown{r: untilDone{ctx, io.NewSectionReader(b, 0, b.Size())}, show: func(n int64) {
		c.bar.bar(fmt.Sprintf("copying the blob of %v", rec.OID), n, b.Size(), byteCount)
	}}
	if _, err = io.Copy(upload, content); err == nil {
		err = upload.Complete()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("blob: %w", err), upload.Discard())
	}
	return upload, nil
}

// shown is a reader that says how much has been read.
type shown struct {
	r    io.Reader
	n    int64
	show func(n int64)
}

func (s *shown) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	s.show(s.n)
	return n, err
}

// verify compares the storages up to a transaction, and counts transactions.
func (c *copier) verify(ctx context.Context, last zeolite.TID) (n int, err error) {
	next, stop := iter.Pull2(c.to.Transactions(ctx, 0, last))
	defer stop()
	for want, err := range c.from.Transactions(ctx, 0, last) {
		if err != nil {
			return n, fmt.Errorf("source: %w", err)
		}
		got, err, ok := next()
		if err != nil {
			return n, err
		}
		if !ok || got.TID != want.TID {
			return n, fmt.Errorf("transaction %v is missing", want.TID)
		}
		if err := c.sameTransaction(ctx, want, got); err != nil {
			return n, fmt.Errorf("transaction %v: %w", want.TID, err)
		}
		n++
		c.bar.show("comparing: %s", want.TID.Time().Format(time.DateOnly))
	}
	got, err, ok := next()
	if err != nil {
		return n, err
	}
	if ok {
		return n, fmt.Errorf("transaction %v is not in the source", got.TID)
	}
	c.bar.clear()
	return n, nil
}

func (c *copier) sameTransaction(ctx context.Context, want, got *zeolite.TransactionRecord) error {
	if !bytes.Equal(want.User, got.User) || !bytes.Equal(want.Description, got.Description) {
		return errors.New("user or description")
	}
	if want.Status != got.Status {
		return fmt.Errorf("its status is %q, not %q", got.Status, want.Status)
	}
	if c.extensions && !bytes.Equal(want.Extension, got.Extension) {
		return errors.New("extension")
	}
	wanted, err := statesOf(want)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	copied, err := statesOf(got)
	if err != nil {
		return err
	}
	for _, oid := range slices.Sorted(maps.Keys(wanted)) {
		is, ok := copied[oid]
		switch {
		case !ok:
			return fmt.Errorf("the record of %v is missing", oid)
		case is != wanted[oid]:
			return fmt.Errorf("the data of %v", oid)
		}
		if wanted[oid].mayBeBlob {
			if err := c.sameBlob(ctx, oid, want.TID); err != nil {
				return fmt.Errorf("the blob of %v: %w", oid, err)
			}
		}
	}
	if len(copied) > len(wanted) {
		return errors.New("it changes more objects than in the source")
	}
	return nil
}

// state is what a transaction left of an object.
type state struct {
	gone, mayBeBlob bool
	sum             [sha256.Size]byte // of the record
}

// statesOf returns what a transaction left of each object it changed: the
// order of records differs from server to server.
func statesOf(txn *zeolite.TransactionRecord) (map[zeolite.OID]state, error) {
	states := map[zeolite.OID]state{}
	for rec, err := range txn.Each() {
		if err != nil {
			return nil, err
		}
		states[rec.OID] = state{rec.Data == nil, mayBeBlob(rec.Data), sha256.Sum256(rec.Data)}
	}
	return states, nil
}

func (c *copier) sameBlob(ctx context.Context, oid zeolite.OID, tid zeolite.TID) error {
	a, err := c.from.(zeolite.BlobStorage).OpenBlob(ctx, oid, tid)
	if errors.As(err, new(*zeolite.NotFoundError)) {
		return nil
	}
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := c.to.(zeolite.BlobStorage).OpenBlob(ctx, oid, tid)
	if err != nil {
		return err
	}
	defer b.Close()
	if a.Size() != b.Size() {
		return fmt.Errorf("it has %d bytes, not %d", b.Size(), a.Size())
	}
	var left, right [64 << 10]byte
	for off := int64(0); off < a.Size(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(int64(len(left)), a.Size()-off)
		if _, err := a.ReadAt(left[:n], off); err != nil && err != io.EOF {
			return err
		}
		if _, err := b.ReadAt(right[:n], off); err != nil && err != io.EOF {
			return err
		}
		if !bytes.Equal(left[:n], right[:n]) {
			return fmt.Errorf("it differs after byte %d", off)
		}
		off += n
	}
	return nil
}
