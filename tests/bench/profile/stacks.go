package profile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// A Stack is a sample of a profile: functions, the innermost first, and the time
// that was spent there.
type Stack struct {
	Functions []string
	Time      time.Duration
}

// CPU returns the stacks of a profile of the processor, as /debug/pprof/profile
// has it.
func CPU(file string) ([]Stack, error) { return traces(file) }

// The kinds of waiting that a trace knows.
const (
	Syscall   = "syscall" // in the kernel
	Network   = "net"     // for a socket to have, or to take, something
	Scheduler = "sched"   // for a processor
)

// Waiting returns where goroutines have waited according to a trace, as
// /debug/pprof/trace has it.
func Waiting(file, kind string) ([]Stack, error) {
	out, err := run("go", "tool", "trace", "-pprof="+kind, file)
	if err != nil || len(out) == 0 { // nobody has waited so
		return nil, err
	}
	profile := file + "." + kind
	if err := os.WriteFile(profile, out, 0o666); err != nil {
		return nil, err
	}
	return traces(profile)
}

// traces lets pprof print a profile.
func traces(file string) ([]Stack, error) {
	out, err := run("go", "tool", "pprof", "-traces", file)
	if err != nil {
		return nil, err
	}
	return parse(out)
}

// parse reads what pprof has printed: a head, then stacks, each below a line of
// hyphens. A stack starts with the time, unless it has labels before; what is
// not known has none.
func parse(out []byte) (stacks []Stack, err error) {
	var stack *Stack
	between := false
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "---") {
			stack, between = nil, true
			continue
		}
		fields := strings.Fields(line)
		switch {
		case !between || len(fields) == 0:
		case stack != nil:
			stack.Functions = append(stack.Functions, fields[0]) // (inline) may follow
		case len(fields) > 1 && !strings.HasSuffix(fields[0], ":"):
			d, err := duration(fields[0])
			if err != nil {
				return nil, fmt.Errorf("pprof has printed %q: %w", line, err)
			}
			stacks = append(stacks, Stack{[]string{fields[1]}, d})
			stack = &stacks[len(stacks)-1]
		}
	}
	return stacks, lines.Err()
}

// duration reads what pprof writes: 1.50s, 79.42ms, 2.56us, 1.20mins, 2hrs.
func duration(s string) (time.Duration, error) {
	if n, ok := strings.CutSuffix(s, "mins"); ok {
		s = n + "m"
	} else if n, ok := strings.CutSuffix(s, "hrs"); ok {
		s = n + "h"
	}
	return time.ParseDuration(s)
}

// run runs a program and returns its output.
func run(name string, args ...string) ([]byte, error) {
	out, err := exec.Command(name, args...).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%s: %w: %s", strings.Join(append([]string{name}, args...), " "), err, bytes.TrimSpace(failed.Stderr))
	}
	return out, err
}
