package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// trusted is whom a file or directory of certificates, as in authenticate of
// <ssl>, says to trust. It does not change after it was loaded.
type trusted struct {
	pool         *x509.CertPool
	certificates []*x509.Certificate
	revocations  []*x509.RevocationList // the newest first
}

// hashed are the names that OpenSSL looks for in a directory: a hash of the
// subject, and a number, after an r for revocation lists. "openssl rehash" makes
// them. What else is there is not trusted: an issuer that was put aside, say.
var hashed = regexp.MustCompile(`^[0-9a-f]{8}\.r?[0-9]+$`)

// loadTrusted reads certificates and revocation lists (CRLs) from a PEM file, or
// from the files in a directory whose names are hashes.
func loadTrusted(path string, log *slog.Logger) (*trusted, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	t := &trusted{pool: x509.NewCertPool()}
	if !st.IsDir() {
		err = t.load(path)
	} else {
		err = t.loadDirectory(path)
	}
	switch {
	case err != nil:
		return nil, err
	case len(t.certificates) == 0 && st.IsDir():
		return nil, fmt.Errorf("there is no certificate in the directory %s with a name such as 1a2b3c4d.0: run \"openssl rehash %[1]s\"", path)
	case len(t.certificates) == 0:
		return nil, fmt.Errorf("there is no certificate in %s", path)
	}
	slices.SortStableFunc(t.revocations, func(a, b *x509.RevocationList) int { return b.ThisUpdate.Compare(a.ThisUpdate) })
	log.Info("certificates are trusted", "authenticate", path, "certificates", len(t.certificates), "revocation_lists", len(t.revocations))
	for _, l := range t.revocations {
		if !inForce(l) {
			log.Warn("a revocation list is not in force: unless there is another one, whom its issuer certified is refused",
				"issuer", l.Issuer.String(), "from", l.ThisUpdate, "until", l.NextUpdate)
		}
	}
	return t, nil
}

func (t *trusted) loadDirectory(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !hashed.MatchString(e.Name()) {
			continue
		}
		// A link that is left over must not keep the server from starting.
		if err := t.load(filepath.Join(path, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (t *trusted) load(path string) error {
	rest, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil
		}
		switch block.Type {
		case "CERTIFICATE":
			// Bundles have some that Go does not like; nobody is let in by those.
			if c, err := x509.ParseCertificate(block.Bytes); err == nil {
				t.certificates = append(t.certificates, c)
				t.pool.AddCert(c)
			}
		case "X509 CRL":
			l, err := x509.ParseRevocationList(block.Bytes)
			if err != nil {
				return fmt.Errorf("a revocation list in %s: %w", path, err)
			}
			for _, e := range l.Extensions {
				if e.Critical { // the list is of some certificates only, or of changes
					return fmt.Errorf("a revocation list in %s, of %s, has the critical extension %v, which is not supported", path, l.Issuer, e.Id)
				}
			}
			t.revocations = append(t.revocations, l)
		}
	}
}

// apply has a configuration refuse peers whose certificate was revoked. It is
// also asked when a session is resumed.
func (t *trusted) apply(cfg *tls.Config) {
	cfg.VerifyConnection = func(state tls.ConnectionState) error { return t.checkRevoked(state.VerifiedChains) }
}

// checkRevoked says whether a certificate, the first one of each of the chains,
// may still be used. As with runzeo, nothing is checked if there are no
// revocation lists at all; else its issuer must have one that is in force.
func (t *trusted) checkRevoked(chains [][]*x509.Certificate) error {
	if len(t.revocations) == 0 || len(chains) == 0 {
		return nil
	}
	leaf := chains[0][0]
	issuers := t.issuers(chains)
	for _, l := range t.revocations {
		if !bytes.Equal(l.RawIssuer, leaf.RawIssuer) || !inForce(l) {
			continue
		}
		// There may be issuers of the same name with other keys.
		if !slices.ContainsFunc(issuers, func(c *x509.Certificate) bool { return l.CheckSignatureFrom(c) == nil }) {
			continue
		}
		if revokes(l, leaf.SerialNumber) {
			return fmt.Errorf("certificate %x of %s was revoked", leaf.SerialNumber, leaf.Subject)
		}
		return nil
	}
	return fmt.Errorf("certificate %x of %s: its issuer, %s, has no revocation list in force", leaf.SerialNumber, leaf.Subject, leaf.Issuer)
}

// issuers returns who issued the first certificate of the chains.
func (t *trusted) issuers(chains [][]*x509.Certificate) []*x509.Certificate {
	var issuers []*x509.Certificate
	leaf := chains[0][0]
	for _, chain := range chains {
		if len(chain) > 1 {
			issuers = append(issuers, chain[1])
		}
	}
	if issuers == nil { // it is trusted itself
		for _, c := range t.certificates {
			if bytes.Equal(c.RawSubject, leaf.RawIssuer) && leaf.CheckSignatureFrom(c) == nil {
				issuers = append(issuers, c)
			}
		}
	}
	return issuers
}

func revokes(l *x509.RevocationList, serial *big.Int) bool {
	return slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(serial) == 0 })
}

// inForce says whether a revocation list has begun and has not expired.
func inForce(l *x509.RevocationList) bool {
	now := time.Now()
	return !now.Before(l.ThisUpdate) && (l.NextUpdate.IsZero() || now.Before(l.NextUpdate))
}
