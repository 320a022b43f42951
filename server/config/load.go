package config

import (
	"cmp"
	"io"
	"os"
)

// Limits bound what a configuration may make of memory and time. A zero field
// means its default. It is a value.
type Limits struct {
	FileBytes     int64 // size of each file, default 1 MiB
	Files         int   // number of files read, default 64
	IncludeDepth  int   // files included by each other, default 8
	SectionDepth  int   // sections within each other, default 16
	ExpandedBytes int   // all values together after substitution, default 4 MiB
	Errors        int   // errors reported, default 100; further ones are counted
}

func (l Limits) withDefaults() Limits {
	return Limits{
		FileBytes:     cmp.Or(l.FileBytes, 1<<20),
		Files:         cmp.Or(l.Files, 64),
		IncludeDepth:  cmp.Or(l.IncludeDepth, 8),
		SectionDepth:  cmp.Or(l.SectionDepth, 16),
		ExpandedBytes: cmp.Or(l.ExpandedBytes, 4<<20),
		Errors:        cmp.Or(l.Errors, 100),
	}
}

// Loader says where a configuration comes from. The zero Loader reads files
// and the environment of the process. It may be used by several goroutines at
// once and must not be changed meanwhile.
type Loader struct {
	Limits Limits
	// Open opens a file by path; nil means os.Open.
	Open func(path string) (io.ReadCloser, error)
	// LookupEnv looks up an environment variable; nil means os.LookupEnv.
	LookupEnv func(name string) (string, bool)
	// Overrides are values that take the place of those in the file, each
	// SECTION/KEY=VALUE, where SECTION is the name or the type of a section,
	// and may be several, the outermost first: what runzeo's -X has.
	Overrides []string
}

// Load reads the configuration in the file named path. If it fails with
// anything but a failure to open the file, the error is an [Errors].
func Load(path string) (*Config, error) { return new(Loader).Load(path) }

// Parse reads a configuration from r. The name stands in errors, and %include
// is relative to its directory. If it fails, the error is an [Errors].
func Parse(name string, r io.Reader) (*Config, error) { return new(Loader).Parse(name, r) }

// Load is like the function Load.
func (l *Loader) Load(path string) (*Config, error) {
	f, err := l.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return l.Parse(path, f)
}

// Parse is like the function Parse.
func (l *Loader) Parse(name string, r io.Reader) (*Config, error) {
	c, err := l.parse(name, r)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// parse is Parse, but also returns what could be made of a configuration with
// errors, nil if that is nothing.
func (l *Loader) parse(name string, r io.Reader) (*Config, error) {
	limits := l.Limits.withDefaults()
	p := &parser{
		diagnostics: diagnostics{limit: limits.Errors},
		loader:      l,
		limits:      limits,
		defines:     map[string]string{},
		including:   []string{identity(name)},
	}
	root := &section{pos: Position{File: name}}
	p.parseFile(name, r, root)
	if p.broken {
		return nil, p.err()
	}
	p.override(root, l.Overrides)
	return l.decode(root, p.diagnostics)
}

// decode makes a configuration of sections, also of faulty ones; syntax holds
// what was found so far.
func (l *Loader) decode(root *section, syntax diagnostics) (*Config, error) {
	d := &decoder{diagnostics: syntax, loader: l}
	c := d.config(root)
	c.Warnings = d.sortedWarnings()
	c.checks = d.checks
	return c, d.err()
}

func (l *Loader) open(path string) (io.ReadCloser, error) {
	if l.Open != nil {
		return l.Open(path)
	}
	return os.Open(path)
}

func (l *Loader) lookupEnv(name string) (string, bool) {
	if l.LookupEnv != nil {
		return l.LookupEnv(name)
	}
	return os.LookupEnv(name)
}
