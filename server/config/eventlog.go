package config

import (
	"errors"
	"math"
	"strings"
)

// EventLog is the section <eventlog>: what is logged, and where to. If the file
// has none it is what runzeo logs then: level info to the standard error
// output. It is a value.
type EventLog struct {
	Level Level
	// Handlers are the places that each entry goes to. If there is none,
	// nothing is logged.
	Handlers []LogFile
}

// Level is a level of Python's logging, 0 to 50: entries of lower levels are
// not logged. 0, LevelNotSet, stands for no restriction.
type Level int

// The levels of Python's logging, and three more of ZConfig's.
const (
	LevelNotSet   Level = 0
	LevelAll      Level = 1
	LevelTrace    Level = 5
	LevelDebug    Level = 10
	LevelBlather  Level = 15
	LevelInfo     Level = 20
	LevelWarning  Level = 30
	LevelError    Level = 40
	LevelCritical Level = 50
)

var levels = map[string]Level{
	"critical": LevelCritical, "fatal": LevelCritical, "error": LevelError, "warn": LevelWarning,
	"warning": LevelWarning, "info": LevelInfo, "blather": LevelBlather, "debug": LevelDebug,
	"trace": LevelTrace, "all": LevelAll, "notset": LevelNotSet,
}

// LogFile is the section <logfile> of <eventlog>. It is a value.
type LogFile struct {
	// Path is the file to append to, or STDOUT or STDERR.
	Path  string
	Level Level // default LevelNotSet
	// Format is a format of Python's logging in the % style, with the
	// fields that CheckFormat accepts, escapes like \n already replaced.
	Format string
	// DateFormat is the strftime format of asctime, default
	// %Y-%m-%dT%H:%M:%S.
	DateFormat string
	// OldFiles, if not 0, is how many old files are kept when the file is
	// rotated: when it reaches MaxSize bytes, or every Interval times When.
	// When is S, M, H, D, W0 to W6 (Monday to Sunday) or MIDNIGHT. Either
	// MaxSize or When is given then.
	OldFiles int
	MaxSize  int64
	When     string
	Interval int
	// Delay says to open the file at the first entry.
	Delay bool
}

// Standard streams as LogFile.Path.
const (
	Stdout = "STDOUT"
	Stderr = "STDERR"
)

// DefaultLogFormat is the LogFile.Format of ZConfig and of runzeo.
const DefaultLogFormat = "------\n%(asctime)s %(levelname)s %(name)s %(message)s"

func defaultLogFile() LogFile {
	return LogFile{Path: Stderr, Format: DefaultLogFormat, DateFormat: "%Y-%m-%dT%H:%M:%S"}
}

var handlerKinds = []string{"logfile", "syslog", "http-logger", "email-notifier", "win32-eventlog"}

// eventLog decodes <eventlog>, which may be nil.
func (d *decoder) eventLog(s *section) EventLog {
	e := EventLog{Level: LevelInfo}
	if s == nil {
		e.Handlers = []LogFile{defaultLogFile()}
		return e
	}
	d.fields(s, field{name: "level", set: level(&e.Level)})
	ignored := 0
	for _, sub := range d.subsections(s, nil, handlerKinds...) {
		if sub.kind == "logfile" {
			e.Handlers = append(e.Handlers, d.logFile(sub))
			continue
		}
		// Harmless: no data depends on where the log goes.
		d.warnf(sub.pos, "%s is ignored: the log goes to files and standard streams only", sub.title())
		ignored++
	}
	if len(e.Handlers) == 0 && ignored > 0 {
		d.warnf(s.pos, "%s: as no handler is left, the log goes to standard error", s.title())
		e.Handlers = []LogFile{defaultLogFile()}
	}
	return e
}

// level is ZConfig's logging level: a name, or a number from 0 to 50.
func level(to *Level) setter {
	return func(s string) error {
		l, ok := levels[strings.ToLower(s)]
		if !ok {
			n, err := parseInt(s)
			if err != nil || n < 0 || n > 50 {
				return errors.New("want critical, error, warning, info, blather, debug, trace, all, notset, or 0 to 50")
			}
			l = Level(n)
		}
		*to = l
		return nil
	}
}

func (d *decoder) logFile(s *section) LogFile {
	d.subsections(s, nil)
	l := defaultLogFile()
	l.Path = ""
	var style, formatter, encoding string
	var arbitrary bool
	d.fields(s,
		field{name: "path", set: text(&l.Path), required: true},
		field{name: "level", set: level(&l.Level)},
		field{name: "format", set: escaped(&l.Format)},
		field{name: "dateformat", set: text(&l.DateFormat)},
		// What follows decides how entries look, not whether there are any.
		field{name: "style", set: logStyle(&style)},
		field{name: "formatter", set: dottedName(&formatter)},
		field{name: "arbitrary-fields", set: boolean(&arbitrary)},
		field{name: "encoding", set: text(&encoding)},

		field{name: "old-files", set: integer(&l.OldFiles, 0, 1<<16)},
		field{name: "max-size", set: byteSize(&l.MaxSize, 0)},
		field{name: "when", set: rotationTime(&l.When)},
		field{name: "interval", set: integer(&l.Interval, 0, math.MaxInt32)},
		field{name: "delay", set: boolean(&l.Delay)},
	)
	at := func(name string) Position {
		for _, k := range s.keys {
			if k.name == name {
				return k.pos
			}
		}
		return s.pos
	}
	if formatter != "" {
		d.warnf(at("formatter"), "%s: formatter is ignored: it names a Python class", s.title())
	}
	if e := strings.ToLower(encoding); e != "" && e != "utf-8" && e != "utf8" {
		d.warnf(at("encoding"), "%s: encoding %s is ignored: the log is UTF-8", s.title(), quote(encoding))
	}
	if style != "" && style != "classic" {
		d.warnf(at("style"), "%s: style %s is not supported: entries have the default format", s.title(), style)
		l.Format = DefaultLogFormat
	} else if err := CheckFormat(l.Format); err != nil {
		var unknown unknownFieldError
		if arbitrary && errors.As(err, &unknown) {
			d.warnf(at("format"), "%s: format: %v: entries have the default format", s.title(), err)
			l.Format = DefaultLogFormat
		} else {
			d.report(at("format"), s.title()+": format: ", err)
		}
	}
	d.rotation(s, &l, encoding != "")
	return l
}

// rotation checks what the keys of a <logfile> mean together.
func (d *decoder) rotation(s *section, l *LogFile, encoded bool) {
	if l.Path == Stdout || l.Path == Stderr {
		if l.OldFiles != 0 || l.MaxSize != 0 || l.When != "" || l.Delay || encoded {
			d.errorf(s.pos, "%s: old-files, max-size, when, delay and encoding do not go with path %s", s.title(), l.Path)
		}
		return
	}
	if up := strings.ToUpper(l.Path); up == Stdout || up == Stderr {
		d.warnf(s.pos, "%s: %s is a file; the stream is %s", s.title(), l.Path, up)
	}
	if l.Path != "" {
		d.checks = append(d.checks, check{pos: s.pos, title: s.title() + ": path", path: l.Path, test: inExistingDir, strict: true})
	}
	if l.OldFiles == 0 && l.MaxSize == 0 && l.When == "" && l.Interval == 0 {
		return
	}
	switch {
	case l.OldFiles == 0:
		d.errorf(s.pos, "%s: max-size, when and interval need old-files, the number of old files to keep", s.title())
	case l.When != "" && l.MaxSize != 0:
		d.errorf(s.pos, "%s: max-size and when exclude each other", s.title())
	case l.When == "" && l.MaxSize == 0:
		d.errorf(s.pos, "%s: old-files and interval need max-size or when", s.title())
	}
	if l.When != "" && l.Interval == 0 {
		l.Interval = 1
	}
}

// rotationTime is the when of Python's TimedRotatingFileHandler.
func rotationTime(to *string) setter {
	return func(s string) error {
		*to = strings.ToUpper(s)
		switch w := *to; {
		case w == "", w == "S", w == "M", w == "H", w == "D", w == "MIDNIGHT":
		case len(w) == 2 && w[0] == 'W' && '0' <= w[1] && w[1] <= '6':
		default:
			return strictError("want S, M, H, D, MIDNIGHT or W0 to W6")
		}
		return nil
	}
}

func logStyle(to *string) setter {
	return func(s string) error {
		*to = strings.ToLower(s)
		switch *to {
		case "classic", "format", "template", "safe-template":
			return nil
		}
		return errors.New("want classic, format, template or safe-template")
	}
}

// dottedName is ZConfig's dotted-name.
func dottedName(to *string) setter {
	return func(s string) error {
		for part := range strings.SplitSeq(s, ".") {
			if part == "" || nameLen(part) != len(part) {
				return errors.New("want the dotted name of a Python object")
			}
		}
		*to = s
		return nil
	}
}

var escapes = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\b`, "\b", `\f`, "\f", `\r`, "\r")

// escaped stores a text with ZConfig's escapes replaced.
func escaped(to *string) setter {
	return func(s string) error {
		*to = escapes.Replace(s)
		return nil
	}
}
