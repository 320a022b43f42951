package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/zeolite-go/zeolite/server/config"
)

// certificates are the files of an <ssl> section, read again on SIGHUP. It is
// safe for concurrent use.
type certificates struct {
	ssl    *config.SSL
	log    *slog.Logger
	loaded atomic.Pointer[tls.Config]
}

// loadCertificates reads the certificates; nil if there is no <ssl> section.
func loadCertificates(ssl *config.SSL, log *slog.Logger) (*certificates, error) {
	if ssl == nil {
		return nil, nil
	}
	c := &certificates{ssl: ssl, log: log}
	cfg, err := c.load()
	if err != nil {
		return nil, err
	}
	c.loaded.Store(cfg)
	return c, nil
}

// current follows tls.Config.GetConfigForClient.
func (c *certificates) current(*tls.ClientHelloInfo) (*tls.Config, error) {
	return c.loaded.Load(), nil
}

// reload reads the certificates again. If that fails the old ones stay.
func (c *certificates) reload() {
	if c == nil {
		return
	}
	cfg, err := c.load()
	if err != nil {
		c.log.Error("cannot read the certificates again; the old ones stay in use", "error", err)
		return
	}
	c.loaded.Store(cfg)
	c.log.Info("certificates read again")
}

func (c *certificates) load() (*tls.Config, error) {
	pair, err := config.LoadKeyPair(c.ssl.Certificate, c.ssl.Key)
	if err != nil {
		return nil, fmt.Errorf("<ssl>: %w", err)
	}
	trusted, err := loadTrusted(c.ssl.Authenticate, c.log)
	if err != nil {
		return nil, fmt.Errorf("<ssl>: %w", err)
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
