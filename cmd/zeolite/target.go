package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/client"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/server/postgres"
)

// target says how a storage that a command was given is opened.
type target struct {
	name     string // a path, an address, or how to connect to PostgreSQL
	storage  string // at a server
	blobs    string // blob directory, or blob cache of a client
	writable bool
	create   bool // in PostgreSQL, if there is none
	timeout  time.Duration
	progress func(client.BlobProgress)

	packDangling bool // of a file
}

// isFile tells a Data.fs from an address: it is a file, or there is nothing by
// that name and it is called something.fs.
func (t *target) isFile() bool {
	st, err := os.Stat(t.name)
	switch {
	case err == nil:
		return st.Mode().IsRegular()
	case errors.Is(err, fs.ErrNotExist):
		return strings.HasSuffix(t.name, ".fs")
	}
	return false
}

// direct tells whether the storage is opened here, and not by a server.
func (t *target) direct() bool { return t.isFile() || isDSN(t.name) }

// open opens the storage, quietly: what goes wrong is in the error.
func (t *target) open(ctx context.Context) (zeolite.Storage, error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	if t.isFile() {
		if err := needDirectory(t.name); err != nil {
			return nil, err
		}
		return filestorage.OpenContext(ctx, t.name, filestorage.Options{
			ReadOnly: !t.writable, BlobDir: t.blobs, PackDangling: t.packDangling, Logger: log,
		})
	}
	if isDSN(t.name) {
		return postgres.Open(ctx, postgres.Options{DSN: t.name, ReadOnly: !t.writable, MustExist: !t.create, Logger: log})
	}
	network, address, err := splitAddress(t.name, "127.0.0.1", 8100)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		if _, err := os.Stat(address); err != nil {
			return nil, fmt.Errorf("there is neither a database nor a server's socket: %w", err)
		}
		if address, err = filepath.Abs(address); err != nil {
			return nil, err
		}
	}
	return client.Open(ctx, client.Options{
		Addresses:   []string{address},
		Storage:     t.storage,
		ReadOnly:    !t.writable,
		BlobDir:     t.blobs,
		WaitTimeout: t.timeout,
		Label:       "zeolite",
		Logger:      log,
		Progress:    t.progress,
	})
}

// needDirectory fails if there is no directory for a file.
func needDirectory(file string) error {
	dir := filepath.Dir(file)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no directory %s for %s: make it first", dir, filepath.Base(file))
	}
	return nil
}

// use opens the storage for f, whose context ends when the user interrupts.
func (t *target) use(f func(ctx context.Context, s zeolite.Storage) error) error {
	ctx, stop := interruptible()
	defer stop()
	storage, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer storage.Close()
	return f(ctx, storage)
}

// interruptible is a context that a signal ends. A second one kills, whatever
// does not look at the context.
func interruptible() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// untilDone is a reader that fails when its context has ended.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// parseRevision reads OID or OID@TID; without a tid it is zero.
func parseRevision(s string) (oid zeolite.OID, tid zeolite.TID, err error) {
	name, at, hasTID := strings.Cut(s, "@")
	if oid, err = zeolite.ParseOID(name); err != nil {
		return 0, 0, &usageError{err.Error()}
	}
	if hasTID {
		if tid, err = zeolite.ParseTID(at); err != nil {
			return 0, 0, &usageError{err.Error()}
		}
	}
	return oid, tid, nil
}
