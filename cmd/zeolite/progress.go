package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// progress is a line on the standard error output that says how far long work
// is. Where that is not a terminal there is none. It is safe for concurrent
// use.
type progress struct {
	mu    sync.Mutex
	on    bool
	last  time.Time
	width int
}

func newProgress() *progress {
	st, err := os.Stderr.Stat()
	return &progress{on: err == nil && st.Mode()&os.ModeCharDevice != 0}
}

// show replaces the line, not more often than one can read.
func (p *progress) show(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.on || time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last = time.Now()
	p.put(fmt.Sprintf(format, args...))
}

// bar shows how much of a total is done; total may be unknown, 0 or less.
func (p *progress) bar(what string, done, total int64, unit func(int64) string) {
	if total <= 0 {
		p.show("%s: %s", what, unit(done))
		return
	}
	const cells = 30
	part := min(max(float64(done)/float64(total), 0), 1)
	full := int(part * cells)
	p.show("%s: [%s%s] %3.0f%%  %s of %s", what, strings.Repeat("#", full), strings.Repeat(".", cells-full),
		part*100, unit(done), unit(total))
}

// clear removes the line.
func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.width > 0 {
		p.put("")
		fmt.Fprint(os.Stderr, "\r")
	}
}

func (p *progress) put(line string) {
	fmt.Fprintf(os.Stderr, "\r%-*s", p.width, line)
	p.width = len(line)
}

// byteCount formats a number of bytes for people.
func byteCount(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/(1<<10), 0
	for v >= 1<<10 && i < len(units)-1 {
		v, i = v/(1<<10), i+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}

func plainCount(n int64) string { return fmt.Sprint(n) }
