package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite/server/config"
)

// issuer is a certificate with its key, and what it issues.
type issuer struct {
	t      *testing.T
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	chain  [][]byte // the certificate, and its issuers' but the root's
	issued int64
}

// newIssuer makes an authority, of its own or, if by is not nil, below another.
func newIssuer(t *testing.T, name string, by *issuer) *issuer {
	t.Helper()
	template := &x509.Certificate{
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	if by == nil {
		by = &issuer{t: t}
	}
	return by.issue(name, template)
}

// client makes a certificate for a client, which is good for a server, too.
func (i *issuer) client(name string) *issuer {
	i.t.Helper()
	return i.issue(name, &x509.Certificate{
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"},
	})
}

func (i *issuer) issue(name string, template *x509.Certificate) *issuer {
	i.t.Helper()
	i.issued++
	template.SerialNumber, template.Subject = big.NewInt(i.issued), pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	parent, signer := i.cert, i.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		i.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		i.t.Fatal(err)
	}
	made := &issuer{t: i.t, cert: cert, key: key}
	if i.cert != nil {
		made.chain = append([][]byte{der}, i.chain...)
	}
	return made
}

func (i *issuer) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw}))
}

func (i *issuer) keyPEM(t *testing.T) string {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}

func (i *issuer) keyPair() tls.Certificate {
	return tls.Certificate{Certificate: i.chain, PrivateKey: i.key}
}

// revocations makes a list of an age, good for an hour.
func (i *issuer) revocations(age time.Duration, revoked ...*issuer) string {
	i.t.Helper()
	from := time.Now().Add(-age)
	template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: from, NextUpdate: from.Add(time.Hour)}
	for _, r := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: r.cert.SerialNumber, RevocationTime: from})
	}
	return i.sign(template)
}

func (i *issuer) sign(template *x509.RevocationList) string {
	i.t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, template, i.cert, i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

// handshake connects a client to a server and returns what both say.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	said := make(chan error, 1)
	go func() {
		nc, err := l.Accept()
		if err == nil {
			defer nc.Close()
			err = tls.Server(nc, server).Handshake()
		}
		said <- err
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close() // after the server's end, which writes last
	clientErr = tls.Client(nc, client).Handshake()
	return <-said, clientErr
}

func writeFile(t *testing.T, path string, text ...string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(text, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRevokedClients: who is let in with which lists in the file of <ssl>.
func TestRevokedClients(t *testing.T) {
	root := newIssuer(t, "root", nil)
	server, good, bad := root.client("server"), root.client("good"), root.client("bad")
	below := newIssuer(t, "below", root)
	goodBelow, badBelow := below.client("good below"), below.client("bad below")
	// The same name with another key: what it revokes is another's.
	namesake := newIssuer(t, "root", nil)
	other := newIssuer(t, "other", nil)

	dir := t.TempDir()
	ssl := &config.SSL{Certificate: filepath.Join(dir, "server.pem"), Key: filepath.Join(dir, "server.key"), Authenticate: filepath.Join(dir, "ca.pem")}
	writeFile(t, ssl.Certificate, server.pem())
	writeFile(t, ssl.Key, server.keyPEM(t))
	writeFile(t, ssl.Authenticate, root.pem())
	certificates, err := loadCertificates(ssl, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	const old = 2 * time.Hour
	for _, c := range []struct {
		name   string
		file   []string
		client *issuer
		want   string // what the server says, "" if it lets the client in
	}{
		{"no lists", nil, bad, ""},
		{"not revoked", []string{root.revocations(0, bad)}, good, ""},
		{"revoked", []string{root.revocations(0, bad)}, bad, "was revoked"},
		{"expired", []string{root.revocations(old, bad)}, good, "no revocation list in force"},
		{"not yet", []string{root.revocations(-time.Minute, bad)}, good, "no revocation list in force"},
		{"one has expired", []string{root.revocations(old), root.revocations(0, bad)}, good, ""},
		{"a newer one", []string{root.revocations(time.Minute, good), root.revocations(0, bad)}, good, ""},
		{"an older one", []string{root.revocations(time.Minute), root.revocations(0, bad)}, bad, "was revoked"},
		{"of another issuer", []string{other.pem(), other.revocations(0)}, good, "no revocation list in force"},
		{"of a namesake", []string{namesake.pem(), namesake.revocations(0), root.revocations(time.Minute, bad)}, bad, "was revoked"},
		{"of a namesake alone", []string{namesake.pem(), namesake.revocations(0)}, bad, "no revocation list in force"},
		{"of a namesake who is not trusted", []string{namesake.revocations(0)}, good, "no revocation list in force"},
		{"intermediate", []string{root.revocations(0), below.revocations(0, badBelow)}, goodBelow, ""},
		{"revoked by an intermediate", []string{root.revocations(0), below.revocations(0, badBelow)}, badBelow, "was revoked"},
		{"intermediate without a list", []string{root.revocations(0)}, goodBelow, "no revocation list in force"},
		{"trusted itself", []string{good.pem(), root.revocations(0, bad)}, good, ""},
		{"trusted itself, and revoked", []string{bad.pem(), root.revocations(0, bad)}, bad, "was revoked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			writeFile(t, ssl.Authenticate, append([]string{root.pem()}, c.file...)...)
			certificates.reload()
			serve := &tls.Config{GetConfigForClient: certificates.current}
			err, _ := handshake(t, serve, &tls.Config{Certificates: []tls.Certificate{c.client.keyPair()}, InsecureSkipVerify: true})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("the server says %v, want %q", err, c.want)
			}
		})
	}
}

// sectionOf is an <ssl> of a client with that certificate, for a server at localhost.
// The file of whom to trust is still to be written.
func sectionOf(t *testing.T, client *issuer) *config.ClientSSL {
	t.Helper()
	dir := t.TempDir()
	ssl := &config.ClientSSL{Certificate: filepath.Join(dir, "client.pem"), Authenticate: filepath.Join(dir, "ca.pem"), ServerHostname: "localhost"}
	writeFile(t, ssl.Certificate, client.pem(), client.keyPEM(t))
	return ssl
}

// TestRevokedServer: <ssl> of <clientstorage> has the same lists.
func TestRevokedServer(t *testing.T) {
	root := newIssuer(t, "root", nil)
	good, bad, client := root.client("good"), root.client("bad"), root.client("client")
	ssl := sectionOf(t, client)
	writeFile(t, ssl.Authenticate, root.pem(), root.revocations(0, bad))
	for _, ssl.CheckHostname = range []bool{true, false} {
		cfg, err := clientTLS(ssl, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for _, server := range []*issuer{good, bad} {
			_, err := handshake(t, &tls.Config{Certificates: []tls.Certificate{server.keyPair()}}, cfg)
			if revoked := err != nil && strings.Contains(err.Error(), "was revoked"); revoked != (server == bad) || err != nil && !revoked {
				t.Errorf("check-hostname %v: %s: %v", ssl.CheckHostname, server.cert.Subject, err)
			}
		}
	}
}

// shaker shakes hands with whoever connects, until the test ends, and returns its
// address.
func shaker(t *testing.T, server *issuer) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{server.keyPair()}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-ended })
	go func() {
		defer close(ended)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			_ = nc.(*tls.Conn).Handshake() // the client says how it went
			nc.Close()
		}
	}()
	return l.Addr().String()
}

// TestRemoteReload: at SIGHUP <ssl> of a <clientstorage>, wherever that stands, is
// read again: who is trusted, and which lists are in force.
func TestRemoteReload(t *testing.T) {
	root, other := newIssuer(t, "root", nil), newIssuer(t, "other", nil)
	far, client := root.client("far"), root.client("client")
	ssl := sectionOf(t, client)
	base := config.Storage{Spec: &config.ClientStorage{Section: "clientstorage", SSL: ssl}}
	cfg := &config.Config{Storages: []config.Storage{{Name: "1", Spec: &config.DemoStorage{Base: &base}}}}

	addr := shaker(t, far)
	for _, ssl.CheckHostname = range []bool{true, false} {
		const old = 2 * time.Hour
		writeFile(t, ssl.Authenticate, root.pem(), root.revocations(old))
		all, err := loadAllCertificates(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			name, file string
			want       string // what is wrong with the server, "" if nothing
		}{
			{"the list has expired", root.pem() + root.revocations(old), "no revocation list in force"},
			{"a new one", root.pem() + root.revocations(0), ""},
			{"another issuer", other.pem(), "unknown authority"},
			{"the one of before", root.pem(), ""},
			{"no certificates", "nonsense", ""},
			{"revoked", root.pem() + root.revocations(0, far), "was revoked"},
		} {
			writeFile(t, ssl.Authenticate, step.file)
			all.reload()
			nc, err := all.remotes[ssl].dial(t.Context(), "tcp", addr)
			if err == nil {
				nc.Close()
			}
			if step.want == "" && err != nil || step.want != "" && (err == nil || !strings.Contains(err.Error(), step.want)) {
				t.Errorf("check-hostname %v, %s: %v, want %q", ssl.CheckHostname, step.name, err, step.want)
			}
		}
	}
}

// TestRemoteHostname: the host of the address is checked unless another one is
// named; for a Unix socket one has to be.
func TestRemoteHostname(t *testing.T) {
	root := newIssuer(t, "root", nil)
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	addr := shaker(t, root.client("far")) // it is localhost
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ network, address, name, want string }{
		{"tcp", "localhost:" + port, "", ""},
		{"tcp", "127.0.0.1:" + port, "", "IP SANs"},
		{"tcp", "127.0.0.1:" + port, "localhost", ""},
		{"tcp", "localhost:" + port, "far.example", "far.example"},
		{"unix", "/run/zeo.sock", "", "server-hostname"},
	} {
		cfg := &tls.Config{RootCAs: pool, ServerName: step.name}
		c, err := newCertificates("<clientstorage>", slog.New(slog.DiscardHandler), func() (*tls.Config, error) { return cfg, nil })
		if err != nil {
			t.Fatal(err)
		}
		nc, err := c.dial(t.Context(), step.network, step.address)
		if err == nil {
			nc.Close()
		}
		if step.want == "" && err != nil || step.want != "" && (err == nil || !strings.Contains(err.Error(), step.want)) {
			t.Errorf("%s as %q: %v, want %q", step.address, step.name, err, step.want)
		}
	}
}

// TestTrustedDirectory: as for OpenSSL, files in a directory count by their names.
func TestTrustedDirectory(t *testing.T) {
	root, aside := newIssuer(t, "root", nil), newIssuer(t, "aside", nil)
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	writeFile(t, filepath.Join(dir, "aside.pem"), aside.pem())
	if _, err := loadTrusted(dir, log); err == nil || !strings.Contains(err.Error(), "openssl rehash") {
		t.Errorf("a directory without hashes: %v", err)
	}
	writeFile(t, filepath.Join(dir, "1a2b3c4d.0.off"), aside.pem())
	writeFile(t, filepath.Join(dir, "1a2b3c4d.0"), root.pem())
	writeFile(t, filepath.Join(dir, "1a2b3c4d.r0"), root.revocations(0))
	if err := os.Symlink("gone.pem", filepath.Join(dir, "1a2b3c4d.1")); err != nil {
		t.Fatal(err)
	}
	got, err := loadTrusted(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.certificates) != 1 || !got.certificates[0].Equal(root.cert) || len(got.revocations) != 1 {
		t.Errorf("%d certificates and %d lists, want the one of each with a hash", len(got.certificates), len(got.revocations))
	}
}

// TestListsNotUnderstood: what cannot be checked must not be passed over.
func TestListsNotUnderstood(t *testing.T) {
	root := newIssuer(t, "root", nil)
	partial := root.sign(&x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}},
	})
	nonsense := string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("nonsense")}))
	for _, list := range []string{partial, nonsense} {
		path := filepath.Join(t.TempDir(), "ca.pem")
		writeFile(t, path, root.pem(), list)
		if _, err := loadTrusted(path, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("it was accepted:\n%s", list)
		}
	}
}
