package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/zrpc"
)

const serveHelp = `Serve a database to ZEO clients: a Data.fs file, and a directory of blobs.

  zeolite serve                        ./data, created if absent, on 127.0.0.1:8100
  zeolite serve -a 0.0.0.0:8100 -f var/Data.fs -b var/blobs
  zeolite serve -a /run/zeo.sock -f var/Data.fs -b var/blobs

Clients connect as to any ZEO server. SIGTERM or SIGINT ends it: running commits
are ended, clients are disconnected, and the index is saved.
`

const (
	defaultAddress = "127.0.0.1:8100"
	defaultDir     = "data"
	// shutdownTime is how long clients have to take what is queued for them.
	shutdownTime = 3 * time.Second
)

type serveFlags struct {
	address, file, blobs string
	msgpack, readOnly    bool
	timeout              float64
	verbose              bool
}

func serve(args []string) error {
	var f serveFlags
	fs := newFlags("serve", serveHelp)
	fs.StringVar(&f.address, "a", defaultAddress, "listen on `ADDRESS`: HOST:PORT, PORT (all hosts), or the path of a Unix socket")
	fs.StringVar(&f.file, "f", "", "serve the database `FILE` (default data/Data.fs); created if absent")
	fs.StringVar(&f.blobs, "b", "", "keep blobs in `DIR` (default data/blobs if -f is not given, else none)")
	fs.BoolVar(&f.msgpack, "msgpack", os.Getenv("ZEO_MSGPACK") != "", "offer clients the msgpack encoding rather than pickle")
	fs.BoolVar(&f.readOnly, "read-only", false, "refuse all writes; the files are not changed")
	fs.Float64Var(&f.timeout, "t", 0, "disconnect a client that takes more than `SECONDS` from vote to finish (default: no limit)")
	fs.BoolVar(&f.verbose, "v", false, "log more")
	if err := parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return &usageError{fmt.Sprintf("unexpected argument %q", fs.Arg(0))}
	}
	if f.timeout < 0 {
		return &usageError{"-t must not be negative"}
	}
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	return f.serve(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})), os.Stdout)
}

func (f *serveFlags) serve(log *slog.Logger, out io.Writer) (err error) {
	network, address, err := splitAddress(f.address, "", "8100")
	if err != nil {
		return err
	}
	if f.file == "" {
		if f.blobs == "" {
			f.blobs = filepath.Join(defaultDir, "blobs")
		}
		f.file = filepath.Join(defaultDir, "Data.fs")
		if !f.readOnly {
			if err := os.MkdirAll(defaultDir, 0o777); err != nil {
				return err
			}
		}
	}

	// Signals count from here on: what is opened is closed again.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	storage, err := filestorage.Open(f.file, filestorage.Options{
		ReadOnly: f.readOnly,
		BlobDir:  f.blobs,
		Logger:   log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, storage.Close()) }()

	opt := server.Options{
		ReadOnly:           f.readOnly,
		TransactionTimeout: time.Duration(f.timeout * float64(time.Second)),
		Logger:             log,
	}
	if f.msgpack {
		opt.Encoding = zrpc.Msgpack
	}
	srv := server.New(opt)
	if err := srv.AddStorage("1", storage); err != nil {
		return err
	}
	listener, err := listen(network, address)
	if err != nil {
		return err
	}
	log.Info("listening", "address", listener.Addr().String(), "file", f.file, "blobs", f.blobs)
	f.greet(out, listener.Addr())

	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stop() // a second signal kills
	log.Info("shutting down")
	limit, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if err := srv.Shutdown(limit); err != nil {
		log.Warn("some clients did not take what was queued for them", "error", err)
	}
	log.Info("stopped")
	return nil
}

// greet says in plain words what is served and how to connect.
func (f *serveFlags) greet(out io.Writer, addr net.Addr) {
	fmt.Fprintf(out, "Serving %s on %s\n", f.file, addr)
	if f.blobs != "" {
		fmt.Fprintf(out, "Blobs are in %s\n", f.blobs)
	}
	python := fmt.Sprintf("%q", addr.String())
	if tcp, ok := addr.(*net.TCPAddr); ok {
		host := tcp.IP.String()
		if tcp.IP.IsUnspecified() {
			host = "127.0.0.1"
		}
		python = fmt.Sprintf("(%q, %d)", host, tcp.Port)
	}
	fmt.Fprintf(out, "Connect from Python:\n\n    import ZEO\n    db = ZEO.DB(%s, blob_dir=\"blob-cache\")\n\n", python)
	fmt.Fprintln(out, "Ctrl-C ends it.")
}
