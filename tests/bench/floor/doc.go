// Package floor holds the least that a machine needs for the work of a ZEO
// server: bytes back and forth over a socket, a file sent to a socket, a socket
// written to a file, a record appended and synced. What zeolite does beyond
// that is its own cost.
//
// The servers run in a process of their own ([Serve]), as the servers they are
// compared with; the functions with the same names drive them.
package floor

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/zeolite-go/zeolite/tests/bench/load"
)

// A connection begins with a request of 24 bytes: what to do, and two numbers.
const (
	doEcho    = 1 // requests and answers of the two sizes
	doSend    = 2 // a file of the first size, for each byte that comes
	doReceive = 3 // write files of the first size, and answer each with a byte
)

type order struct{ Do, A, B uint64 }

func dial(address string, o order) (net.Conn, error) {
	c, err := net.Dial(load.Network(address), address)
	if err != nil {
		return nil, err
	}
	return c, binary.Write(c, binary.BigEndian, o)
}

// Serve answers until the listener fails. Files are in dir: the one that is
// sent has the content of a blob and is made before the first byte is sent.
func Serve(l net.Listener, dir string) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if err := serve(c, dir); err != nil && err != io.EOF {
				fmt.Println("floor:", err)
			}
		}()
	}
}

func serve(c net.Conn, dir string) error {
	var o order
	if err := binary.Read(c, binary.BigEndian, &o); err != nil {
		return err
	}
	switch o.Do {
	case doEcho:
		return echo(c, int(o.A), int(o.B))
	case doSend:
		return send(c, dir, int64(o.A))
	case doReceive:
		return receive(c, dir, int64(o.A))
	}
	return fmt.Errorf("an order %d", o.Do)
}
