package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"github.com/zeolite-go/zeolite"
)

const copyHelp = `Copy a database with its whole history, blobs included, and compare the copy with
the original. Each is a Data.fs or the address of a server. A copy that was
interrupted goes on where it stopped.

  zeolite copy var/Data.fs 127.0.0.1:8100 -src-blobs var/blobs -dst-blobs /tmp/cache
  zeolite copy 127.0.0.1:8100 backup/Data.fs -src-blobs /tmp/cache -dst-blobs backup/blobs
`

func copyCommand(args []string) error {
	fs := newFlags("copy", copyHelp)
	src, dst := &target{}, &target{writable: true}
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
	c := &copier{from: from, to: to, bar: newProgress()}
	err = c.run(ctx, !*noVerify)
	c.bar.clear()
	return errors.Join(err, to.Close())
}

// copier copies one storage to another. One goroutine uses it.
type copier struct {
	from, to zeolite.Storage
	bar      *progress
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

// transaction copies one transaction.
func (c *copier) transaction(ctx context.Context, txn *zeolite.TransactionRecord) (records int, size int64, err error) {
	t, err := c.to.Begin(ctx, zeolite.TxnMeta{User: txn.User, Description: txn.Description, Extension: txn.Extension,
		TID: txn.TID, Status: txn.Status})
	if err != nil {
		return 0, 0, err
	}
	defer t.Abort()
	for rec, err := range txn.Records {
		if err != nil {
			return 0, 0, fmt.Errorf("source: %w", err)
		}
		upload, err := c.blob(ctx, rec)
		if err != nil {
			return 0, 0, fmt.Errorf("blob of %v: %w", rec.OID, err)
		}
		if upload != nil {
			defer upload.Discard()
			err = t.RestoreBlob(ctx, rec.OID, rec.Data, rec.DataTID, upload)
			size += upload.Size()
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
// is in it.
func mayBeBlob(data []byte) bool { return bytes.Contains(data, []byte("ZODB.blob")) }

// blob uploads the blob that belongs to a record; nil if there is none.
func (c *copier) blob(ctx context.Context, rec zeolite.DataRecord) (zeolite.BlobUpload, error) {
	if !mayBeBlob(rec.Data) {
		return nil, nil
	}
	from, ok := c.from.(zeolite.BlobStorage)
	if !ok || !c.from.Info().Blobs {
		return nil, errors.New("say with -src-blobs where the blobs of the source are")
	}
	b, err := from.OpenBlob(ctx, rec.OID, rec.TID)
	if errors.As(err, new(*zeolite.NotFoundError)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer b.Close()
	to, ok := c.to.(zeolite.BlobStorage)
	if !ok || !c.to.Info().Blobs {
		return nil, errors.New("say with -dst-blobs where the blobs of the copy go")
	}
	upload, err := to.CreateBlob(ctx)
	if err != nil {
		return nil, err
	}
	if _, err = io.Copy(upload, io.NewSectionReader(b, 0, b.Size())); err == nil {
		err = upload.Complete()
	}
	if err != nil {
		return nil, errors.Join(err, upload.Discard())
	}
	return upload, nil
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
	if got, err, ok := next(); ok || err != nil {
		return n, errors.Join(err, fmt.Errorf("transaction %v is not in the source", got.TID))
	}
	c.bar.clear()
	return n, nil
}

func (c *copier) sameTransaction(ctx context.Context, want, got *zeolite.TransactionRecord) error {
	if !bytes.Equal(want.User, got.User) || !bytes.Equal(want.Description, got.Description) {
		return errors.New("user or description")
	}
	next, stop := iter.Pull2(got.Records)
	defer stop()
	for rec, err := range want.Each() {
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		copied, err, ok := next()
		switch {
		case err != nil:
			return err
		case !ok || copied.OID != rec.OID:
			return fmt.Errorf("the record of %v is missing", rec.OID)
		case (copied.Data == nil) != (rec.Data == nil) || !bytes.Equal(copied.Data, rec.Data):
			return fmt.Errorf("the data of %v", rec.OID)
		}
		if mayBeBlob(rec.Data) {
			if err := c.sameBlob(ctx, rec.OID, rec.TID); err != nil {
				return fmt.Errorf("the blob of %v: %w", rec.OID, err)
			}
		}
	}
	if _, _, ok := next(); ok {
		return errors.New("it has more records than the source")
	}
	return nil
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
