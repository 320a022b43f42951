package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// logFields are the fields of an entry that a format may show, each with the
// conversions it can take besides s, r and a.
var logFields = map[string]string{
	"name": "", "levelname": "", "pathname": "", "filename": "", "module": "", "message": "",
	"asctime": "", "funcName": "", "threadName": "", "processName": "",
	"levelno": ints, "lineno": ints, "thread": ints, "process": ints,
	"created": floats, "msecs": floats, "relativeCreated": floats,
}

const (
	floats = "diueEfFgG"
	ints   = floats + "oxXc"
)

// unknownFieldError is the name of a field that no entry has.
type unknownFieldError string

func (e unknownFieldError) Error() string {
	names := slices.Sorted(maps.Keys(logFields))
	return fmt.Sprintf("unknown field %q%s; accepted: %s", string(e), suggest(string(e), names), strings.Join(names, ", "))
}

// CheckFormat says whether a format of Python's logging in the % style can be
// used: fields have the form %(name)s, where there may be flags, width and
// precision before the conversion, and %% is a per cent sign. The fields are
// name, levelname, levelno, pathname, filename, module, lineno, funcName,
// created, asctime, msecs, relativeCreated, thread, threadName, process,
// processName and message.
func CheckFormat(format string) error {
	for rest := format; ; {
		_, after, found := strings.Cut(rest, "%")
		if !found {
			return nil
		}
		if rest, found = strings.CutPrefix(after, "%"); found {
			continue
		}
		name, spec, found := strings.Cut(strings.TrimPrefix(after, "("), ")")
		if !strings.HasPrefix(after, "(") || !found {
			if strings.HasPrefix(after, "s") || strings.HasPrefix(after, "r") {
				return strictError("want %(field)s, not a bare %s") // Python shows all fields
			}
			return fmt.Errorf("%s is neither %%(field)s nor %%%%", quote("%"+firstRune(after)))
		}
		conversions, known := logFields[name]
		if !known {
			return unknownFieldError(name)
		}
		spec = strings.TrimLeft(spec, "#0- +")
		spec = strings.TrimLeft(spec, "0123456789")
		if precise, ok := strings.CutPrefix(spec, "."); ok {
			spec = strings.TrimLeft(precise, "0123456789")
		}
		if spec != "" && strings.Contains("hlL", spec[:1]) {
			spec = spec[1:]
		}
		if spec == "" || !strings.Contains("sra"+conversions, spec[:1]) {
			return fmt.Errorf("field %s cannot be shown as %s", name, quote("%("+name+")…"+firstRune(spec)))
		}
		rest = spec[1:]
	}
}

func firstRune(s string) string {
	for i := range s {
		if i > 0 {
			return s[:i]
		}
	}
	return s
}
