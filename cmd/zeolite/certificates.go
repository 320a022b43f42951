package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/zeolite-go/zeolite/server/config"
)

// certificates are the files of an <ssl> section, read again on SIGHUP. It is
// safe for concurrent use.
type certificates struct {
	ssl    *config.SSL
	loaded atomic.Pointer[tls.Config]
}

// loadCertificates reads the certificates; nil if there is no <ssl> section.
func loadCertificates(ssl *config.SSL) (*certificates, error) {
	if ssl == nil {
		return nil, nil
	}
	c := &certificates{ssl: ssl}
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
func (c *certificates) reload(log *slog.Logger) {
	if c == nil {
		return
	}
	cfg, err := c.load()
	if err != nil {
		log.Error("cannot read the certificates again; the old ones stay in use", "error", err)
		return
	}
	c.loaded.Store(cfg)
	log.Info("certificates read again")
}

func (c *certificates) load() (*tls.Config, error) {
	pair, err := config.LoadKeyPair(c.ssl.Certificate, c.ssl.Key)
	if err != nil {
		return nil, fmt.Errorf("<ssl>: %w", err)
	}
	pool, err := certPool(c.ssl.Authenticate)
	if err != nil {
		return nil, fmt.Errorf("<ssl>: %w", err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	}, nil
}

// certPool reads a file of certificates, or all the files in a directory.
func certPool(path string) (*x509.CertPool, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	files := []string{path}
	if st.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*")); err != nil {
			return nil, err
		}
	}
	pool := x509.NewCertPool()
	found := false
	for _, name := range files {
		pem, err := os.ReadFile(name)
		if err != nil {
			if st.IsDir() {
				continue // a directory in it, say
			}
			return nil, err
		}
		found = pool.AppendCertsFromPEM(pem) || found
	}
	if !found {
		return nil, fmt.Errorf("there is no certificate in %s", path)
	}
	return pool, nil
}
