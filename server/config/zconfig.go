package config

import (
	"bytes"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// section is a section of a file, or the file as a whole. A tree of them is
// what the syntax layer makes of a file and its includes: it knows no schema.
// The tree does not change once parsed.
type section struct {
	kind     string // lower case; empty for the whole file
	name     string // lower case; may be empty
	pos      Position
	keys     []*key
	sections []*section
	depth    int // sections around it
}

// key is one `name value` line.
type key struct {
	name  string // lower case
	value string // after substitution, without spaces around it; may be empty
	pos   Position
	bad   bool // the substitution failed and was reported
}

// title is how messages name a section.
func (s *section) title() string {
	switch {
	case s.kind == "":
		return "the file"
	case s.name == "":
		return "<" + s.kind + ">"
	}
	return "<" + s.kind + " " + s.name + ">"
}

// parser reads one file and those it includes. It is used by one goroutine.
type parser struct {
	diagnostics
	loader *Loader
	limits Limits

	defines   map[string]string // by lower-case name
	expanded  int               // bytes of all values so far
	opened    int               // files so far
	including []string          // the files being read, outermost first

	// broken says that sections do not nest, so that keys may have ended
	// up in the wrong one.
	broken bool
}

// file is the state of reading one file of a configuration. Sections begin and
// end in the same file.
type file struct {
	*parser
	pos  Position
	open []*section // open[0] is the section that the file's content goes to
}

func (f *file) current() *section { return f.open[len(f.open)-1] }

// parseFile reads a whole file into a section.
func (p *parser) parseFile(name string, r io.Reader, into *section) {
	f := &file{parser: p, pos: Position{File: name, rank: p.opened}, open: []*section{into}}
	p.opened++
	data, err := io.ReadAll(io.LimitReader(r, p.limits.FileBytes+1))
	switch {
	case err != nil:
		p.broken = true
		p.errorf(f.pos, "cannot read: %v", err)
		return
	case int64(len(data)) > p.limits.FileBytes:
		p.broken = true
		p.strictf(f.pos, "larger than %d bytes", p.limits.FileBytes)
		return
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	for line := range bytes.Lines(data) {
		f.pos.Line++
		switch {
		case !utf8.Valid(line):
			p.errorf(f.pos, "not UTF-8")
		case bytes.IndexByte(line, 0) >= 0:
			p.strictf(f.pos, "contains a zero byte")
		default:
			f.line(strings.TrimFunc(string(line), isSpace))
		}
	}
	for _, s := range f.open[1:] {
		p.broken = true
		p.errorf(s.pos, "%s is never closed: </%s> is missing", s.title(), s.kind)
	}
}

// line handles one line, without the spaces around it.
func (f *file) line(line string) {
	switch {
	case line == "" || line[0] == '#':
	case strings.HasPrefix(line, "</"):
		f.endLine(line)
	case line[0] == '<':
		f.startLine(line)
	case line[0] == '%':
		f.directive(line[1:])
	default:
		name, rest := splitKey(line)
		if name == "" {
			f.errorf(f.pos, "not a key and a value: %s", quote(line))
			return
		}
		value, ok := f.expand(rest)
		s := f.current()
		s.keys = append(s.keys, &key{name: strings.ToLower(name), value: value, pos: f.pos, bad: !ok})
	}
}

// startLine handles <kind>, <kind name>, <kind/> and <kind name/>.
func (f *file) startLine(line string) {
	inner, ok := strings.CutSuffix(line[1:], ">")
	if !ok {
		f.broken = true
		f.errorf(f.pos, "a section start ends with \">\": %s", quote(line))
		return
	}
	inner, empty := strings.CutSuffix(inner, "/")
	words := strings.FieldsFunc(inner, isSpace)
	if len(words) < 1 || len(words) > 2 || isSpace(rune(inner[0])) || strings.ContainsAny(inner, "()") {
		f.broken = true
		f.errorf(f.pos, "a section starts with <type> or <type name>, not %s", quote(line))
		return
	}
	parent := f.current()
	s := &section{kind: strings.ToLower(words[0]), pos: f.pos, depth: parent.depth + 1}
	if len(words) == 2 {
		s.name = strings.ToLower(words[1])
	}
	if s.depth > f.limits.SectionDepth {
		f.broken = true
		f.strictf(f.pos, "%s: sections are nested deeper than %d", s.title(), f.limits.SectionDepth)
	} else {
		parent.sections = append(parent.sections, s)
	}
	if !empty {
		f.open = append(f.open, s)
	}
}

// endLine handles </kind>. Where it closes the wrong section it guesses what
// was meant, to find further errors rather than to invent them.
func (f *file) endLine(line string) {
	inner, ok := strings.CutSuffix(line[2:], ">")
	if !ok {
		f.broken = true
		f.errorf(f.pos, "a section end ends with \">\": %s", quote(line))
		inner = line[2:]
	}
	kind := strings.ToLower(strings.TrimRightFunc(inner, isSpace))
	if len(f.open) == 1 {
		f.broken = true
		f.errorf(f.pos, "</%s> closes nothing: no section is open here", kind)
		return
	}
	if ok && f.current().kind != kind {
		f.broken = true
		s := f.current()
		f.errorf(f.pos, "</%s> cannot close %s of line %d", kind, s.title(), s.pos.Line)
		for i := len(f.open) - 1; i > 0; i-- {
			if f.open[i].kind == kind {
				f.open = f.open[:i]
				return
			}
		}
	}
	f.open = f.open[:len(f.open)-1]
}

// splitKey splits a line into its first word, which ends before a space or a
// parenthesis, and what follows the spaces after it.
func splitKey(line string) (name, rest string) {
	i := strings.IndexFunc(line, func(r rune) bool { return isSpace(r) || r == '(' || r == ')' })
	if i < 0 {
		return line, ""
	}
	return line[:i], strings.TrimLeftFunc(line[i:], isSpace)
}

// isSpace is Python's str.isspace: besides Unicode's white space, the four
// ASCII separators.
func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f }
