package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/zeolite-go/zeolite/server/config"
)

// splitAddress reads an address as zeo.conf has it, with defaults for what is
// missing; :PORT is all hosts. It returns a network and an address for package
// net.
func splitAddress(s, defaultHost string, defaultPort int) (network, address string, err error) {
	if strings.HasPrefix(s, ":") {
		defaultHost = ""
	}
	a, err := config.ParseAddressOr(s, defaultHost, defaultPort)
	if err != nil {
		return "", "", &usageError{err.Error()}
	}
	return a.Network(), a.String(), nil
}

// listen opens a listener. The socket file of a server that is gone is
// removed first, that of one that is there is left alone.
func listen(network, address string) (net.Listener, error) {
	if network == "unix" {
		c, err := net.Dial(network, address)
		switch {
		case err == nil:
			c.Close()
			return nil, fmt.Errorf("%s: %w: a server answers there", address, syscall.EADDRINUSE)
		case errors.Is(err, syscall.EINVAL):
			return nil, fmt.Errorf("%s: the path of a Unix socket cannot be longer than about 100 bytes", address)
		case errors.Is(err, syscall.ECONNREFUSED): // else it may be busy, or of another user
			if st, err := os.Lstat(address); err == nil && st.Mode()&os.ModeSocket != 0 {
				if err := os.Remove(address); err != nil {
					return nil, err
				}
			}
		}
	}
	if network == "tcp" {
		network = family(address)
	}
	return net.Listen(network, address)
}
