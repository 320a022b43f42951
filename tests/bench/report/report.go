// Package report writes a page about the results of the benchmarks, with tables
// and charts.
package report

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/stats"
	"github.com/zeolite-go/zeolite/tests/bench/suite"
)

// Write reads the results in a directory and writes a page in Markdown, with its
// charts beside it in the directory charts. Directories in it hold results of other
// machines, or of earlier: of those the page has what must hold.
func Write(resultsDir, page string) error {
	cases, err := suite.Read(resultsDir)
	if err != nil {
		return err
	}
	if len(cases) == 0 {
		return fmt.Errorf("no results in %s", resultsDir)
	}
	others, err := readOthers(resultsDir)
	if err != nil {
		return err
	}
	w := &writer{cases: cases, results: byName(cases), others: others, charts: filepath.Join(filepath.Dir(page), "charts")}
	if err := os.MkdirAll(w.charts, 0o777); err != nil {
		return err
	}
	w.head()
	w.bars()
	w.otherMachines()
	w.profiles()
	w.sections()
	return errors.Join(w.err, os.WriteFile(page, []byte(w.text.String()), 0o666))
}

// A writer is a page under construction.
type writer struct {
	cases   []*suite.CaseResult
	results results
	others  []other
	charts  string // directory
	text    strings.Builder
	err     error
}

func (w *writer) printf(format string, args ...any) { fmt.Fprintf(&w.text, format, args...) }

// head says where, when and how calm it was.
func (w *writer) head() {
	var loads stats.Sample
	quick := false
	for _, c := range w.cases {
		quick = quick || c.Quick
		for _, r := range c.Runs {
			loads = append(loads, r.LoadAverage)
		}
	}
	first, last, rounds := span(w.cases)
	w.printf("# Benchmarks\n\n")
	w.printf("Made by `tests/bench/run` from the files in [results](results). What is measured and how stands in\n[README.md](README.md), what follows from it in [SPEED.md](SPEED.md).\n\n")
	w.machines()
	w.printf("- Time: %s to %s UTC, up to %d rounds.\n", first.Format("2006-01-02 15:04"), last.Format("2006-01-02 15:04"), rounds)
	w.printf("- Noise: load average before each turn %.1f to %.1f, median %.1f. %s\n", loads.Min(), loads.Max(), loads.Median(), spread(w.cases))
	if quick {
		w.printf("- Some or all of it is of the quick mode: short turns, few rounds.\n")
	}
	w.printf("\nServers, peers and generator share the CPUs. Contenders take turns; numbers are medians over the rounds, with the\nsmallest and the largest in parentheses; ratios are taken round by round. `M5` is msgpack, `Z5` pickle. CPU is that of\nthe server, for an operation.\n\n")
}

// span says from when to when cases were measured, and in up to how many rounds.
func span(cases []*suite.CaseResult) (first, last time.Time, rounds int) {
	first, last = cases[0].Started, cases[0].Started
	for _, c := range cases {
		if c.Started.Before(first) {
			first = c.Started
		}
		if c.Started.After(last) {
			last = c.Started
		}
		for _, r := range c.Runs {
			rounds = max(rounds, r.Round+1)
		}
	}
	return first, last, rounds
}

// machines names the machine of most cases, and any other with its cases: what
// is compared is always of one machine.
func (w *writer) machines() {
	names := map[suite.Machine][]string{}
	for _, c := range w.cases {
		names[c.Machine] = append(names[c.Machine], c.Scenario+"/"+c.Name)
	}
	all := slices.SortedFunc(maps.Keys(names), func(a, b suite.Machine) int {
		return cmp.Or(cmp.Compare(len(names[b]), len(names[a])), cmp.Compare(a.CPU, b.CPU), cmp.Compare(a.Kernel+a.Go, b.Kernel+b.Go))
	})
	for i, m := range all {
		w.printf("- Machine: %s, %d CPUs, Linux %s, %s", m.CPU, m.CPUs, m.Kernel, m.Go)
		if i > 0 {
			w.printf(", for %s", strings.Join(slices.Sorted(slices.Values(names[m])), ", "))
		}
		w.printf(".\n")
	}
}

// spread says how far apart rounds of the floor are: it does the same each time.
func spread(cases []*suite.CaseResult) string {
	var ratios stats.Sample
	for _, c := range cases {
		if s := c.Of("floor", suite.Rate); s.Min() > 0 {
			ratios = append(ratios, s.Max()/s.Min())
		}
	}
	if len(ratios) == 0 {
		return ""
	}
	return fmt.Sprintf("The bare programs of the floor, which always do the same, differ between rounds by a factor of %.2f (median over the cases; at worst %.2f).",
		ratios.Median(), ratios.Max())
}

// bars writes the table of what must hold.
func (w *writer) bars() {
	w.printf("## What must hold\n\n| work | | bar | msgpack | | pickle | |\n|---|---|---|---|---|---|---|\n")
	for _, b := range bars {
		m, z := b.judged(w.results)
		w.printf("| %s | %s | %s | %s | %s | %s | %s |\n", b.work, b.what, b.limit(), b.value(m), b.verdict(m), b.value(z), b.verdict(z))
	}
	w.printf("\nWhere the time goes in what is missed, and what was tried for it: [by profiles](#where-the-time-goes), and in words in\n" +
		"[SPEED.md](SPEED.md#what-was-not-reached-and-where-the-time-goes).\n\n")
}

// chart writes an image and refers to it.
func (w *writer) chart(name, svg string) {
	if svg == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(w.charts, name+".svg"), []byte(svg), 0o666); err != nil && w.err == nil {
		w.err = err
	}
	w.printf("![%s](charts/%s.svg)\n\n", strings.ReplaceAll(name, "-", " "), name)
}

// growth collects series of the cases whose names match, over a parameter.
func (w *writer) growth(pattern, param string, n number) []series {
	var all []series
	for _, contender := range order {
		s := series{contender: contender}
		for _, c := range w.cases {
			if ok, _ := filepath.Match(pattern, c.Scenario+"-"+c.Name); !ok {
				continue
			}
			if y := c.Of(contender, n); y.Min() > 0 {
				s.points = append(s.points, point{c.Params[param], y})
			}
		}
		slices.SortFunc(s.points, func(a, b point) int { return int(a.x - b.x) })
		if len(s.points) > 0 {
			all = append(all, s)
		}
	}
	return all
}

// group is the bars of one case.
func (w *writer) group(name, title string, n number) barGroup {
	g := barGroup{title: title}
	for _, contender := range order {
		if y := w.results.of(name, contender, n); y.Max() > 0 {
			g.bars = append(g.bars, series{contender, []point{{0, y}}})
		}
	}
	return g
}

// table writes all cases of a scenario.
func (w *writer) table(scenario string) {
	w.printf("<details><summary>All numbers</summary>\n\n| case | server | operations/s | MB/s | p50 | p99 | p99.9 | CPU | peak memory |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, c := range w.cases {
		if c.Scenario != scenario {
			continue
		}
		title := c.Title
		for _, contender := range order {
			rate := c.Of(contender, suite.Rate)
			if len(rate) == 0 && !hasError(c, contender) {
				continue
			}
			w.printf("| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", title, label(contender), ranged(rate), positive(c.Of(contender, suite.Throughput).Median()/1e6, ""),
				micros(c.Of(contender, suite.P50).Median()), micros(c.Of(contender, suite.P99).Median()), micros(c.Of(contender, suite.P999).Median()),
				micros(c.Of(contender, suite.CPUPerOp).Median()*1e6), positive(c.Of(contender, suite.Peak).Median()/(1<<20), " MiB"))
			title = ""
		}
	}
	w.printf("\n</details>\n\n")
}

// extras writes the numbers that only a scenario has.
func (w *writer) extras(name string, columns ...string) {
	c := w.results[name]
	if c == nil {
		return
	}
	w.printf("%s:\n\n| |", c.Title)
	for _, col := range columns {
		w.printf(" %s |", col)
	}
	w.printf("\n|---|%s\n", strings.Repeat("---|", len(columns)))
	for _, contender := range order {
		if len(c.Of(contender, suite.Rate)) == 0 {
			continue
		}
		w.printf("| %s |", label(contender))
		for _, col := range columns {
			w.printf(" %s |", ranged(c.Of(contender, suite.Extra(col))))
		}
		w.printf("\n")
	}
	w.printf("\n")
}

func hasError(c *suite.CaseResult, contender string) bool {
	return slices.ContainsFunc(c.Runs, func(r suite.RunResult) bool { return r.Contender == contender && r.Error != "" })
}

// ranged writes a sample.
func ranged(s stats.Sample) string {
	if s.Max() == 0 {
		return ""
	}
	return fmt.Sprintf("%s (%s to %s)", figure(s.Median()), figure(s.Min()), figure(s.Max()))
}

func positive(x float64, unit string) string {
	if x <= 0 {
		return ""
	}
	return figure(x) + unit
}
