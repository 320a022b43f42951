package peers

import (
	"bytes"
	"strings"
	"sync"
)

// logBuffer keeps what a process printed and wakes who waits for a line. Any
// goroutine may use it.
type logBuffer struct {
	mu      sync.Mutex
	text    bytes.Buffer
	partial int // where the line being written starts
	watch   func(line string)
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Write(p)
	for {
		rest := b.text.Bytes()[b.partial:]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return len(p), nil
		}
		b.partial += end + 1
		if b.watch != nil {
			b.watch(string(rest[:end]))
		}
	}
}

// String returns all that was printed.
func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// tail returns the last n lines of s.
func tail(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	if len(lines) > n {
		lines = append([]string{"...\n"}, lines[len(lines)-n:]...)
	}
	return strings.Join(lines, "")
}
