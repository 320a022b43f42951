package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/client"
)

const blobHelp = `Get the blob of an object: the current one, or with OID@TID that of the
revision which was current at transaction TID.

  zeolite blob get 127.0.0.1:8100 0x1a -o picture.jpeg
  zeolite blob get var/Data.fs 0x1a@040d2c78bddddddd -b var/blobs >picture.jpeg
`

func blob(args []string) error {
	if len(args) == 0 || args[0] != "get" {
		if len(args) > 0 && (args[0] == "-h" || args[0] == "--help") {
			newFlags("blob", blobHelp).Usage()
			return nil
		}
		return &usageError{"the only thing to do with blobs is: blob get"}
	}
	fs := newFlags("blob get", blobHelp)
	t := targetFlags(&fs.FlagSet)
	output := fs.String("o", "", "write to `FILE` instead of the standard output")
	revision := ""
	if err := parseTwo(fs, args[1:], t, &revision, "a Data.fs, the address of a server or how to connect to PostgreSQL, and OID or OID@TID"); err != nil {
		return err
	}
	oid, tid, err := parseRevision(revision)
	if err != nil {
		return err
	}
	bar := newProgress()
	if t.blobs == "" {
		if t.isFile() {
			return &usageError{"say with -b where the blobs of the Data.fs are"}
		}
		// Without a cache to share, a temporary one.
		if t.blobs, err = os.MkdirTemp("", "zeolite-blob-*"); err != nil {
			return err
		}
		defer os.RemoveAll(t.blobs)
	}
	t.progress = func(p client.BlobProgress) { bar.bar("downloading", p.Done, p.Total, byteCount) }
	return t.use(func(ctx context.Context, storage zeolite.Storage) error {
		rev, err := loadAsOf(ctx, storage, oid, tid)
		if err != nil {
			return err
		}
		blobs, ok := storage.(zeolite.BlobStorage)
		if !ok {
			return zeolite.ErrUnsupported
		}
		b, err := blobs.OpenBlob(ctx, oid, rev.TID)
		bar.clear()
		if err != nil {
			return err
		}
		defer b.Close()
		content := untilDone{ctx, io.NewSectionReader(b, 0, b.Size())}
		if *output == "" {
			_, err = io.Copy(os.Stdout, content)
			return err
		}
		return writeWhole(*output, content)
	})
}

// writeWhole writes a file that appears under its name only when it is whole.
// What is there and no file, a device or a pipe, is written to as it is; a link,
// such as /dev/stdout, stays where it is, and what it leads to is written to.
func writeWhole(name string, content io.Reader) (err error) {
	var f *os.File
	st, err := os.Lstat(name)
	inPlace := err == nil && !st.Mode().IsRegular()
	switch {
	case inPlace && st.Mode().Type() == os.ModeSymlink:
		f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	case inPlace: // without O_CREATE, with which Linux opens no pipe of somebody else in /tmp
		f, err = os.OpenFile(name, os.O_WRONLY, 0)
	default:
		// Unlike os.CreateTemp, this leaves the mode to the umask.
		temporary := filepath.Join(filepath.Dir(name), fmt.Sprintf(".%s.%x", filepath.Base(name), rand.Uint64()))
		f, err = os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	}
	if err != nil {
		return err
	}
	if _, err = io.Copy(f, content); err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	err = errors.Join(err, f.Close())
	switch {
	case inPlace:
		return err
	case err == nil:
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
