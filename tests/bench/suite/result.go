package suite

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/load"
	"github.com/zeolite-go/zeolite/tests/bench/process"
	"github.com/zeolite-go/zeolite/tests/bench/stats"
)

// A Measurement is one turn of one contender.
type Measurement struct {
	load.Summary
	process.Used
	// Extra are numbers that one scenario has: their names say what they are.
	Extra map[string]float64 `json:",omitempty"`
}

// A RunResult is a measurement with its circumstances.
type RunResult struct {
	Contender string
	Round     int
	// LoadAverage is that of the last minute, before the measurement.
	LoadAverage float64
	Error       string `json:",omitempty"`
	Measurement
}

// A CaseResult is what is kept of a case.
type CaseResult struct {
	Scenario, Name, Title string
	Params                map[string]float64
	Quick                 bool
	Machine               Machine
	Started               time.Time
	Runs                  []RunResult
}

// A Machine is where something was measured.
type Machine struct {
	CPU    string
	CPUs   int
	Kernel string
	Go     string
}

// ThisMachine describes the machine, as far as it says.
func ThisMachine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel, _, _ = strings.Cut(strings.TrimSpace(string(b)), "-") // without the builder's marks
	}
	return m
}

func loadAverage() float64 {
	l, _ := process.Load() // zero where nobody says
	return l
}

// Save writes a result.
func (c *CaseResult) Save(path string) error {
	b, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o666)
}

// Read returns all results of a directory.
func Read(dir string) ([]*CaseResult, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var results []*CaseResult
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		c := &CaseResult{}
		if err := json.Unmarshal(b, c); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		results = append(results, c)
	}
	return results, nil
}

// Contenders returns the names, in the order of their first turn.
func (c *CaseResult) Contenders() (names []string) {
	seen := map[string]bool{}
	for _, r := range c.Runs {
		if !seen[r.Contender] {
			seen[r.Contender] = true
			names = append(names, r.Contender)
		}
	}
	return names
}

// Of returns one number of all the runs of a contender that did not fail.
func (c *CaseResult) Of(contender string, number func(*Measurement) float64) stats.Sample {
	var s stats.Sample
	for i := range c.Runs {
		if r := &c.Runs[i]; r.Contender == contender && r.Error == "" {
			s = append(s, number(&r.Measurement))
		}
	}
	return s
}

// Ratios returns a number of one contender divided by that of another, round
// by round: both had their turns at about the same time.
func (c *CaseResult) Ratios(a, b string, number func(*Measurement) float64) stats.Sample {
	var s stats.Sample
	for i := range c.Runs {
		for j := range c.Runs {
			x, y := &c.Runs[i], &c.Runs[j]
			if x.Contender == a && y.Contender == b && x.Round == y.Round && x.Error == "" && y.Error == "" && number(&y.Measurement) != 0 {
				s = append(s, number(&x.Measurement)/number(&y.Measurement))
			}
		}
	}
	return s
}

// The numbers that scenarios have in common.

// Rate is operations in a second.
func Rate(m *Measurement) float64 { return m.Rate }

// Throughput is bytes in a second.
func Throughput(m *Measurement) float64 {
	if m.Seconds == 0 {
		return 0
	}
	return float64(m.Bytes) / m.Seconds
}

// CPUPerOp is seconds of the server's processor for an operation.
func CPUPerOp(m *Measurement) float64 {
	if m.Ops == 0 {
		return 0
	}
	return m.ServerCPU / float64(m.Ops)
}

// CPUPerByte is seconds of the server's processor for a byte.
func CPUPerByte(m *Measurement) float64 {
	if m.Bytes == 0 {
		return 0
	}
	return m.ServerCPU / float64(m.Bytes)
}

// P50 and P99 are latencies in microseconds.
func P50(m *Measurement) float64 { return m.Summary.P50 }

// P99 is the 99th percentile.
func P99(m *Measurement) float64 { return m.Summary.P99 }

// P999 is the 99.9th percentile.
func P999(m *Measurement) float64 { return m.Summary.P999 }

// Peak is the most memory of the server during a measurement, in bytes.
func Peak(m *Measurement) float64 { return float64(m.Used.Peak) }

// Extra returns a number of one scenario.
func Extra(name string) func(*Measurement) float64 {
	return func(m *Measurement) float64 { return m.Extra[name] }
}

// print shows a case in a few lines.
func (c *CaseResult) print(w io.Writer) {
	fmt.Fprintf(w, "%s: %s\n", c.Scenario, c.Title)
	for _, name := range c.Contenders() {
		fmt.Fprintf(w, "  %-14s", name)
		if s := c.Of(name, Rate); s.Max() > 0 {
			fmt.Fprintf(w, " %10.0f/s (%.0f to %.0f)", s.Median(), s.Min(), s.Max())
		}
		if s := c.Of(name, Throughput); s.Max() > 0 {
			fmt.Fprintf(w, " %8.1f MB/s", s.Median()/1e6)
		}
		if s := c.Of(name, P99); s.Max() > 0 {
			fmt.Fprintf(w, "  p50 %.0f p99 %.0f µs", c.Of(name, P50).Median(), s.Median())
		}
		if s := c.Of(name, CPUPerOp); s.Max() > 0 {
			fmt.Fprintf(w, "  CPU %.2f µs", s.Median()*1e6)
		}
		for _, r := range c.Runs {
			if r.Contender != name {
				continue
			}
			for k := range r.Extra {
				fmt.Fprintf(w, "  %s %.4g", k, c.Of(name, Extra(k)).Median())
			}
			break
		}
		for _, r := range c.Runs {
			if r.Contender == name && r.Error != "" {
				fmt.Fprintf(w, "  ERROR %s", r.Error)
			}
		}
		fmt.Fprintln(w)
	}
}
