package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Position is a place in a configuration file. It is a value.
type Position struct {
	// File is the name the file was opened by.
	File string
	// Line counts from 1; 0 means the file as a whole.
	Line int

	// rank is the number of files that were opened before this one.
	rank int
}

func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

func (p Position) compare(q Position) int {
	return cmp.Or(cmp.Compare(p.rank, q.rank), cmp.Compare(p.Line, q.Line))
}

// Error is one thing wrong with a configuration. It does not change after it
// was made.
type Error struct {
	Pos     Position
	Message string

	// strict marks what runzeo would accept when it reads the file (and
	// trip over later, or not at all).
	strict bool
}

func (e *Error) Error() string { return e.Pos.String() + ": " + e.Message }

// Errors is all that is wrong with a configuration, in the order of its lines,
// files in the order they were opened. It is what Load, Parse and Check
// return, never empty.
type Errors []*Error

// Error returns one line for each error.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.Is and errors.As look at each error.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// Warning is something in a configuration that was understood but has no
// effect, or not the one that may be expected. It is a value.
type Warning struct {
	Pos     Position
	Message string
}

func (w Warning) String() string { return w.Pos.String() + ": " + w.Message }

// diagnostics collects errors and warnings. It is used by one goroutine.
type diagnostics struct {
	errs     Errors
	warnings []Warning
	limit    int
	dropped  int
}

func (d *diagnostics) errorf(pos Position, format string, args ...any) {
	d.add(&Error{Pos: pos, Message: fmt.Sprintf(format, args...)})
}

// strictf reports an error that runzeo does not make of this file.
func (d *diagnostics) strictf(pos Position, format string, args ...any) {
	d.add(&Error{Pos: pos, Message: fmt.Sprintf(format, args...), strict: true})
}

// strictError is the text of an error that runzeo does not make of a value.
type strictError string

func (e strictError) Error() string { return string(e) }

// report reports err, which may be a strictError, with a text in front.
func (d *diagnostics) report(pos Position, before string, err error) {
	var strict strictError
	d.add(&Error{Pos: pos, Message: before + err.Error(), strict: errors.As(err, &strict)})
}

// wanted says whether a further error will be shown, not only counted: if not,
// there is no use in looking for what was meant.
func (d *diagnostics) wanted() bool { return len(d.errs) < d.limit }

func (d *diagnostics) add(e *Error) {
	if !d.wanted() {
		d.dropped++
		return
	}
	d.errs = append(d.errs, e)
}

func (d *diagnostics) warnf(pos Position, format string, args ...any) {
	if len(d.warnings) < d.limit {
		d.warnings = append(d.warnings, Warning{pos, fmt.Sprintf(format, args...)})
	}
}

// err returns the errors in order, nil if there are none.
func (d *diagnostics) err() error {
	if len(d.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(d.errs, func(a, b *Error) int { return a.Pos.compare(b.Pos) })
	if d.dropped > 0 {
		last := d.errs[len(d.errs)-1].Pos
		d.errs = append(d.errs, &Error{Pos: last, Message: fmt.Sprintf("and %d more errors", d.dropped)})
	}
	return d.errs
}

// suggest returns ` (did you mean "x"?)` if one of the words is so close to
// the given one that a slip of the pen explains the difference, or contains
// it, else "".
func suggest(word string, words []string) string {
	best, distance := "", max(1, len(word)/3)+1
	for _, w := range words {
		if d := editDistance(word, w); d < distance {
			best, distance = w, d
		}
	}
	if best == "" && len(word) >= 4 {
		i := slices.IndexFunc(words, func(w string) bool { return strings.Contains(w, word) })
		if i >= 0 {
			best = words[i]
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// editDistance is the number of bytes to insert, remove, replace or swap with
// their neighbour that turn a into b. Words longer than any key are far from
// everything.
func editDistance(a, b string) int {
	const longest = 40
	if len(a) > longest || len(b) > longest {
		return longest
	}
	var rows [3][longest + 1]int // the row before the last, the last, this
	for j := range len(b) + 1 {
		rows[1][j] = j
	}
	for i := range len(a) {
		rows[2][0] = i + 1
		for j := range len(b) {
			change := 1
			if a[i] == b[j] {
				change = 0
			}
			d := min(rows[1][j]+change, rows[1][j+1]+1, rows[2][j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				d = min(d, rows[0][j-1]+1)
			}
			rows[2][j+1] = d
		}
		rows[0], rows[1] = rows[1], rows[2]
	}
	return rows[1][len(b)]
}

// quote shows a text from a file in a message, shortened if it is long.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
