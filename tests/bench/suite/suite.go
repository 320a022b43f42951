// Package suite runs the benchmarks: it starts the servers, lets the generator
// drive them in turns, and keeps what was measured as JSON.
package suite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/load"
)

// A Config says what to run, and with which programs.
type Config struct {
	// Zeolite and Peers are programs, Python an interpreter that has ZEO, and
	// UVLoop a directory with the package uvloop. What is empty is left out.
	Zeolite, Peers, Python, UVLoop string
	// Results is the directory for what is measured.
	Results string
	// Quick covers every scenario with small sizes.
	Quick bool
	// Rounds is how often each contender has its turn, Time how long a turn
	// is.
	Rounds int
	Time   time.Duration
	// Only and Except choose cases by scenario/name.
	Only, Except *regexp.Regexp
	// Scratch is where databases are, on the disk that is to be measured.
	Scratch string
	// Stop, when it is closed, ends the run after the turn that is under way,
	// with [ErrStopped]. What is known of that case is not kept.
	Stop <-chan struct{}
}

// ErrStopped says that a run was stopped before its end.
var ErrStopped = errors.New("stopped before the end")

// A Suite is a run. One goroutine may use it.
type Suite struct {
	Config
	dir     string // of this run, in Scratch
	tls     *certificate
	number  int // of directories of servers
	servers map[string]*Server
}

// scenarios in the order in which they run.
var scenarios = []func(s *Suite) error{
	(*Suite).reads,
	(*Suite).commits,
	(*Suite).stalls,
	(*Suite).blobs,
	(*Suite).streams,
	(*Suite).slowReaders,
	(*Suite).fanOut,
	(*Suite).idle,
	(*Suite).opening,
	(*Suite).allocations,
	(*Suite).profiles,
}

// Run runs all scenarios. A scenario that fails does not keep others from
// running.
func Run(c Config) error {
	s := &Suite{Config: c, servers: map[string]*Server{}}
	var err error
	for _, path := range []*string{&s.Zeolite, &s.Peers, &s.Python, &s.UVLoop} {
		if *path != "" {
			if *path, err = filepath.Abs(*path); err != nil { // servers run in directories of their own
				return err
			}
		}
	}
	if s.dir, err = os.MkdirTemp(c.Scratch, "zeolite-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(s.dir)
	if s.tls, err = newCertificate(s.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.Results, 0o777); err != nil {
		return err
	}
	var errs []error
	for _, scenario := range scenarios {
		errs = append(errs, scenario(s), s.stopAll())
	}
	if s.stopped() {
		errs = append(errs, ErrStopped)
	}
	return errors.Join(errs...)
}

func (s *Suite) stopped() bool {
	select {
	case <-s.Stop:
		return true
	default: // also if there is no channel
		return false
	}
}

// A Contender is one side of a comparison.
type Contender struct {
	Name string
	// Run measures once.
	Run func() (Measurement, error)
}

// A Case is one comparison.
type Case struct {
	Scenario, Name, Title string
	// Params are the numbers in the title.
	Params     map[string]float64
	Contenders []Contender
}

// wants tells whether a case is to be run.
func (s *Suite) wants(scenario, name string) bool {
	full := scenario + "/" + name
	return (s.Only == nil || s.Only.MatchString(full)) && (s.Except == nil || !s.Except.MatchString(full)) && !s.stopped()
}

// run lets the contenders of a case take turns, and keeps what they did.
func (s *Suite) run(c Case) error {
	if !s.wants(c.Scenario, c.Name) {
		return nil
	}
	result := CaseResult{Scenario: c.Scenario, Name: c.Name, Title: c.Title, Params: c.Params, Quick: s.Quick,
		Machine: ThisMachine(), Started: time.Now().UTC().Truncate(time.Second)}
	var errs []error
	for round := range s.Rounds {
		for i := range c.Contenders {
			// Who begins changes, because the page cache and the disk remember.
			contender := c.Contenders[(i+round)%len(c.Contenders)]
			run := turn(contender, round)
			if run.Error != "" {
				errs = append(errs, fmt.Errorf("%s/%s: %s: %s", c.Scenario, c.Name, contender.Name, run.Error))
			}
			result.Runs = append(result.Runs, run)
			if s.stopped() {
				return errors.Join(errs...)
			}
		}
	}
	result.print(os.Stdout)
	return errors.Join(append(errs, result.Save(filepath.Join(s.Results, c.Scenario+"-"+c.Name+".json")))...)
}

// turn measures one contender once.
func turn(c Contender, round int) RunResult {
	run := RunResult{Contender: c.Name, Round: round, LoadAverage: loadAverage()}
	runtime.GC() // ours, not while measuring
	// What the turn before has left to be written is not written in this one: a
	// server that does not sync leaves much.
	syscall.Sync()
	m, err := c.Run()
	if err == nil && m.Disordered > 0 && strings.HasPrefix(c.Name, "zeolite") {
		err = fmt.Errorf("%d invalidations came in the wrong order", m.Disordered)
	}
	if err != nil {
		run.Error = err.Error()
	}
	run.Measurement = m
	return run
}

// options are those of every measurement.
func (s *Suite) options() load.Options {
	return load.Options{Warmup: max(s.Time/5, 200*time.Millisecond), Time: s.Time}
}

// plural counts something.
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// quickOr returns one of two values.
func quickOr[T any](s *Suite, quick, full T) T {
	if s.Quick {
		return quick
	}
	return full
}

// each runs a function for each value, and goes on after errors.
func each[T any](values []T, f func(T) error) error {
	var errs []error
	for _, v := range values {
		errs = append(errs, f(v))
	}
	return errors.Join(errs...)
}

// has tells whether a server can be started.
func (s *Suite) has(kind string) bool {
	switch kind {
	case "zeolite":
		return s.Zeolite != ""
	case "python":
		return s.Python != ""
	case "uvloop":
		return s.Python != "" && s.UVLoop != ""
	case "floor":
		return true
	}
	return s.Peers != "" && slices.Contains([]string{"grpc", "drpc", "netrpc"}, kind)
}
