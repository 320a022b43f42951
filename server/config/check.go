package config

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// check is a question to the file system that a configuration raises. It does
// not change after it was made.
type check struct {
	pos    Position
	title  string // what the message starts with
	path   string
	test   func(path string) error
	strict bool
	// listening says that it is about the address of <zeo>, which a flag may
	// have changed since.
	listening bool
}

// Check looks at what the configuration refers to, as far as that needs no
// opening of a storage and no listening: directories exist, the certificates
// and keys can be loaded. It changes nothing. Its error is nil or an [Errors].
func (c *Config) Check() error {
	d := diagnostics{limit: Limits{}.withDefaults().Errors}
	for _, k := range c.checks {
		if k.listening && k.path != c.ZEO.Address.Path {
			continue
		}
		if err := k.test(k.path); err != nil {
			d.add(&Error{Pos: k.pos, Message: k.title + ": " + err.Error(), strict: k.strict})
		}
	}
	return d.err()
}

// check remembers a question about a path that the current key names.
func (d *decoder) check(strict bool, test func(string) error, path string) {
	d.checks = append(d.checks, check{
		pos: d.key.pos, title: d.owner.title() + ": " + d.key.name, path: path, test: test, strict: strict,
	})
}

// pathInDir is ZConfig's existing-dirpath: a path whose directory exists, in
// which ~ stands for a home directory. Only Check looks whether it does.
func (d *decoder) pathInDir(to *string) setter {
	return func(s string) error {
		*to = expandHome(s, d.loader.lookupEnv)
		if *to != "" {
			d.check(false, inExistingDir, *to)
		}
		return nil
	}
}

// checkPair has Check load a certificate with its key.
func (d *decoder) checkPair(s *section, certificate, key *string) {
	if *certificate == "" {
		return
	}
	d.checks = append(d.checks, check{pos: s.pos, title: s.title(), path: *certificate, test: func(cert string) error {
		_, err := LoadKeyPair(cert, *key)
		return err
	}})
}

// LoadKeyPair loads a certificate and its key, which may be in the same file:
// key is empty then.
func LoadKeyPair(certificate, key string) (tls.Certificate, error) {
	key = cmp.Or(key, certificate)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return pair, fmt.Errorf("cannot load certificate %q and key %q: %w", certificate, key, err)
	}
	return pair, nil
}

func inExistingDir(path string) error {
	dir := parentDir(path)
	if dir == "" {
		return nil
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("directory %q does not exist", dir)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%q is not a directory", dir)
	}
	return nil
}

func exists(path string) error {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%q does not exist", path)
	}
	return err
}
