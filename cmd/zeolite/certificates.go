package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"

	"github.com/zeolite-go/zeolite/server/config"
)

// allCertificates are those of a configuration. It does not change after it was
// made.
type allCertificates struct {
	server  *certificates // nil if <zeo> has no <ssl>
	remotes map[*config.ClientSSL]*certificates
}

// loadAllCertificates reads the certificates of <zeo> and of each <clientstorage>.
func loadAllCertificates(cfg *config.Config, log *slog.Logger) (*allCertificates, error) {
	all := &allCertificates{remotes: map[*config.ClientSSL]*certificates{}}
	var err error
	if all.server, err = loadCertificates(cfg.ZEO.SSL, log); err != nil {
		return nil, err
	}
	for st := range cfg.AllStorages() {
		spec, ok := st.Spec.(*config.ClientStorage)
		if !ok || spec.SSL == nil {
			continue
		}
		section := fmt.Sprintf("%v: <%s>", st.Pos, spec.Kind())
		all.remotes[spec.SSL], err = newCertificates(section, log, func() (*tls.Config, error) { return clientTLS(spec.SSL, log) })
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// reload reads all of them again.
func (a *allCertificates) reload() {
	a.server.reload()
	for _, c := range a.remotes {
		c.reload()
	}
}

// certificates are the files of an <ssl> section, read again on SIGHUP. It is
// safe for concurrent use.
type certificates struct {
	section string // that <ssl> stands in
	log     *slog.Logger
	read    func() (*tls.Config, error)
	loaded  atomic.Pointer[tls.Config]
}

func newCertificates(section string, log *slog.Logger, read func() (*tls.Config, error)) (*certificates, error) {
	c := &certificates{section: section, log: log, read: read}
	cfg, err := read()
	if err != nil {
		return nil, fmt.Errorf("%s: <ssl>: %w", section, err)
	}
	c.loaded.Store(cfg)
	return c, nil
}

// loadCertificates reads the server's certificates; nil if there is no <ssl>
// section.
func loadCertificates(ssl *config.SSL, log *slog.Logger) (*certificates, error) {
	if ssl == nil {
		return nil, nil
	}
	return newCertificates("<zeo>", log, func() (*tls.Config, error) { return serverTLS(ssl, log) })
}

// current follows tls.Config.GetConfigForClient.
func (c *certificates) current(*tls.ClientHelloInfo) (*tls.Config, error) {
	return c.loaded.Load(), nil
}

// dial follows client.Options.Dial: each connection begins with the certificates
// that were read last.
func (c *certificates) dial(ctx context.Context, network, address string) (net.Conn, error) {
	cfg := c.loaded.Load()
	if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, errors.New("<ssl> over a Unix socket needs server-hostname")
		}
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	nc, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return tc, nil
}

// reload reads the certificates again. If that fails the old ones stay.
func (c *certificates) reload() {
	if c == nil {
		return
	}
	cfg, err := c.read()
	if err != nil {
		c.log.Error("cannot read the certificates again; the old ones stay in use", "section", c.section, "error", err)
		return
	}
	c.loaded.Store(cfg)
	c.log.Info("certificates read again", "section", c.section)
}

// serverTLS makes the configuration of connections from clients.
func serverTLS(ssl *config.SSL, log *slog.Logger) (*tls.Config, error) {
	pair, err := config.LoadKeyPair(ssl.Certificate, ssl.Key)
	if err != nil {
		return nil, err
	}
	trusted, err := loadTrusted(ssl.Authenticate, log)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		ClientCAs:    trusted.pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	}
	trusted.apply(cfg)
	return cfg, nil
}
