package server

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// logRecord is one line of the server's log.
type logRecord struct {
	level   slog.Level
	message string
	client  string // the attribute of that name
	text    string // message and all attributes
}

// logRecorder keeps a server's log. It is safe for concurrent use.
type logRecorder struct {
	shared *recorded
	attrs  []slog.Attr
}

type recorded struct {
	mu      sync.Mutex
	records []logRecord
	grown   chan struct{} // closed, and replaced, at each record
}

func newLogRecorder() *logRecorder {
	return &logRecorder{shared: &recorded{grown: make(chan struct{})}}
}

// Enabled follows slog.Handler.
func (l *logRecorder) Enabled(context.Context, slog.Level) bool { return true }

// WithGroup follows slog.Handler; the server has no groups.
func (l *logRecorder) WithGroup(string) slog.Handler { return l }

// WithAttrs follows slog.Handler.
func (l *logRecorder) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logRecorder{shared: l.shared, attrs: append(l.attrs[:len(l.attrs):len(l.attrs)], attrs...)}
}

// Handle follows slog.Handler.
func (l *logRecorder) Handle(_ context.Context, r slog.Record) error {
	rec := logRecord{level: r.Level, message: r.Message}
	var text strings.Builder
	fmt.Fprintf(&text, "%v %s", r.Level, r.Message)
	add := func(a slog.Attr) bool {
		fmt.Fprintf(&text, " %s=%v", a.Key, a.Value)
		if a.Key == "client" {
			rec.client = a.Value.String()
		}
		return true
	}
	for _, a := range l.attrs {
		add(a)
	}
	r.Attrs(add)
	rec.text = text.String()
	s := l.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = append(s.records, rec)
	close(s.grown)
	s.grown = make(chan struct{})
	return nil
}

// String returns the whole log.
func (l *logRecorder) String() string {
	var lines []string
	for _, r := range l.all() {
		lines = append(lines, r.text)
	}
	return strings.Join(lines, "\n")
}

func (l *logRecorder) all() []logRecord {
	l.shared.mu.Lock()
	defer l.shared.mu.Unlock()
	return l.shared.records[:len(l.shared.records):len(l.shared.records)]
}

// wait waits for a line and returns it.
func (l *logRecorder) wait(t testing.TB, what string, match func(logRecord) bool) logRecord {
	t.Helper()
	deadline := time.After(patience)
	for seen := 0; ; {
		l.shared.mu.Lock()
		records, grown := l.shared.records, l.shared.grown
		l.shared.mu.Unlock()
		for ; seen < len(records); seen++ {
			if match(records[seen]) {
				return records[seen]
			}
		}
		select {
		case <-grown:
		case <-deadline:
			t.Fatalf("the log did not tell of %s:\n%v", what, l)
		}
	}
}

// assertOne checks that there is exactly one warning or error about a client,
// and that it contains a text.
func (l *logRecorder) assertOne(t testing.TB, client, text string) {
	t.Helper()
	var lines []string
	for _, r := range l.all() {
		if r.client == client && r.level >= slog.LevelWarn {
			lines = append(lines, r.text)
		}
	}
	if len(lines) != 1 {
		t.Errorf("%d lines about client %s, want one with %q:\n%s", len(lines), client, text, strings.Join(lines, "\n"))
	} else if !strings.Contains(lines[0], text) {
		t.Errorf("the log says %q, want something with %q", lines[0], text)
	}
}
