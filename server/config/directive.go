package config

import (
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// directive handles a line that starts with %, given without it.
func (f *file) directive(line string) {
	name, rest := splitKey(line)
	names := []string{"define", "import", "include"}
	if !slices.Contains(names, name) {
		f.errorf(f.pos, "unknown directive %s%s; accepted: %%define, %%import, %%include",
			quote("%"+name), suggest(name, names))
		return
	}
	if rest == "" {
		f.errorf(f.pos, "%%%s lacks its argument", name)
		return
	}
	if name == "define" {
		f.define(rest)
		return
	}
	arg, ok := f.expand(rest)
	switch {
	case !ok:
	case name == "include":
		f.include(arg)
	default:
		// Harmless: a section of a type that we do not know is an error
		// wherever it is used.
		f.warnf(f.pos, "%%import %s is ignored: section types of Python packages are not loaded", arg)
	}
}

// define handles %define. As in ZConfig a name may be defined again with the
// same text only, and names are shared by all files from then on.
func (f *file) define(rest string) {
	name, value := rest, ""
	if i := strings.IndexFunc(rest, isSpace); i >= 0 {
		name, value = rest[:i], strings.TrimLeftFunc(rest[i:], isSpace)
	}
	name = strings.ToLower(name)
	if old, ok := f.defines[name]; ok && old != value {
		f.errorf(f.pos, "%%define %s: already defined as %s", name, quote(old))
		return
	}
	if nameLen(name) != len(name) {
		f.errorf(f.pos, "%%define %s: a name has letters, digits and _ only, and no digit first", quote(name))
		return
	}
	value, ok := f.expand(value)
	if !ok {
		value = "" // so that only this line is reported, not each use
	}
	f.defines[name] = value
}

// A scheme of one letter would be a drive of Windows.
var urlScheme = regexp.MustCompile(`^[a-zA-Z][-+.a-zA-Z0-9]+:`)

// include handles %include: the content of the file goes to the current
// section. It may be named by a path or a file: URL.
func (f *file) include(name string) {
	path := name
	if urlScheme.MatchString(name) {
		u, err := url.Parse(name)
		if err != nil || u.Scheme != "file" || u.Host != "" || u.Path == "" {
			f.broken = true
			f.strictf(f.pos, "%%include %s: only local files can be included", quote(name))
			return
		}
		path = u.Path
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(f.pos.File), path)
	}
	fail := ""
	switch id := identity(path); {
	case slices.Contains(f.including, id):
		fail = "includes itself: " + strings.Join(append(f.including, id), " -> ")
	case len(f.including) > f.limits.IncludeDepth:
		fail = fmt.Sprintf("files include each other deeper than %d", f.limits.IncludeDepth)
	case f.opened >= f.limits.Files:
		fail = fmt.Sprintf("more than %d files", f.limits.Files)
	}
	if fail != "" {
		f.broken = true
		f.errorf(f.pos, "%%include %s: %s", quote(name), fail)
		return
	}
	r, err := f.loader.open(path)
	if err != nil {
		f.broken = true
		f.errorf(f.pos, "%%include: %v", err)
		return
	}
	defer r.Close()
	f.including = append(f.including, identity(path))
	f.parseFile(path, r, f.current())
	f.including = f.including[:len(f.including)-1]
}

// identity names a file for telling whether it is being read already.
func identity(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return filepath.Clean(path)
}

// expand replaces $name, ${name} (a %define), $(NAME) (the environment) and $$
// in a value. What they stand for is not expanded again. Failures are reported
// and give false.
func (f *file) expand(text string) (string, bool) {
	out, err := f.substitute(text)
	if err != nil {
		f.report(f.pos, "", err)
		return "", false
	}
	f.expanded += len(out)
	return out, true
}

func (f *file) substitute(text string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "$")
		if err := f.room(out.Len() + len(before)); err != nil {
			return "", err
		}
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		opening, closing := "", ""
		switch {
		case strings.HasPrefix(rest, "$"):
			out.WriteByte('$')
			text = rest[1:]
			continue
		case strings.HasPrefix(rest, "{"):
			opening, closing = "{", "}"
		case strings.HasPrefix(rest, "("):
			opening, closing = "(", ")"
		}
		rest = rest[len(opening):]
		n := nameLen(rest)
		name := rest[:n]
		text, found = strings.CutPrefix(rest[n:], closing)
		if n == 0 || !found {
			return "", fmt.Errorf("%s is neither $name, ${name}, $(NAME) nor $$ (write $$ for a dollar sign)",
				quote("$"+opening+name))
		}
		value, err := f.lookup(name, opening == "(")
		if err == nil {
			err = f.room(out.Len() + len(value))
		}
		if err != nil {
			return "", err
		}
		out.WriteString(value)
	}
}

// room fails if n more bytes of values are too many. A few lines of %define
// could otherwise double a value again and again.
func (f *file) room(n int) error {
	if f.expanded+n > f.limits.ExpandedBytes {
		f.expanded = f.limits.ExpandedBytes // so that no later line gets far
		return strictError(fmt.Sprintf("the values of the configuration exceed %d bytes", f.limits.ExpandedBytes))
	}
	return nil
}

// lookup finds what a name stands for.
func (f *file) lookup(name string, env bool) (string, error) {
	if env {
		if v, ok := f.loader.lookupEnv(name); ok {
			return v, nil
		}
		return "", fmt.Errorf("$(%s): the environment has no %s", name, name)
	}
	if v, ok := f.defines[strings.ToLower(name)]; ok {
		return v, nil
	}
	var names []string
	if f.wanted() {
		names = slices.Sorted(maps.Keys(f.defines))
	}
	return "", fmt.Errorf("$%s: %s is not defined%s", name, name, suggest(strings.ToLower(name), names))
}

// nameLen is the length of the longest name that s starts with, 0 if none.
func nameLen(s string) int {
	for i := range len(s) {
		c := s[i] | 0x20
		letter := 'a' <= c && c <= 'z' || s[i] == '_'
		digit := '0' <= s[i] && s[i] <= '9'
		if !letter && (!digit || i == 0) {
			return i
		}
	}
	return len(s)
}
