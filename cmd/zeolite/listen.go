package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

// look says whether an address can be listened at, before storages are created or
// replayed in vain. Nothing listens there meanwhile: that a port is open tells
// others that clients are served.
func look(ctx context.Context, network, address string) error {
	listeners, err := listenAll(ctx, network, address, slog.New(slog.DiscardHandler))
	closeAll(listeners)
	if errors.Is(err, fs.ErrNotExist) { // the directory of a Unix socket
		return &configError{err}
	}
	return err
}

var lookupIP = net.DefaultResolver.LookupNetIP // but in a test

// listenAll opens the listeners of an address: for a host name, as in ZEO, one at
// each of its addresses.
func listenAll(ctx context.Context, network, address string, log *slog.Logger) ([]net.Listener, error) {
	host, port, _ := net.SplitHostPort(address)
	if network == "unix" || host == "" || family(address) != "tcp" {
		l, err := listen(network, address)
		if err != nil {
			return nil, err
		}
		return []net.Listener{l}, nil
	}
	ips, err := lookupIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	return listenAt(ips, port, log)
}

// listenAt opens a listener at each of the addresses of a host. One that this
// machine does not have, as localhost may have with IPv6, is left out.
func listenAt(ips []netip.Addr, port string, log *slog.Logger) ([]net.Listener, error) {
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	slices.SortFunc(ips, netip.Addr.Compare) // IPv4 first
	var listeners []net.Listener
	var missing error
	for _, ip := range slices.Compact(ips) {
		l, err := listen("tcp", net.JoinHostPort(ip.String(), port))
		switch {
		case err == nil:
			listeners = append(listeners, l)
		case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
			log.Warn("not listening at an address that is not here", "error", err)
			missing = err
		default:
			closeAll(listeners)
			return nil, err
		}
	}
	if listeners == nil {
		return nil, missing
	}
	return listeners, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// family is the network of an IP address and port: tcp4 or tcp6, as "tcp" would
// make of 0.0.0.0 a socket that also takes IPv6; else tcp.
func family(address string) string {
	host, _, _ := net.SplitHostPort(address)
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return "tcp"
	case ip.Unmap().Is4():
		return "tcp4"
	}
	return "tcp6"
}
