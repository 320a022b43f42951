package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/zeolite-go/zeolite"
)

const packHelp = `Pack a database: forget revisions that were superseded DAYS ago or earlier, and
objects that nothing refers to. The database is a Data.fs that nobody serves, the
address of a server, which goes on serving, or one in PostgreSQL (postgres://..., or
libpq's keywords), served or not.

  zeolite pack 127.0.0.1:8100 --days 7
  zeolite pack var/Data.fs -b var/blobs

If an object refers to one that does not exist, nothing is packed: what is missing
may have been lost (zeolite check says more). --no-gc packs without looking, and
--allow-dangling in spite of it; a server is like --no-gc with pack-gc false in its
configuration.
`

func pack(args []string) error {
	fs := newFlags("pack", packHelp)
	t := targetFlags(&fs.FlagSet)
	days := fs.Float64("days", 0, "keep the history of the last `N` days")
	noGC := fs.Bool("no-gc", false, "keep objects that nothing refers to (not through a server)")
	dangling := fs.Bool("allow-dangling", false, "pack although objects refer to others that do not exist (files only)")
	if err := parseOne(fs, args, t, "a Data.fs, the address of a server or how to connect to PostgreSQL"); err != nil {
		return err
	}
	if *days < 0 {
		return &usageError{"--days must not be negative"}
	}
	if *noGC && !t.direct() {
		return &usageError{"--no-gc does not work through a server, which decides for itself (pack-gc in its configuration)"}
	}
	if *dangling && !t.isFile() {
		return &usageError{"--allow-dangling works on files only: stop the server, or set pack-gc false in its configuration"}
	}
	if t.isFile() {
		if _, err := os.Stat(t.name); err != nil {
			return fmt.Errorf("there is nothing to pack: %w", err)
		}
		if t.blobs == "" {
			fmt.Fprintln(os.Stderr, withoutBlobs(t.name))
		}
	}
	t.packDangling = *dangling
	ctx, stop := interruptible()
	defer stop()
	t.writable = t.direct() // packing needs no writable connection
	storage, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer storage.Close()
	packer, ok := storage.(zeolite.Packer)
	if !ok {
		return zeolite.ErrUnsupported
	}
	bar := newProgress()
	opts := zeolite.PackOptions{Progress: func(p zeolite.PackProgress) { bar.bar(p.Phase, p.Done, p.Total, plainCount) }}
	if *noGC {
		opts.GC = new(bool)
	}
	before, start := storage.Info().Size, time.Now()
	ticking, cancel := context.WithCancel(ctx)
	defer cancel()
	if !t.direct() {
		go showElapsed(ticking, bar, start)
	}
	when := start.Add(-time.Duration(*days * 24 * float64(time.Hour)))
	err = packer.Pack(ctx, zeolite.TIDFromTime(when), opts)
	cancel()
	bar.clear()
	if err != nil {
		return err
	}
	size := byteCount(storage.Info().Size) + ", was " + byteCount(before)
	if isDSN(t.name) {
		// Its size is an estimate, and nothing that a pack changes.
		size = "what was removed is room for more once it is vacuumed; only VACUUM FULL makes files smaller"
	}
	fmt.Fprintf(os.Stdout, "Packed to %s in %s: %s\n", when.UTC().Format(time.DateTime), time.Since(start).Round(time.Millisecond), size)
	return nil
}

// withoutBlobs says what packing a file without its blobs means.
func withoutBlobs(file string) string {
	const text = "Without -b DIR, the files of blobs that are packed away stay."
	dir := filepath.Dir(file)
	for _, name := range []string{"blobs", "blobstorage", filepath.Join("..", "blobstorage")} {
		blobs := filepath.Join(dir, name)
		if _, err := os.Stat(filepath.Join(blobs, ".layout")); err == nil {
			return fmt.Sprintf("%s %s looks like the directory of blobs.", text, blobs)
		}
	}
	return text
}

// showElapsed says that a server is packing: the protocol does not tell how
// far it is.
func showElapsed(ctx context.Context, bar *progress, start time.Time) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			bar.show("the server is packing: %s", time.Since(start).Round(time.Second))
		}
	}
}
