package config

import (
	"errors"
	"net"
	"strconv"
	"strings"
)

// Address is where a server listens or where a client connects to. It is a
// value.
type Address struct {
	// Path of a Unix domain socket. If it is empty, the address is TCP.
	Path string
	// Host is a name or an IP address without brackets; empty, in an address
	// to listen at, means all interfaces.
	Host string
	// Port is 0 if any free port will do.
	Port int
}

// Network is the first argument of net.Listen and net.Dial, "tcp" or "unix".
func (a Address) Network() string {
	if a.Path != "" {
		return "unix"
	}
	return "tcp"
}

// String is the second argument of net.Listen and net.Dial: the path, or
// host:port.
func (a Address) String() string {
	if a.Path != "" {
		return a.Path
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(a.Port))
}

// bindAddress is ZConfig's socket-binding-address: a path with a slash in it,
// or port, host:port, [v6]:port, host, v6.
func bindAddress(to *Address) setter {
	return func(s string) error {
		a, _, err := parseAddress(s, "")
		*to = a
		return err
	}
}

// connectAddress is ZConfig's socket-connection-address: as bindAddress, but
// the host defaults to 127.0.0.1 and, stricter than ZConfig, the port must be
// there.
func connectAddress(add *[]Address) setter {
	return func(s string) error {
		a, hasPort, err := parseAddress(s, "127.0.0.1")
		if err == nil && !hasPort && a.Path == "" {
			err = strictError("the port is missing")
		}
		*add = append(*add, a)
		return err
	}
}

func parseAddress(s, defaultHost string) (a Address, hasPort bool, err error) {
	if strings.Contains(s, "/") {
		return Address{Path: s}, false, nil
	}
	if s == "" {
		return a, false, errAddress
	}
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i+1:]
		inner, bracketed := strings.CutPrefix(host, "[")
		inner, closed := strings.CutSuffix(inner, "]")
		switch {
		case bracketed && closed:
			host = inner
		case strings.Contains(host, ":"):
			// An IPv6 address without brackets: its end is no port.
			host, port = strings.Trim(s, "[]"), ""
		}
	} else if n, err := parseInt(s); err == nil && 0 <= n && n <= 0xffff {
		host, port = "", s
	} else if strings.IndexFunc(s, isSpace) >= 0 {
		return a, false, errAddress
	} else if err == nil {
		return a, false, strictError("neither a port, 0 to 65535, nor a host name")
	}
	if port != "" {
		n, err := parseInt(strings.TrimFunc(port, isSpace))
		if err != nil || n < 0 || n > 0xffff {
			return a, false, errAddress
		}
		a.Port = int(n)
	}
	if strings.IndexFunc(host, isSpace) >= 0 {
		return a, false, strictError("a host name has no spaces")
	}
	a.Host = strings.ToLower(host)
	if a.Host == "" {
		a.Host = defaultHost
	}
	return a, port != "", nil
}

var errAddress = errors.New("want port, host:port, [IPv6]:port, or the path of a Unix socket with a / in it (ports are 0 to 65535)")
