package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/config"
	"github.com/zeolite-go/zeolite/zrpc"
)

const serveHelp = `Serve a database to ZEO clients: a Data.fs file and a directory of blobs, or
PostgreSQL.

  zeolite serve                        ./data, created if absent, on 127.0.0.1:8100
  zeolite serve -a 0.0.0.0:8100 -f var/Data.fs -b var/blobs
  zeolite serve -a /run/zeo.sock -f var/Data.fs -b var/blobs
  zeolite serve --postgres 'host=db dbname=zodb user=zope'
  zeolite serve -C etc/zeo.conf        what runzeo -C serves, in the same way
  zeolite serve -C etc/zeo.conf -X zeo/address=8101 -X filestorage/path=/tmp/copy.fs
  zeolite serve -C etc/zeo.conf --check
  zeolite serve --http 8080 --metrics  blobs and health over HTTP, and numbers

Clients connect as to any ZEO server. SIGTERM or SIGINT ends it: running commits
are ended, clients are disconnected, and the index is saved. SIGHUP reads the TLS
certificates, their revocation lists and the keys for HTTP again; SIGUSR2 opens
the log files again, after they were rotated. The exit code is 1 after a failure,
and 2, as runzeo's, where starting again would not help: if the command line or
the configuration is wrong, or another server has the address.
`

const (
	defaultAddress = "127.0.0.1:8100"
	defaultDir     = "data"
	// shutdownTime is how long clients have to take what is queued for them.
	shutdownTime = 3 * time.Second
)

type serveFlags struct {
	config               string
	overrides            []string
	check                bool
	address, file, blobs string
	postgres             postgresFlags
	pidFile              string
	msgpack, readOnly    bool
	noWAL                bool
	timeout              float64
	verbose              bool
	limits               server.Limits
	http                 httpFlags
}

func serve(args []string) error {
	var f serveFlags
	fs := newFlags("serve", serveHelp)
	fs.StringVar(&f.config, "C", "", "read the configuration from zeo.conf `FILE`; other flags override it")
	fs.Func("X", "with -C: `SECTION/KEY=VALUE` takes the place of a value in zeo.conf, as zeo/address=8100; may be given again", func(s string) error {
		f.overrides = append(f.overrides, s)
		return nil
	})
	fs.BoolVar(&f.check, "check", false, "with -C: only say whether the configuration is right")
	fs.StringVar(&f.address, "a", "", "listen on `ADDRESS`: HOST:PORT, PORT (all hosts), or the path of a Unix socket (default "+defaultAddress+")")
	fs.StringVar(&f.file, "f", "", "serve the database `FILE` (default data/Data.fs); created if absent")
	fs.StringVar(&f.blobs, "b", "", "keep blobs in `DIR` (default data/blobs if -f is not given, else none)")
	fs.StringVar(&f.pidFile, "pid-file", "", "write the process id to `FILE`")
	fs.BoolVar(&f.msgpack, "msgpack", false, "offer clients the msgpack encoding rather than pickle, as ZEO_MSGPACK in the environment does")
	fs.BoolVar(&f.readOnly, "read-only", false, "refuse all writes, and packs, too; the files are not changed")
	fs.BoolVar(&f.noWAL, "no-wal", false, "commit with two syncs of Data.fs instead of a write-ahead log beside it: slower, but after a power failure programs other than zeolite can be the first to open the file")
	fs.Float64Var(&f.timeout, "t", 0, "disconnect a client that takes more than `SECONDS` from vote to finish (default: no limit)")
	fs.BoolVar(&f.verbose, "v", false, "log more")
	limitFlags(&fs.FlagSet, &f.limits)
	f.postgres.add(&fs.FlagSet)
	f.http.add(&fs.FlagSet)
	if err := parse(fs, args); err != nil {
		return err
	}
	switch {
	case fs.NArg() > 0:
		return &usageError{fmt.Sprintf("unexpected argument %q", fs.Arg(0))}
	case f.timeout < 0:
		return &usageError{"-t must not be negative"}
	case f.config != "" && (f.file != "" || f.blobs != ""):
		return &usageError{"-f and -b do not go with -C: the configuration names the storages"}
	case f.postgres.dsn != "" && (f.config != "" || f.file != "" || f.blobs != "" || f.noWAL):
		return &usageError{"--postgres does not go with -C, -f, -b or --no-wal: the database has the objects and the blobs"}
	case f.check && f.config == "":
		return &usageError{"--check needs -C FILE"}
	case len(f.overrides) > 0 && f.config == "":
		return &usageError{"-X needs -C FILE"}
	}
	if err := errors.Join(f.http.check(), f.postgres.check()); err != nil {
		return err
	}
	cfg, err := f.configuration()
	if err != nil {
		return err
	}
	if f.config != "" {
		// As runzeo does: what is wrong with it is told from what may fail later.
		if err := cfg.Check(); err != nil {
			return &configError{err}
		}
	}
	if f.check {
		return f.sayWhatIsServed(cfg, os.Stdout)
	}
	return f.run(cfg, os.Stdout)
}

// sayWhatIsServed is for --check: what a configuration means, if it is right, and
// what serve would warn of.
func (f *serveFlags) sayWhatIsServed(cfg *config.Config, out io.Writer) error {
	var warned strings.Builder
	to := config.LogFile{Format: "warning: %(message)s"}
	log := slog.New(&eventLog{logs: &logFiles{files: []*logFile{{spec: to, w: &warned}}}, level: config.LevelWarning})
	if _, err := loadAllCertificates(cfg, log); err != nil {
		return &configError{err}
	}
	if err := f.http.checkFiles(log); err != nil {
		return err
	}
	fmt.Fprint(out, cfg.Describe())
	for _, w := range cfg.Warnings {
		fmt.Fprintf(out, "warning: %v\n", w)
	}
	fmt.Fprintf(out, "%sThe configuration is right.\n", warned.String())
	return nil
}

// configuration makes one configuration of file, flags and defaults.
func (f *serveFlags) configuration() (*config.Config, error) {
	var cfg *config.Config
	var err error
	if f.config != "" {
		if cfg, err = (&config.Loader{Overrides: f.overrides}).Load(f.config); err != nil {
			return nil, &configError{err}
		}
	} else {
		if f.address == "" {
			f.address = defaultAddress
		}
		if f.postgres.dsn != "" {
			f.file = "PostgreSQL"
		} else if f.file == "" {
			f.file = filepath.Join(defaultDir, "Data.fs")
			if f.blobs == "" {
				f.blobs = filepath.Join(defaultDir, "blobs")
			}
			if !f.readOnly {
				if err := os.MkdirAll(defaultDir, 0o777); err != nil {
					return nil, err
				}
			}
		}
		if cfg, err = config.FromFlags(f.address, f.file); err != nil {
			return nil, &usageError{err.Error()}
		}
		if f.postgres.dsn != "" {
			cfg.Storages[0].Spec = &postgresSpec{&config.MappingStorage{}, f.postgres.options()}
		} else {
			cfg.Storages[0].Spec.(*config.FileStorage).BlobDir = f.blobs
		}
		cfg.EventLog = config.EventLog{}
		if strings.HasSuffix(f.address, ":0") {
			cfg.Warnings = nil // any free port is what was asked for
		}
	}
	if f.config != "" && f.address != "" {
		if cfg.ZEO.Address, err = config.ParseAddress(f.address); err != nil {
			return nil, &usageError{err.Error()}
		}
	}
	if f.timeout > 0 {
		cfg.ZEO.TransactionTimeout = time.Duration(f.timeout * float64(time.Second))
	}
	if f.pidFile != "" {
		cfg.ZEO.PIDFilename = f.pidFile
	}
	cfg.ZEO.ReadOnly = cfg.ZEO.ReadOnly || f.readOnly
	cfg.ZEO.Msgpack = cfg.ZEO.Msgpack || f.msgpack
	return cfg, nil
}

// run serves until a signal ends it.
func (f *serveFlags) run(cfg *config.Config, out io.Writer) (err error) {
	log, logs, err := f.logger(cfg)
	if err != nil {
		return err
	}
	defer logs.Close()
	defer func() {
		// A daemon has no standard error output. Without -C that is the log.
		if err != nil && f.config != "" {
			log.Error("the server ends", "error", err)
		}
	}()
	for _, w := range cfg.Warnings {
		log.Warn("configuration", "warning", fmt.Sprint(w))
	}

	// Signals count from here on: what is opened is closed again.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	// Nor do these end the process, before it serves or after: they wait.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2)

	opt := server.Options{
		ReadOnly:              cfg.ZEO.ReadOnly,
		TransactionTimeout:    cfg.ZEO.TransactionTimeout,
		InvalidationAge:       cfg.ZEO.InvalidationAge,
		InvalidationQueueSize: cfg.ZEO.InvalidationQueueSize,
		Limits:                f.limits,
		Logger:                log,
	}
	if cfg.ZEO.Msgpack {
		opt.Encoding = zrpc.Msgpack
	}
	certificates, err := loadAllCertificates(cfg, log)
	if err != nil {
		return &configError{err}
	}
	if certificates.server != nil {
		opt.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: certificates.server.current}
	}
	pidFile := ""
	defer func() {
		// Who waits for it to go may open the storages: they are closed by now.
		if pidFile != "" {
			os.Remove(pidFile) // it may be gone
		}
	}()
	network, address := cfg.ZEO.Address.Network(), cfg.ZEO.Address.String()
	if err := look(ctx, network, address); err != nil {
		return err
	}
	if f.http.address != "" {
		network, address, err := f.http.listenAt()
		if err == nil {
			err = look(ctx, network, address)
		}
		if err != nil {
			return err
		}
	}
	srv := server.New(opt)
	storages := map[string]zeolite.Storage{}
	how := howToOpen{readOnly: f.readOnly, noWAL: f.noWAL, certificates: certificates}
	for _, s := range cfg.Storages {
		storage, err := openStorage(ctx, s.Spec, how, log)
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			log.Info("stopped before it was ready", "storage", s.Name)
			return nil
		}
		if err != nil {
			return fmt.Errorf("storage %s: %w", s.Name, err)
		}
		defer func() {
			// One that is stuck would not close, and this would not end.
			if !errors.Is(err, server.ErrStuck) {
				err = errors.Join(err, closeStorage(storage, log))
			}
		}()
		if err := srv.AddStorage(s.Name, storage); err != nil {
			return err
		}
		storages[s.Name] = storage
	}
	web, err := f.http.start(ctx, srv, storages, log)
	if err != nil {
		return err
	}
	defer func() {
		limit, cancel := context.WithTimeout(context.Background(), shutdownTime)
		defer cancel()
		web.shutdown(limit)
	}()
	listeners, err := listenAll(ctx, network, address, log)
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	if name := cfg.ZEO.PIDFilename; name != "" {
		if err := os.WriteFile(name, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o666); err != nil {
			log.Error("cannot write the process id", "error", err)
		} else {
			pidFile = name
		}
	}
	for _, l := range listeners {
		log.Info("listening", "address", l.Addr().String(), "storages", strings.Join(srv.Names(), ", "), "tls", opt.TLS != nil)
	}
	if f.config == "" {
		f.greet(out, address, listeners[0].Addr())
	}

	served := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { served <- srv.Serve(l) }()
	}
	for ctx.Err() == nil {
		select {
		case err := <-served:
			return err
		case s := <-signals:
			if s == syscall.SIGUSR2 {
				logs.reopen(log)
			} else {
				certificates.reload()
				web.reload()
			}
		case <-ctx.Done():
		}
	}
	stop() // a second signal kills
	log.Info("shutting down")
	web.drain()
	limit, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	switch err := srv.Shutdown(limit); {
	case errors.Is(err, server.ErrStuck):
		return err
	case err != nil:
		log.Warn("some clients did not take what was queued for them", "error", err)
	}
	return nil
}

func closeStorage(storage zeolite.Storage, log *slog.Logger) error {
	name := storage.Info().Name
	err := storage.Close()
	if err == nil {
		log.Info("stopped", "storage", name)
	}
	return err
}

// greet says in plain words what is served and how to connect. A socket for all
// hosts does not tell whether that is with IPv4, too; the address that was asked for
// does.
func (f *serveFlags) greet(out io.Writer, asked string, addr net.Addr) {
	fmt.Fprintf(out, "Serving %s on %s\n", f.file, addr)
	if f.blobs != "" {
		fmt.Fprintf(out, "Blobs are in %s\n", f.blobs)
	}
	blobCache := ""
	if f.blobs != "" || f.postgres.dsn != "" {
		blobCache = `, blob_dir="blob-cache"`
	}
	python := fmt.Sprintf("%q", addr.String())
	if tcp, ok := addr.(*net.TCPAddr); ok {
		host := tcp.IP.String()
		switch {
		case !tcp.IP.IsUnspecified():
		case family(asked) == "tcp6":
			host = "::1"
		default:
			host = "127.0.0.1"
		}
		python = fmt.Sprintf("(%q, %d)", host, tcp.Port)
	}
	fmt.Fprintf(out, "Connect from Python:\n\n    import ZEO\n    db = ZEO.DB(%s%s)\n\n", python, blobCache)
	fmt.Fprintln(out, "Ctrl-C ends it.")
}
