package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/client"
	"github.com/zeolite-go/zeolite/server/config"
)

// openClientStorage opens a storage that another server serves, to be served
// again: for clients that are near this server and far from that one. It waits
// for a connection, whatever the section says: until there is one the storage
// looks empty, and without blobs, undo and packing, and a server asks only once.
func openClientStorage(ctx context.Context, spec *config.ClientStorage, how howToOpen, log *slog.Logger) (zeolite.Storage, error) {
	opt := client.Options{
		Storage:            spec.Storage,
		ReadOnly:           how.readOnly || spec.ReadOnly,
		ReadOnlyFallback:   spec.ReadOnlyFallback && !how.readOnly,
		WaitTimeout:        spec.WaitTimeout,
		Label:              spec.ClientLabel,
		CacheSize:          spec.CacheSize,
		CachePath:          spec.CachePath,
		BlobDir:            spec.BlobDir,
		SharedBlobDir:      spec.SharedBlobDir,
		BlobCacheSize:      spec.BlobCacheSize,
		BlobCacheSizeCheck: spec.BlobCacheSizeCheck,
		Logger:             log,
	}
	for _, a := range spec.Servers {
		address := a.String()
		if a.Network() == "unix" {
			var err error
			if address, err = filepath.Abs(address); err != nil {
				return nil, err
			}
		}
		opt.Addresses = append(opt.Addresses, address)
	}
	if spec.SSL != nil {
		opt.Dial = how.certificates.remotes[spec.SSL].dial
	}
	return client.Open(ctx, opt)
}

// clientTLS makes the configuration of connections to a server with TLS.
func clientTLS(ssl *config.ClientSSL, log *slog.Logger) (*tls.Config, error) {
	pair, err := config.LoadKeyPair(ssl.Certificate, ssl.Key)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ServerName: ssl.ServerHostname}
	peers := &trusted{}
	if ssl.Authenticate != "" {
		if peers, err = loadTrusted(ssl.Authenticate, log); err != nil {
			return nil, err
		}
		cfg.RootCAs = peers.pool
		peers.apply(cfg)
	}
	if !ssl.CheckHostname {
		// The chain is checked all the same, only the name is not.
		cfg.InsecureSkipVerify = true
		cfg.VerifyConnection = func(state tls.ConnectionState) error { return verifyChain(peers, state) }
	}
	return cfg, nil
}

// verifyChain checks a server's certificates, whatever its name.
func verifyChain(peers *trusted, state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server showed no certificate")
	}
	opts := x509.VerifyOptions{Roots: peers.pool, Intermediates: x509.NewCertPool()}
	for _, c := range state.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	chains, err := state.PeerCertificates[0].Verify(opts)
	if err != nil {
		return err
	}
	return peers.checkRevoked(chains)
}
