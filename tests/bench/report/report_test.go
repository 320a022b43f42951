package report

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/load"
	"github.com/zeolite-go/zeolite/tests/bench/stats"
	"github.com/zeolite-go/zeolite/tests/bench/suite"
)

func TestVerdict(t *testing.T) {
	least, most := bar{atLeast: 4}, bar{atMost: .5}
	for _, c := range []struct {
		bar    bar
		sample stats.Sample
		want   string
	}{
		{least, nil, "not measured"},
		{least, stats.Sample{4, 5, 6}, "reached"},
		{least, stats.Sample{3, 5, 6}, "reached, not in every round"},
		{least, stats.Sample{3, 3, 6}, "**missed**: 75 % of it"},
		{most, stats.Sample{.4, .5}, "reached"},
		{most, stats.Sample{.1, .4, .6}, "reached, not in every round"},
		{most, stats.Sample{1}, "**missed**: 2 times as much"},
	} {
		if got := c.bar.verdict(c.sample); got != c.want {
			t.Errorf("%s, %v: %s, want %s", c.bar.limit(), c.sample, got, c.want)
		}
	}
}

func TestFigures(t *testing.T) {
	for x, want := range map[float64]string{0: "0", .1234: "0.12", 1.55: "1.6", 12.34: "12.3", 123.4: "123", 1234567: "1,234,567", -1234: "-1,234"} {
		if got := figure(x); got != want {
			t.Errorf("%g: %s, want %s", x, got, want)
		}
	}
	for x, want := range map[float64]string{0: "", 5: "5 µs", 1500: "1.5 ms", 2e6: "2 s"} {
		if got := micros(x); got != want {
			t.Errorf("%g µs: %s, want %s", x, got, want)
		}
	}
	for x, want := range map[float64]string{.5: "0.5", 20: "20", 2000: "2k", 5e6: "5M", 1e9: "1G"} {
		if got := short(x); got != want {
			t.Errorf("%g: %s, want %s", x, got, want)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		low, high float64
		want      int
	}{{1, 10, 4}, {3, 4, 0}, {1, 100_000, 6}, {150, 2500, 4}} {
		l := newLogScale(c.low, c.high, 0, 1)
		if got := l.ticks(); len(got) != c.want {
			t.Errorf("%g to %g: ticks at %v, want %d", c.low, c.high, got, c.want)
		}
		if l.at(c.low) < 0 || l.at(c.high) > 1 || l.at(c.low) >= l.at(c.high) {
			t.Errorf("%g to %g: from %g to %g", c.low, c.high, l.at(c.low), l.at(c.high))
		}
	}
}

// measured is a case of two contenders in two rounds.
func measured(scenario, name string, ours, theirs float64) *suite.CaseResult {
	c := &suite.CaseResult{Scenario: scenario, Name: name, Title: scenario + " <" + name + ">", Params: map[string]float64{"conns": 4}, Started: time.Now()}
	for round := range 2 {
		for contender, rate := range map[string]float64{"zeolite M5": ours, "python M5": theirs} {
			c.Runs = append(c.Runs, suite.RunResult{Contender: contender, Round: round,
				Measurement: suite.Measurement{Summary: load.Summary{Ops: 1, Seconds: 1, Rate: rate * float64(round+1)}}})
		}
	}
	return c
}

// TestWrite makes a page from results of three machines, and looks for what it must hold.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	before := measured("commits", "10x1k-c1-disjoint", 50, 100)
	before.Machine.CPU = "another processor"
	for _, c := range []*suite.CaseResult{measured("loads", "1k-c4-d16", 500, 100), measured("commits", "1x1k-c1-disjoint", 50, 100), before} {
		if err := c.Save(filepath.Join(dir, c.Scenario+"-"+c.Name+".json")); err != nil {
			t.Fatal(err)
		}
	}
	profile := &suite.CaseResult{Scenario: "profiles", Name: "commit-c1", Title: "a commit", Started: time.Now(), Runs: []suite.RunResult{
		{Contender: "zeolite M5", Measurement: suite.Measurement{Extra: map[string]float64{"cpu zrpc": 1, "cpu storage": 2, "wait disk: the log": 1500, "turn": 2000}}}}}
	if err := profile.Save(filepath.Join(dir, "profiles-commit-c1.json")); err != nil {
		t.Fatal(err)
	}
	elsewhere := measured("commits", "1x1k-c1-disjoint", 300, 100)
	elsewhere.Machine.CPU = "a third processor"
	if err := os.Mkdir(filepath.Join(dir, "third"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := elsewhere.Save(filepath.Join(dir, "third", "commits-1x1k-c1-disjoint.json")); err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(dir, "out", "REPORT.md")
	if err := os.Mkdir(filepath.Dir(page), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, page); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| loads 1 KiB, 4 connections, depth 16 | rate, of Python's | at least 4 | 5 (5 to 5) | reached |",
		"| commits 1×1 KiB, durable, 1 connection | rate, of Python's | at least 2 | 0.5 (0.5 to 0.5) | **missed**: 25 % of it |",
		"- third: a third processor, 0 CPUs",
		"| commits 1×1 KiB, durable, 1 connection | rate, of Python's | at least 2 | **0.5** |  | 3 |  |",
		"| a commit |  |  |  |  | 1 µs |  |  | 2 µs |  | 3 µs |",
		"| a commit | 1.5 ms |  |  |  |  |  |  |  | 2 ms |",
		"charts/loads-1k-d16.svg",
		", for commits/10x1k-c1-disjoint.\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page does not hold %q", want)
		}
	}
	charts, err := filepath.Glob(filepath.Join(dir, "out", "charts", "*.svg"))
	if err != nil || len(charts) < 2 {
		t.Fatalf("charts: %v, %v", charts, err)
	}
	for _, name := range charts {
		wellFormed(t, name)
	}
}

func wellFormed(t *testing.T, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := xml.NewDecoder(f)
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Errorf("%s: %v", filepath.Base(name), err)
			return
		}
	}
}

func TestNoResults(t *testing.T) {
	if err := Write(t.TempDir(), filepath.Join(t.TempDir(), "REPORT.md")); err == nil {
		t.Error("no error without results")
	}
}
