package floor

import (
	"io"
	"net"

	"github.com/zeolite-go/zeolite/tests/bench/load"
)

func echo(c net.Conn, request, answer int) error {
	in, out := make([]byte, request), make([]byte, answer)
	for {
		if _, err := io.ReadFull(c, in); err != nil {
			return err
		}
		if _, err := c.Write(out); err != nil {
			return err
		}
	}
}

// Echo measures requests and answers of the given sizes, one at a time on each
// connection.
func Echo(o load.Options, request, answer int) (*load.Result, error) {
	conns, err := dialAll(o, order{doEcho, uint64(request), uint64(answer)})
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	var ops []func() (int64, error)
	for _, c := range conns {
		in, out := make([]byte, answer), make([]byte, request)
		ops = append(ops, func() (int64, error) {
			if _, err := c.Write(out); err != nil {
				return 0, err
			}
			_, err := io.ReadFull(c, in)
			return int64(answer), err
		})
	}
	return load.Repeat(o, ops, func() { closeAll(conns) })
}

func dialAll(o load.Options, what order) (conns []net.Conn, err error) {
	for range max(o.Conns, 1) {
		c, err := dial(o.Address, what)
		if err != nil {
			closeAll(conns)
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}
