package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/zeolite-go/zeolite/server/config"
)

// logger makes the logger: by the <eventlog> section if there is a
// configuration file, else lines of key=value on the standard error output.
func (f *serveFlags) logger(cfg *config.Config) (*slog.Logger, *logFiles, error) {
	logs := &logFiles{}
	if f.config == "" {
		level := slog.LevelInfo
		if f.verbose {
			level = slog.LevelDebug
		}
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})), logs, nil
	}
	level := cfg.EventLog.Level
	if f.verbose {
		level = config.LevelAll
	}
	for _, h := range cfg.EventLog.Handlers {
		lf, err := openLogFile(h, time.Now())
		if err != nil {
			return nil, nil, errors.Join(err, logs.Close())
		}
		logs.files = append(logs.files, lf)
	}
	return slog.New(&eventLog{logs: logs, level: level}), logs, nil
}

// logFiles are the places the log goes to. They are safe for concurrent use.
type logFiles struct{ files []*logFile }

// reopen opens the files again, after something has moved them away. Those that
// are rotated here begin anew, as with runzeo.
func (l *logFiles) reopen(log *slog.Logger) {
	for _, f := range l.files {
		if err := f.reopen(time.Now()); err != nil {
			log.Error("cannot open the log file again", "error", err)
		}
	}
	log.Info("log files opened again")
}

// Close closes the files.
func (l *logFiles) Close() error {
	var err error
	for _, f := range l.files {
		err = errors.Join(err, f.close())
	}
	return err
}

// logFile is one place.
type logFile struct {
	spec config.LogFile

	mu       sync.Mutex
	w        io.Writer // nil before the first entry, if that opens the file
	file     *os.File  // nil for the standard streams
	rotation rotation  // nil if the file is not rotated
	failed   time.Time // when rotating failed last
}

func openLogFile(spec config.LogFile, now time.Time) (*logFile, error) {
	f := &logFile{spec: spec, rotation: newRotation(spec, now)}
	if spec.Delay {
		return f, nil
	}
	return f, f.open()
}

func (f *logFile) open() error {
	switch f.spec.Path {
	case config.Stdout:
		f.w = os.Stdout
	case config.Stderr:
		f.w = os.Stderr
	default:
		file, err := os.OpenFile(f.spec.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o666)
		if err != nil {
			return fmt.Errorf("log file: %w", err)
		}
		f.w, f.file = file, file
	}
	return nil
}

func (f *logFile) reopen(now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return nil
	}
	if f.rotation != nil {
		return f.rotate(now)
	}
	old := f.file
	if err := f.open(); err != nil {
		return err
	}
	return old.Close()
}

func (f *logFile) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if f.file != nil {
		err = f.file.Close()
	}
	f.file, f.w = nil, io.Discard
	return err
}

// write writes an entry of the time now.
func (f *logFile) write(line string, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.w == nil {
		if err := f.open(); err != nil {
			return err
		}
	}
	if err := f.rotateIfDue(len(line), now); err != nil {
		// The log goes on in the old file.
		line += fmt.Sprintf("cannot rotate the log file: %v\n", err)
	}
	_, err := io.WriteString(f.w, line)
	return err
}

// rotateIfDue begins a new file if the next entry, of n bytes, belongs there. If
// that fails it is tried again after a while.
func (f *logFile) rotateIfDue(n int, now time.Time) error {
	const again = time.Minute
	if f.rotation == nil || f.file == nil || !f.failed.IsZero() && now.Sub(f.failed) < again {
		return nil
	}
	st, err := f.file.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || !f.rotation.due(st, n, now) {
		return nil
	}
	f.failed = time.Time{}
	if err := f.rotate(now); err != nil {
		f.failed = now
		return err
	}
	return nil
}

func (f *logFile) rotate(now time.Time) error {
	old := f.file
	moved := f.rotation.rotate(f.spec.Path, now)
	if err := f.open(); err != nil {
		return errors.Join(moved, err)
	}
	return errors.Join(moved, old.Close())
}

// eventLog is a slog.Handler that writes entries as Python's logging would.
type eventLog struct {
	logs  *logFiles
	level config.Level
	attrs string // given by With, formatted
	group string
}

// pythonLevel is the level of Python's logging that a level stands for.
func pythonLevel(l slog.Level) config.Level {
	switch {
	case l >= slog.LevelError:
		return config.LevelError
	case l >= slog.LevelWarn:
		return config.LevelWarning
	case l >= slog.LevelInfo:
		return config.LevelInfo
	}
	return config.LevelDebug
}

// Enabled follows slog.Handler.
func (e *eventLog) Enabled(_ context.Context, l slog.Level) bool { return pythonLevel(l) >= e.level }

// Handle follows slog.Handler.
func (e *eventLog) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	b.WriteString(e.attrs)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, e.group, a)
		return true
	})
	message := b.String()
	level := pythonLevel(r.Level)
	var err error
	for _, f := range e.logs.files {
		if level >= f.spec.Level {
			err = errors.Join(err, f.write(formatEntry(f.spec, r.Time, level, message), r.Time))
		}
	}
	return err
}

// WithAttrs follows slog.Handler.
func (e *eventLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		writeAttr(&b, e.group, a)
	}
	with := *e
	with.attrs += b.String()
	return &with
}

// WithGroup follows slog.Handler.
func (e *eventLog) WithGroup(name string) slog.Handler {
	with := *e
	with.group += name + "."
	return &with
}

func writeAttr(b *strings.Builder, group string, a slog.Attr) {
	if a.Equal(slog.Attr{}) {
		return
	}
	text := a.Value.Resolve().String()
	quote := func(r rune) bool { return r == '"' || r == '=' || r == ' ' || !unicode.IsPrint(r) }
	if text == "" || strings.ContainsFunc(text, quote) {
		text = fmt.Sprintf("%q", text)
	}
	fmt.Fprintf(b, " %s%s=%s", group, a.Key, text)
}

// formatEntry fills in a format of Python's logging. The configuration was
// checked to have only fields that are known.
func formatEntry(spec config.LogFile, at time.Time, level config.Level, message string) string {
	name := strings.ToUpper(level.String())
	values := map[string]any{
		"name": "ZEO", "levelname": name, "levelno": int(level), "message": message,
		"asctime": strftime(spec.DateFormat, at), "created": float64(at.UnixNano()) / 1e9,
		"msecs": float64(at.Nanosecond()) / 1e6, "relativeCreated": float64(time.Since(started).Microseconds()) / 1e3,
		"process": os.Getpid(), "processName": "MainProcess", "thread": 0, "threadName": "MainThread",
		"pathname": "zeolite", "filename": "zeolite", "module": "zeolite", "lineno": 0, "funcName": "",
	}
	var b strings.Builder
	rest := spec.Format
	for {
		i := strings.IndexByte(rest, '%')
		if i < 0 || i+1 >= len(rest) {
			break
		}
		b.WriteString(rest[:i])
		rest = rest[i+1:]
		if rest[0] == '%' {
			b.WriteByte('%')
			rest = rest[1:]
			continue
		}
		end := strings.IndexByte(rest, ')')
		kind := strings.IndexAny(rest[max(end, 0):], "sradiueEfFgGoxXc")
		if rest[0] != '(' || end < 0 || kind < 0 {
			b.WriteByte('%')
			continue
		}
		value := values[rest[1:end]]
		flags := strings.TrimRight(rest[end+1:end+kind], "hlL") // sizes, which Python passes over
		b.WriteString(formatField(flags, rest[end+kind], value))
		rest = rest[end+kind+1:]
	}
	b.WriteString(rest)
	b.WriteByte('\n')
	return b.String()
}

// formatField formats one value as Python's % operator would, r and a like s.
func formatField(flags string, kind byte, value any) string {
	switch kind {
	case 'd', 'i', 'u', 'x', 'X', 'o', 'c':
		if f, ok := value.(float64); ok {
			value = int64(f)
		}
		switch kind {
		case 'i', 'u':
			kind = 'd'
		case 'c':
			flags = strings.TrimLeft(flags, "#0+ ")
		}
	case 'f', 'F', 'e', 'E', 'g', 'G':
		if n, ok := value.(int); ok {
			value = float64(n)
		}
		if (kind == 'g' || kind == 'G') && !strings.Contains(flags, ".") {
			flags += ".6"
		}
	default:
		kind = 's'
		flags = strings.TrimLeft(flags, "#0+ ") // zeros would fill it
		if f, ok := value.(float64); ok {
			text := strconv.FormatFloat(f, 'f', -1, 64)
			if !strings.Contains(text, ".") {
				text += ".0"
			}
			value = text
		} else {
			value = fmt.Sprint(value)
		}
	}
	return fmt.Sprintf("%"+flags+string(kind), value)
}

var started = time.Now()

// strftime formats a time as C does, for the directives in common use.
func strftime(format string, t time.Time) string {
	layouts := map[byte]string{
		'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'y': "06", 'I': "03", 'p': "PM",
		'b': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday", 'Z': "MST", 'z': "-0700", 'j': "002",
		'T': "15:04:05", 'F': "2006-01-02", 'D': "01/02/06", 'c': "Mon Jan _2 15:04:05 2006", 'e': "_2",
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		if layout, ok := layouts[format[i]]; ok {
			b.WriteString(t.Format(layout))
		} else if format[i] == '%' {
			b.WriteByte('%')
		} else {
			b.WriteString(format[i-1 : i+1])
		}
	}
	return b.String()
}
