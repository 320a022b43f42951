package zrpc

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// testStatus is what the servers of these tests answer to "ruok".
func testStatus() []byte { return []byte(`{"1": {"connections": 0}}`) }

type handshake struct {
	enc Encoding
	err error
}

// accept runs the server's half on one end of a pipe.
func accept(nc net.Conn, announce Encoding) <-chan handshake {
	done := make(chan handshake, 1)
	go func() {
		enc, err := AcceptHandshake(nc, announce, time.Minute, testStatus)
		if err != nil {
			nc.Close()
		}
		done <- handshake{enc, err}
	}()
	return done
}

func TestHandshake(t *testing.T) {
	for _, enc := range []Encoding{Pickle, Msgpack} {
		for _, network := range networks {
			a, b := link(t, network)
			server := accept(a, enc)
			got, err := ClientHandshake(b, time.Minute)
			if err != nil || got != enc {
				t.Errorf("%v over %s: client chose %v, %v", enc, network, got, err)
			}
			if s := <-server; s.err != nil || s.enc != enc {
				t.Errorf("%v over %s: server has %v, %v", enc, network, s.enc, s.err)
			}
			a.Close()
			b.Close()
		}
	}
}

// TestHandshakeLeavesNoDeadline goes on long after the handshake, with bytes
// that came in the same packet.
func TestHandshakeLeavesNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		server := accept(a, Pickle)
		w := &wire{t, b, Msgpack}
		if _, err := readFrameExactly(b, 10); err != nil {
			t.Fatal(err)
		}
		go w.write([]byte("M5"), w.call(int64(1), "load", "x"))
		s := <-server
		if s.enc != Msgpack || s.err != nil {
			t.Fatalf("the client chooses the encoding: %v, %v", s.enc, s.err)
		}
		time.Sleep(time.Hour)
		c := NewConn(a, s.enc, Options{})
		c.Start(handlerFunc(echo))
		defer c.Close()
		if got := w.next().String(); got != `1 0 .reply ["x" ]` {
			t.Errorf("reply %s", got)
		}
	})
}

func TestServerRefuses(t *testing.T) {
	for _, answer := range []string{"", "Z", "Z4", "Z6", "Z9", "Z55", "Z310", "X5", "z5", "5Z", "\x00\x05", "ruok?", "GET / HTTP/1.1",
		strings.Repeat("Z", 256)} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			defer b.Close()
			server := accept(a, Pickle)
			if got, err := readFrameExactly(b, 10); err != nil || string(got) != "Z5" {
				t.Fatalf("announced %q, %v", got, err)
			}
			_ = writeFrame(b, []byte(answer))
			if s := <-server; !errors.As(s.err, new(*HandshakeError)) {
				t.Errorf("%q: %v", answer, s.err)
			}
			if n, err := b.Read(make([]byte, 1)); n > 0 || err != io.EOF {
				t.Errorf("%q is answered", answer)
			}
		})
	}
	// What is no frame of a handshake.
	for _, raw := range []string{"GET / HTTP/1.1\r\n\r\n", "\x00\x00\x01\x01", "\xff\xff\xff\xff"} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			defer b.Close()
			server := accept(a, Pickle)
			_, _ = readFrameExactly(b, 10)
			go func() { _, _ = b.Write([]byte(raw)) }()
			if s := <-server; !errors.As(s.err, new(*FrameTooLargeError)) {
				t.Errorf("%q: %v", raw, s.err)
			}
		})
	}
}

func TestClientChecksTheVersion(t *testing.T) {
	for announced, want := range map[string]string{
		"Z5": "Z5", "M5": "M5", "Z6": "Z5", "M7": "M5", "Z9": "Z5", "Z50": "Z5", "Z5.1": "Z5", // newer
		"Z4": "", "Z310": "", "X5": "", "": "", "Z": "", "M": "", "X6": "", "ruok": "",
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			defer a.Close()
			client := make(chan handshake, 1)
			go func() {
				enc, err := ClientHandshake(b, time.Minute)
				client <- handshake{enc, err}
				b.Close()
			}()
			if err := writeFrame(a, []byte(announced)); err != nil {
				t.Fatal(err)
			}
			if want == "" {
				if c := <-client; !errors.As(c.err, new(*HandshakeError)) {
					t.Errorf("%q: %v", announced, c.err)
				}
				return
			}
			got, err := readFrameExactly(a, 10)
			if err != nil || string(got) != want {
				t.Errorf("%q is answered with %q, %v", announced, got, err)
			}
			if c := <-client; c.err != nil || byte(c.enc) != want[0] {
				t.Errorf("%q: %v, %v", announced, c.enc, c.err)
			}
		})
	}
}

func TestHandshakeTimeouts(t *testing.T) {
	halves := map[string]func(nc net.Conn) error{
		"server": func(nc net.Conn) error {
			_, err := AcceptHandshake(nc, Pickle, time.Minute, testStatus)
			return err
		},
		"client": func(nc net.Conn) error { _, err := ClientHandshake(nc, time.Minute); return err },
		"ruok":   func(nc net.Conn) error { _, err := Ruok(nc, time.Minute); return err },
	}
	for name, half := range halves {
		for sent := range 6 { // bytes of a frame that then stops
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				defer a.Close()
				defer b.Close()
				start := time.Now()
				done := make(chan error, 1)
				go func() { done <- half(a) }()
				if name == "server" && sent > 0 {
					_, _ = readFrameExactly(b, 10)
				}
				go func() { _, _ = b.Write([]byte("\x00\x00\x00\x09Z5")[:sent]) }()
				if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Minute {
					t.Errorf("%s after %d bytes: %v after %v", name, sent, err, time.Since(start))
				}
			})
		}
		// A peer that goes away.
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			defer a.Close()
			done := make(chan error, 1)
			go func() { done <- half(a) }()
			synctest.Wait()
			b.Close()
			if err := <-done; err == nil {
				t.Errorf("%s: no error when the peer goes away", name)
			}
		})
	}
}

func TestRuok(t *testing.T) {
	for _, network := range networks {
		a, b := link(t, network)
		server := accept(a, Msgpack)
		answer, err := Ruok(b, time.Minute)
		if err != nil || !bytes.Equal(answer, testStatus()) {
			t.Errorf("over %s: %q, %v", network, answer, err)
		}
		if s := <-server; s.err != ErrRuok {
			t.Errorf("over %s: server: %v", network, s.err)
		}
		if n, err := b.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("over %s: more follows the answer", network)
		}
		b.Close()
	}
}

// bytesConn is a net.Conn whose peer has said all it will ever say.
type bytesConn struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (c *bytesConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *bytesConn) Write(p []byte) (int, error) { return c.out.Write(p) }
func (c *bytesConn) SetDeadline(time.Time) error { return nil }

// FuzzHandshake gives both halves whatever a peer may say.
func FuzzHandshake(f *testing.F) {
	for _, s := range []string{"Z5", "M5", "Z6", "Z310", "ruok", "X5", "", "Z", "GET / HTTP"} {
		f.Add(append(AppendFrameHeader(nil, len(s)), s...))
	}
	f.Add([]byte("\xff\xff\xff\xffZ5"))
	f.Add([]byte("\x00\x00\x00\x02Z"))
	f.Fuzz(func(t *testing.T, said []byte) {
		asked := false
		nc := &bytesConn{in: bytes.NewReader(said)}
		enc, err := AcceptHandshake(nc, Pickle, time.Minute, func() []byte { asked = true; return testStatus() })
		out, ok := bytes.CutPrefix(nc.out.Bytes(), []byte("\x00\x00\x00\x02Z5"))
		switch {
		case !ok:
			t.Fatalf("the server announces %q", nc.out.Bytes())
		case err == nil && (enc != Pickle && enc != Msgpack || string(said[:6]) != "\x00\x00\x00\x02"+string(rune(enc))+"5" || len(out) > 0):
			t.Fatalf("the server accepts %q as %v and answers %q", said, enc, out)
		case asked != (err == ErrRuok) || asked != (len(out) > 0):
			t.Fatalf("%q: status asked for: %v, %v, answer %q", said, asked, err, out)
		case err == nil && nc.in.Len() != len(said)-6:
			t.Fatalf("%d bytes of %q were read", len(said)-nc.in.Len(), said)
		}
		nc = &bytesConn{in: bytes.NewReader(said)}
		enc, err = ClientHandshake(nc, time.Minute)
		answer := nc.out.String()
		if (err == nil) != (answer != "") || err == nil && answer != "\x00\x00\x00\x02"+string(rune(enc))+"5" {
			t.Fatalf("the client answers %q with %q: %v, %v", said, answer, enc, err)
		}
		nc = &bytesConn{in: bytes.NewReader(said)}
		if _, err := Ruok(nc, time.Minute); err == nil && nc.out.String() != "\x00\x00\x00\x04ruok" {
			t.Fatalf("asked %q", nc.out.String())
		}
	})
}
