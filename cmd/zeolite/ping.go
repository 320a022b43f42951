package main

import (
	"fmt"
	"net"
	"os"
	"time"

	"github.com/zeolite-go/zeolite/zrpc"
)

const pingHelp = `Ask a server how it is, without being its client: prints, as JSON, for each
storage how many clients are connected and what they did. Exit code 0 means that
the server answered, 1 that it did not.

  zeolite ping 127.0.0.1:8100
  zeolite ping /run/zeo.sock
`

func ping(args []string) error {
	fs := newFlags("ping", pingHelp)
	timeout := fs.Duration("timeout", 5*time.Second, "give up after this time")
	rest, err := fs.parseMixed(args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return &usageError{"give the address of one server"}
	}
	network, address, err := splitAddress(rest[0], "127.0.0.1", 8100)
	if err != nil {
		return err
	}
	conn, err := net.DialTimeout(network, address, *timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := zrpc.Ruok(conn, *timeout)
	if err != nil {
		return fmt.Errorf("no answer from %s: %w", address, err)
	}
	_, err = fmt.Fprintf(os.Stdout, "%s\n", answer)
	return err
}
