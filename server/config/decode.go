package config

import (
	"slices"
	"strings"
)

// decoder turns sections into values. It is used by one goroutine.
type decoder struct {
	diagnostics
	loader *Loader
	checks []check
	key    *key     // the key whose setter runs
	owner  *section // the section that it stands in
}

// field is one key that a section accepts. At most one of set, ignored and
// refused is given.
type field struct {
	name string
	set  setter

	// ignored and refused say why the key of ZEO or ZODB has no effect here:
	// the first makes its use a warning, the second an error (an empty value
	// means that the key is not used).
	ignored, refused string

	required bool
	multi    bool // may be given several times
}

// fields decodes the keys of a section. A value that is set twice, missing or
// malformed and a key that is not in the list are reported.
func (d *decoder) fields(s *section, list ...field) {
	first := map[string]*key{}
	for _, k := range s.keys {
		i := slices.IndexFunc(list, func(f field) bool { return f.name == k.name })
		if i < 0 {
			d.unknownKey(s, k, list)
			continue
		}
		if before := first[k.name]; before == nil {
			first[k.name] = k
		} else if !list[i].multi {
			d.errorf(k.pos, "%s: %s is given twice, first in line %d", s.title(), k.name, before.pos.Line)
			continue
		}
		if !k.bad {
			d.field(s, k, list[i])
		}
	}
	for _, f := range list {
		if f.required && first[f.name] == nil {
			d.errorf(s.pos, "%s: %s is missing", s.title(), f.name)
		}
	}
}

func (d *decoder) field(s *section, k *key, f field) {
	switch {
	case f.refused != "":
		if k.value != "" {
			d.strictf(k.pos, "%s: %s is not supported: %s", s.title(), k.name, f.refused)
		}
		return
	case f.ignored != "":
		if k.value != "" {
			d.warnf(k.pos, "%s: %s is ignored: %s", s.title(), k.name, f.ignored)
		}
		return
	}
	d.key, d.owner = k, s
	err := f.set(k.value)
	if err == nil && f.required && k.value == "" {
		err = strictError("a value is missing")
	}
	if err != nil {
		d.report(k.pos, s.title()+": "+k.name+" "+quote(k.value)+": ", err)
	}
}

func (d *decoder) unknownKey(s *section, k *key, list []field) {
	if !d.wanted() {
		d.errorf(k.pos, "unknown key")
		return
	}
	if s.kind == "" {
		hint := ""
		if home := homeOf[k.name]; home != "" {
			hint = " (" + k.name + " is a key of <" + home + ">)"
		}
		d.errorf(k.pos, "key %s outside of any section%s", quote(k.name), hint)
		return
	}
	names := make([]string, len(list))
	for i, f := range list {
		names[i] = f.name
	}
	slices.Sort(names)
	hint := suggest(strings.ReplaceAll(k.name, "_", "-"), names)
	if home := homeOf[k.name]; home != "" {
		hint = " (it is a key of <" + home + ">)"
	}
	d.errorf(k.pos, "%s: unknown key %s%s; accepted: %s", s.title(), quote(k.name), hint, strings.Join(names, ", "))
}

// homeOf names the section of keys that are often put into another one.
var homeOf = map[string]string{
	"address":                    "zeo",
	"invalidation-queue-size":    "zeo",
	"invalidation-age":           "zeo",
	"transaction-timeout":        "zeo",
	"pid-filename":               "zeo",
	"client-conflict-resolution": "zeo",
	"msgpack":                    "zeo",
	"path":                       "filestorage",
	"pack-gc":                    "filestorage",
	"pack-keep-old":              "filestorage",
	"quota":                      "filestorage",
	"certificate":                "ssl",
	"authenticate":               "ssl",
	"program":                    "runner",
	"socket-name":                "runner",
}

// subsections checks the names of the sections within s and yields those of an
// accepted type. It reports the others, for which there may be a reason.
func (d *decoder) subsections(s *section, reasons map[string]string, accepted ...string) []*section {
	var good []*section
	first := map[string]*section{}
	for _, sub := range s.sections {
		if !slices.Contains(accepted, sub.kind) {
			d.unknownSection(s, sub, reasons, accepted)
			continue
		}
		if sub.name == "*" || sub.name == "+" {
			d.errorf(sub.pos, "%s: a section cannot be named %s", sub.title(), sub.name)
		}
		if before := first[sub.name]; before != nil {
			d.errorf(sub.pos, "%s: %s of line %d has the same name", sub.title(), before.title(), before.pos.Line)
		} else if sub.name != "" {
			first[sub.name] = sub
		}
		good = append(good, sub)
	}
	return good
}

func (d *decoder) unknownSection(s, sub *section, reasons map[string]string, accepted []string) {
	if reason := reasons[sub.kind]; reason != "" {
		// ZODB's schema still has the Berkeley DB storages.
		d.add(&Error{
			Pos: sub.pos, Message: "section <" + sub.kind + "> is not supported: " + reason, strict: reason == reasonBerkeley,
		})
		return
	}
	if len(accepted) == 0 {
		d.errorf(sub.pos, "section <%s>: %s has no sections", sub.kind, s.title())
		return
	}
	names := slices.Sorted(slices.Values(accepted))
	where := ""
	if s.kind != "" {
		where = " in " + s.title()
	}
	d.errorf(sub.pos, "unknown section <%s>%s%s; accepted%s: <%s>", sub.kind, where,
		suggest(sub.kind, names), where, strings.Join(names, ">, <"))
}

// only returns the one section of a kind, nil if there is none. Further ones
// are reported.
func (d *decoder) only(list []*section, kind string) *section {
	var found *section
	for _, s := range list {
		switch {
		case s.kind != kind:
		case found == nil:
			found = s
		default:
			d.errorf(s.pos, "%s: there can be one <%s> only, and %s is in line %d", s.title(), kind, found.title(), found.pos.Line)
		}
	}
	return found
}

func (d *decoder) sortedWarnings() []Warning {
	slices.SortStableFunc(d.warnings, func(a, b Warning) int { return a.Pos.compare(b.Pos) })
	return d.warnings
}
