package zrpc

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// testCertificate is a server's, which signs itself. It does not expire: time
// stands still in package synctest, long ago.
var testCertificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), DNSNames: []string{"server"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// overTLS shakes hands on two connections.
func overTLS(t *testing.T, below, peer net.Conn) (server, client *tls.Conn) {
	t.Helper()
	certificate := testCertificate()
	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(leaf)
	server = tls.Server(below, &tls.Config{Certificates: []tls.Certificate{certificate}})
	client = tls.Client(peer, &tls.Config{RootCAs: pool, ServerName: "server"})
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	if err := errors.Join(server.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	return server, client
}

// counted counts reads and writes that have an effect.
type counted struct {
	net.Conn
	reads, writes atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.reads.Add(1)
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// TestTLSInFewCalls: a piece of a blob is several records, and leaves in one call;
// so do the replies that wait.
func TestTLSInFewCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		socket := &counted{Conn: a}
		nc, peer := overTLS(t, BelowTLS(socket), b)
		c := NewConn(nc, Msgpack, Options{})
		c.Start(noCalls(t))
		w := &wire{t, peer, Msgpack}
		post := func(name string, size int) {
			m := c.NewMessage()
			m.BeginSend(name)
			m.Tuple(1)
			m.Bytes(make([]byte, size))
			m.End()
			if err := c.Post(m); err != nil {
				t.Error(err)
			}
		}
		before := socket.writes.Load()
		post("piece", 64<<10)
		if got := w.next().Name; got != "piece" {
			t.Errorf("%s came", got)
		}
		// The first records of a connection are small, and fill a buffer.
		if n := socket.writes.Load() - before; n > 2 {
			t.Errorf("%d writes", n)
		}
		// Nobody reads the first; the others wait, each too large to be joined.
		before = socket.writes.Load()
		post("first", 10)
		synctest.Wait()
		const others = 3
		for range others {
			post("another", 20<<10)
		}
		for range 1 + others {
			w.next()
		}
		if n := socket.writes.Load() - before; n != 2 {
			t.Errorf("%d writes", n)
		}
		c.Close()
		peer.Close()
	})
}

// TestTLSReadsAhead: what has arrived comes byte by byte the same, to who reads
// little and much.
func TestTLSReadsAhead(t *testing.T) {
	a, b := link(t, "tcp")
	defer a.Close()
	defer b.Close()
	sent := make([]byte, 3<<20)
	_, _ = rand.Read(sent)
	written := make(chan error, 1)
	go func() {
		_, err := a.Write(sent)
		written <- err
	}()
	below := BelowTLS(b).(*belowTLS)
	var got []byte
	for len(got) < len(sent) {
		p := make([]byte, 1+mrand.IntN(40<<10))
		n, err := below.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p[:n]...)
	}
	if !bytes.Equal(got, sent) {
		t.Error("other bytes came")
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	a.Close()
	if n, err := below.Read(make([]byte, 100)); n != 0 || err != io.EOF {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// asked is a connection on which as much arrives as a script says. It notes for
// how much it was asked.
type asked struct {
	net.Conn
	script, sizes []int
}

func (a *asked) Read(p []byte) (int, error) {
	a.sizes = append(a.sizes, len(p))
	if len(a.script) == 0 {
		return 0, io.EOF
	}
	n := min(a.script[0], len(p))
	a.script = a.script[1:]
	return n, nil
}

// TestTLSBuffers: who waits for the next bytes after all were taken that were at
// hand has no buffer.
func TestTLSBuffers(t *testing.T) {
	const much = 1 << 20
	socket := &asked{script: []int{50, much, much, 150, much, 0, 70}}
	below := BelowTLS(socket).(*belowTLS)
	read := 0
	for {
		n, err := below.Read(make([]byte, 100))
		if read += n; err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := 50 + 100 + tlsBuffer + 150 + 100 + 70; read != want {
		t.Errorf("%d bytes, want %d", read, want)
	}
	// 50 of 100 bytes, and 150 of a buffer, are all there was.
	if want := []int{100, 100, tlsBuffer, tlsBuffer, 100, tlsBuffer, 100, 100}; !slices.Equal(socket.sizes, want) {
		t.Errorf("asked for %d, want %d", socket.sizes, want)
	}
	if below.arrived != nil {
		t.Error("a buffer is left")
	}
}

// TestTLSEndsAtOnce: a peer that reads nothing does not keep a connection from
// ending, wherever the writing goroutine is.
func TestTLSEndsAtOnce(t *testing.T) {
	for name, size := range map[string]int{"in TLS": 1 << 20, "behind it": 1000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				nc, peer := overTLS(t, BelowTLS(a), b)
				c := NewConn(nc, Msgpack, Options{})
				c.Start(noCalls(t))
				m := c.NewMessage()
				m.BeginSend("store")
				m.Tuple(1)
				m.Bytes(make([]byte, size))
				m.End()
				if err := c.Post(m); err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // now it writes
				start := time.Now()
				c.Close()
				if took := time.Since(start); took > 0 {
					t.Errorf("it took %v", took)
				}
				peer.NetConn().Close()
			})
		})
	}
}

// TestTLSGoodbye: what was sent before a connection ends arrives, and the peer is
// told of the end, also where a stream fails with messages kept.
func TestTLSGoodbye(t *testing.T) {
	for name, failed := range map[string]error{"drained": nil, "failed": errors.New("the disk is gone")} {
		t.Run(name, func(t *testing.T) {
			a, b := link(t, "tcp")
			nc, peer := overTLS(t, BelowTLS(a), b)
			defer peer.Close()
			c := NewConn(nc, Msgpack, Options{})
			m := c.NewMessage()
			m.BeginSend("last")
			m.Tuple(1)
			m.Int(1)
			m.End()
			if err := c.Post(m); err != nil {
				t.Fatal(err)
			}
			// It is taken together with the message, which is kept when it fails.
			if err := c.Stream(&funcIterator{next: func(*Message) error { return cmp.Or(failed, io.EOF) }}, InTurns); err != nil {
				t.Fatal(err)
			}
			c.Start(noCalls(t))
			if failed == nil {
				c.Drain(time.Now().Add(time.Minute))
			}
			w := &wire{t, peer, Msgpack}
			w.expect("last1")
			if _, err := w.read(); !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the connection ended with %v", err)
			}
			c.Close()
		})
	}
}
