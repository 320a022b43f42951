package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
)

// authority issues certificates for tests.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t, pool: x509.NewCertPool()}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	must(t, err)
	a.cert, err = x509.ParseCertificate(der)
	must(t, err)
	a.pool.AddCert(a.cert)
	return a
}

// issue makes a certificate for 127.0.0.1.
func (a *authority) issue(name string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	must(a.t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestTLS connects with certificates on both sides, and with ones that the
// other side does not accept.
func TestTLS(t *testing.T) {
	noLeaks(t)
	ours, others := newAuthority(t), newAuthority(t)
	srv := serve(t, newMemory(t), server.Options{TLS: &tls.Config{
		Certificates: []tls.Certificate{ours.issue("server")},
		ClientCAs:    ours.pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	}}, "tcp")
	try := func(cfg *tls.Config) (*Storage, error) {
		o := testOptions(t, srv.addr)
		o.TLS = cfg
		o.WaitTimeout = time.Second
		return Open(t.Context(), o)
	}

	s, err := try(&tls.Config{RootCAs: ours.pool, Certificates: []tls.Certificate{ours.issue("client")}})
	must(t, err)
	tid := put(t, s, 1, 0, "over TLS")
	rev, err := s.LoadBefore(t.Context(), 1, zeolite.MaxTID)
	if err != nil || string(rev.Data) != "over TLS" || rev.TID != tid {
		t.Errorf("LoadBefore = %v, %v", rev, err)
	}
	must(t, s.Close())

	for name, cfg := range map[string]*tls.Config{
		"no certificate":       {RootCAs: ours.pool},
		"another's":            {RootCAs: ours.pool, Certificates: []tls.Certificate{others.issue("client")}},
		"a server not trusted": {RootCAs: others.pool, Certificates: []tls.Certificate{ours.issue("client")}},
		"plain":                nil,
	} {
		if s, err := try(cfg); err == nil {
			t.Errorf("%s: connected", name)
			s.Close()
		}
	}
}
