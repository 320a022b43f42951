package config

import (
	"slices"
	"strings"
)

// override is one value that takes the place of those in the file: runzeo's -X.
type override struct {
	spec  string   // as it was given
	path  []string // sections, outermost first, and a key
	value string
	pos   Position
}

// override changes the sections as Loader.Overrides say, in the way of ZConfig:
// a section is named by its name or its type, which stands for the first
// section of that type, and a value replaces all that the file gives the key.
// Nothing is substituted in it. Unlike ZConfig it takes names that begin with a
// digit, which storages often have.
func (p *parser) override(root *section, specs []string) {
	var list []override
	for i, spec := range specs {
		pos := Position{File: "-X " + spec, rank: p.opened + i}
		path, value, ok := strings.Cut(spec, "=")
		o := override{spec: spec, path: strings.Split(path, "/"), value: strings.TrimFunc(value, isSpace), pos: pos}
		switch {
		case !ok:
			p.errorf(pos, "want a key and a value, like zeo/address=8100")
		case slices.Contains(o.path, ""):
			p.errorf(pos, "an empty name in %s: want sections and a key, like zeo/address", quote(path))
		default:
			list = append(list, o)
		}
	}
	p.overrideIn(root, list)
}

func (p *parser) overrideIn(s *section, list []override) {
	var keys []*key
	var inner []override
	for _, o := range list {
		if len(o.path) > 1 {
			inner = append(inner, o)
			continue
		}
		keys = append(keys, &key{name: strings.ToLower(o.path[0]), value: o.value, pos: o.pos})
	}
	s.keys = slices.DeleteFunc(s.keys, func(k *key) bool {
		return slices.ContainsFunc(keys, func(o *key) bool { return o.name == k.name })
	})
	s.keys = append(s.keys, keys...)
	for _, sub := range s.sections {
		var here, rest []override
		for _, o := range inner {
			name := strings.ToLower(o.path[0])
			if name == sub.name || name == sub.kind {
				o.path = o.path[1:]
				here = append(here, o)
			} else {
				rest = append(rest, o)
			}
		}
		if len(here) > 0 {
			p.overrideIn(sub, here)
		}
		inner = rest
	}
	for _, o := range inner {
		p.errorf(o.pos, "%s has no section of the name or type %s", s.title(), quote(o.path[0]))
	}
}
