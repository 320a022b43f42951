package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/config"
	"github.com/zeolite-go/zeolite/server/gateway"
	"github.com/zeolite-go/zeolite/server/postgres"
)

// httpFlags say what is served over HTTP, and to whom.
type httpFlags struct {
	address                         string
	key, cert, certKey, clientCA    string
	blobs, health, metrics, profile bool
}

func (f *httpFlags) add(fs *flag.FlagSet) {
	fs.StringVar(&f.address, "http", "", "also listen for HTTP on `ADDRESS`: HOST:PORT, PORT (this machine only), or the path of a Unix socket")
	fs.BoolVar(&f.blobs, "http-blobs", true, "with --http: serve blobs, at /blobs/STORAGE/OID and /blobs/STORAGE/OID/TID; without --http-key and --http-client-ca to this machine only")
	fs.StringVar(&f.key, "http-key", "", "require signed URLs; the keys, one a line, are in `FILE` (SIGHUP reads it again)")
	fs.StringVar(&f.cert, "http-cert", "", "speak HTTPS, with the certificate in `FILE`")
	fs.StringVar(&f.certKey, "http-cert-key", "", "the private key of --http-cert is in `FILE` (default: in the same one)")
	fs.StringVar(&f.clientCA, "http-client-ca", "", "serve blobs to clients whose certificate is, or was issued by, one in the file or directory (after openssl rehash) `PATH`")
	fs.BoolVar(&f.health, "http-health", true, "with --http: answer /livez and /readyz")
	fs.BoolVar(&f.metrics, "metrics", false, "with --http: serve numbers for Prometheus at /metrics")
	fs.BoolVar(&f.profile, "pprof", false, "with --http: serve profiles at /debug/pprof/, to this machine only")
}

func (f *httpFlags) check() error {
	switch {
	case f.address == "" && (f.key != "" || f.cert != "" || f.certKey != "" || f.clientCA != "" || f.metrics || f.profile):
		return &usageError{"--http-key, --http-cert, --http-client-ca, --metrics and --pprof need --http ADDRESS"}
	case f.cert == "" && (f.certKey != "" || f.clientCA != ""):
		return &usageError{"--http-cert-key and --http-client-ca need --http-cert FILE"}
	}
	return nil
}

// listenAt returns the address to listen at.
func (f *httpFlags) listenAt() (network, address string, err error) {
	return splitAddress(f.address, "127.0.0.1", 8080)
}

// checkFiles says what is wrong with the address and with what the files have that
// the flags name.
func (f *httpFlags) checkFiles(log *slog.Logger) error {
	if f.address == "" {
		return nil
	}
	network, address, err := f.listenAt()
	if err != nil {
		return err
	}
	if network == "unix" {
		err = needDirectory(address)
	}
	if err == nil {
		err = (&httpServer{flags: f, log: log}).load()
	}
	if err != nil {
		return &configError{err}
	}
	return nil
}

// httpServer is the HTTP side of serve. A nil one does nothing. It is safe for
// concurrent use.
type httpServer struct {
	flags   *httpFlags
	log     *slog.Logger
	keys    *gateway.Keys              // nil without --http-key
	tls     atomic.Pointer[tls.Config] // nil without --http-cert
	handler *gateway.Handler
	server  *http.Server
}

// start begins to serve; nil if there is no --http.
func (f *httpFlags) start(ctx context.Context, srv *server.Server, storages map[string]zeolite.Storage, log *slog.Logger) (*httpServer, error) {
	if f.address == "" {
		return nil, nil
	}
	h := &httpServer{flags: f, log: log}
	if err := h.load(); err != nil {
		return nil, &configError{err}
	}
	network, address, err := f.listenAt()
	if err != nil {
		return nil, err
	}
	listeners, err := listenAll(ctx, network, address, log)
	if err != nil {
		return nil, err
	}
	h.handler = gateway.New(storages, gateway.Options{
		Blobs:              f.blobs,
		Health:             f.health,
		Metrics:            f.metrics,
		Profiles:           f.profile,
		Loopback:           f.key == "" && f.clientCA == "",
		Keys:               h.keys,
		ClientCertificates: f.clientCA != "",
		Collect: func(add func(gateway.Metric)) {
			collect(srv.Stats(), add)
			for name, storage := range storages {
				if pg, ok := storage.(*postgres.Storage); ok {
					collectPostgres(name, pg.Stats(), add)
				}
			}
		},
		Logger: log,
	})
	h.server = &http.Server{
		Handler:           h.handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	if h.tls.Load() != nil {
		h.server.TLSConfig = &tls.Config{
			MinVersion:         tls.VersionTLS12,
			NextProtos:         []string{"h2", "http/1.1"},
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return h.tls.Load(), nil },
			// ServeTLS wants a certificate, and the handshake takes the one above.
			Certificates: h.tls.Load().Certificates,
		}
	}
	for _, l := range listeners {
		log.Info("serving HTTP", "http", l.Addr().String(), "tls", f.cert != "", "blobs", f.blobs,
			"signed", f.key != "", "metrics", f.metrics, "pprof", f.profile)
	}
	open := func(l net.Listener) bool { return !onLoopback(l.Addr()) }
	if f.blobs && f.key == "" && f.clientCA == "" && slices.ContainsFunc(listeners, open) {
		log.Warn("other machines get no blobs over HTTP without --http-key or --http-client-ca")
	}
	if f.profile && (f.key != "" || f.clientCA != "") {
		log.Warn("whatever connects from this machine gets profiles: a proxy here must not pass on /debug/pprof/")
	}
	secure := h.server.TLSConfig != nil // package http makes one to begin with
	for _, l := range listeners {
		go h.serve(l, secure)
	}
	return h, nil
}

func (h *httpServer) serve(listener net.Listener, secure bool) {
	var err error
	if secure {
		err = h.server.ServeTLS(listener, "", "")
	} else {
		err = h.server.Serve(listener)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		h.log.Error("HTTP is not served any more", "error", err)
	}
}

func onLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// load reads the files that the flags name. If one cannot be read all stays as
// it was.
func (h *httpServer) load() error {
	cfg, err := h.flags.tls(h.log)
	if err != nil {
		return err
	}
	if err := h.loadKeys(); err != nil {
		return fmt.Errorf("--http-key: %w", err)
	}
	h.tls.Store(cfg)
	return nil
}

func (h *httpServer) loadKeys() (err error) {
	file := h.flags.key
	if file == "" {
		return nil
	}
	if st, err := os.Stat(file); err == nil && st.Mode().Perm()&0o007 != 0 {
		h.log.Warn("everybody on this machine can use the file of keys", "file", file)
	}
	if h.keys != nil {
		return h.keys.Reload()
	}
	h.keys, err = gateway.LoadKeys(file)
	return err
}

// tls reads the certificates; nil without --http-cert.
func (f *httpFlags) tls(log *slog.Logger) (*tls.Config, error) {
	if f.cert == "" {
		return nil, nil
	}
	pair, err := config.LoadKeyPair(f.cert, f.certKey)
	if err != nil {
		return nil, fmt.Errorf("--http-cert: %w", err)
	}
	cfg := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if f.clientCA != "" {
		trusted, err := loadTrusted(f.clientCA, log)
		if err != nil {
			return nil, fmt.Errorf("--http-client-ca: %w", err)
		}
		cfg.ClientCAs = trusted.pool
		trusted.apply(cfg)
		// Signed URLs and health checks need no certificate.
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return cfg, nil
}

// reload reads the files again.
func (h *httpServer) reload() {
	if h == nil {
		return
	}
	if err := h.load(); err != nil {
		h.log.Error("cannot read keys and certificates for HTTP again; the old ones stay in use", "error", err)
	} else if h.keys != nil || h.tls.Load() != nil {
		h.log.Info("keys and certificates for HTTP read again")
	}
}

// drain makes /readyz say that the end is near.
func (h *httpServer) drain() {
	if h != nil {
		h.handler.Drain()
	}
}

// shutdown stops accepting and lets requests end until the context does; what
// is left is cut off.
func (h *httpServer) shutdown(ctx context.Context) {
	if h == nil {
		return
	}
	if err := h.server.Shutdown(ctx); err != nil {
		h.log.Warn("some HTTP requests did not end in time", "error", err)
		_ = h.server.Close() // whatever it says, the process ends
	}
}
