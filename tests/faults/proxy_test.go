package faults

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// call is a message of a client: [1, false, name, ()] in msgpack.
func call(name string) []byte {
	payload := append([]byte{0x94, 1, 0xc2, 0xa0 | byte(len(name))}, name...)
	payload = append(payload, 0x90)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

// through returns a client connection through a new proxy and the server's end.
func through(t *testing.T) (p *Proxy, client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if p, err = NewProxy(l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if client, err = net.Dial("tcp", p.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	for _, c := range []net.Conn{client, server} {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	}
	return p, client, server
}

func TestProxyForwardsAndCounts(t *testing.T) {
	p, client, server := through(t)
	sent := bytes.Join([][]byte{call("vote"), call("ping"), call("ping")}, nil)
	if _, err := client.Write(sent); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("server read %x (%v), want %x", got, err, sent)
	}
	if n := p.Counts(ClientToServer); n["vote"] != 1 || n["ping"] != 2 {
		t.Errorf("counts are %v", n)
	}
	client.Close()
	if _, err := server.Read(got); err != io.EOF {
		t.Errorf("after the client closed the server reads %v, want EOF", err)
	}
}

func TestProxyCuts(t *testing.T) {
	for _, when := range []Moment{Before, After} {
		t.Run(string(when), func(t *testing.T) {
			p, client, server := through(t)
			if err := p.CutAt(Cut{ClientToServer, "vote", when}); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Write(append(call("ping"), call("vote")...)); err != nil {
				t.Fatal(err)
			}
			want := call("ping")
			if when == After {
				want = append(want, call("vote")...)
			}
			if got, _ := io.ReadAll(server); !bytes.Equal(got, want) {
				t.Errorf("server read %q, want %q", got, want)
			}
			if _, err := client.Read(make([]byte, 1)); err == nil {
				t.Error("the client is still connected")
			}
		})
	}
}

func TestProxyDrop(t *testing.T) {
	p, client, server := through(t)
	if _, err := client.Write(call("ping")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, len(call("ping")))); err != nil {
		t.Fatal(err)
	}
	p.Drop()
	for _, c := range []net.Conn{client, server} {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("still connected after Drop")
		}
	}
}
