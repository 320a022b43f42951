package config

import (
	"fmt"
	"strings"
)

// FromFlags makes the configuration that the flags -a and -f of runzeo stand
// for, without a file: an address to listen at, and files of FileStorages that
// are called 1, 2 and so on. All else has its default. If it fails, the error
// is an [Errors].
func FromFlags(address string, files ...string) (*Config, error) {
	return new(Loader).FromFlags(address, files...)
}

// FromFlags is like the function FromFlags.
func (l *Loader) FromFlags(address string, files ...string) (*Config, error) {
	pos := Position{File: "command line"}
	root := &section{pos: pos}
	add := func(kind, name, keyName, value string) {
		root.sections = append(root.sections, &section{
			kind: kind, name: name, pos: pos, depth: 1,
			keys: []*key{{name: keyName, value: strings.TrimFunc(value, isSpace), pos: pos}},
		})
	}
	add("zeo", "", "address", address)
	for i, path := range files {
		add("filestorage", fmt.Sprint(i+1), "path", path)
	}
	c, err := l.decode(root, diagnostics{limit: l.Limits.withDefaults().Errors})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// ParseAddress reads an address to listen at, as the key address of <zeo> and
// the flag -a have it: a path with a slash in it, or port, host:port,
// [IPv6]:port or host. Without a port it is 0.
func ParseAddress(s string) (Address, error) { return ParseAddressOr(s, "", 0) }

// ParseAddressOr is ParseAddress with other defaults for host and port.
func ParseAddressOr(s, defaultHost string, defaultPort int) (Address, error) {
	a, hasPort, err := parseAddress(s, defaultHost)
	if err != nil {
		return Address{}, fmt.Errorf("address %s: %w", quote(s), err)
	}
	if a.Path == "" && !hasPort {
		a.Port = defaultPort
	}
	return a, nil
}

// ParseServer reads an address to connect to, as the key server of
// <clientstorage> has it: like ParseAddress, but the host defaults to
// 127.0.0.1 and a port is needed.
func ParseServer(s string) (Address, error) {
	var list []Address
	if err := connectAddress(&list)(s); err != nil {
		return Address{}, fmt.Errorf("server %s: %w", quote(s), err)
	}
	return list[0], nil
}
