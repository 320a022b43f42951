package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// splitAddress reads an address as ZEO writes it: a path if there is a slash
// in it, else PORT, HOST:PORT, [IPV6]:PORT or HOST. It returns a network and
// an address for package net.
func splitAddress(s, defaultHost, defaultPort string) (network, address string, err error) {
	if strings.Contains(s, "/") {
		return "unix", s, nil
	}
	host, port := s, defaultPort
	switch {
	case s == "":
		return "", "", &usageError{"the address is empty; use HOST:PORT, PORT, or the path of a Unix socket with a slash in it"}
	case isPort(s):
		host, port = defaultHost, s
	case strings.Contains(s, ":"):
		if host, port, err = net.SplitHostPort(s); err != nil || !isPort(port) {
			return "", "", &usageError{fmt.Sprintf("%q is not an address; use HOST:PORT, PORT, or the path of a Unix socket with a slash in it", s)}
		}
	}
	return "tcp", net.JoinHostPort(host, port), nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n <= 65535
}

// listen opens a listener. The socket file of a server that is gone is
// removed first, that of one that answers is left alone.
func listen(network, address string) (net.Listener, error) {
	if network == "unix" {
		if c, err := net.Dial(network, address); err == nil {
			c.Close()
			return nil, fmt.Errorf("%s is already in use: a server answers there", address)
		}
		if st, err := os.Lstat(address); err == nil && st.Mode()&os.ModeSocket != 0 {
			if err := os.Remove(address); err != nil {
				return nil, err
			}
		}
	}
	return net.Listen(network, address)
}
