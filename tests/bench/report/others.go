package report

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/zeolite-go/zeolite/tests/bench/stats"
	"github.com/zeolite-go/zeolite/tests/bench/suite"
)

// other is what was measured on another machine. What is compared is always of one
// machine, so it is a column of its own.
type other struct {
	name    string // of the directory
	cases   []*suite.CaseResult
	results results
}

// readOthers reads the directories in a directory of results, in the order of
// their names.
func readOthers(dir string) ([]other, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var others []other
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		cases, err := suite.Read(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if len(cases) > 0 {
			others = append(others, other{e.Name(), cases, byName(cases)})
		}
	}
	return others, nil
}

// otherMachines writes what must hold, and what of it held elsewhere.
func (w *writer) otherMachines() {
	if len(w.others) == 0 {
		return
	}
	w.printf("### On other machines\n\nWhich bars are reached depends on the machine. The same work elsewhere, msgpack and pickle; what is missed is bold:\n\n")
	for _, o := range w.others {
		first, last, rounds := span(o.cases)
		m := o.cases[0].Machine
		w.printf("- %s: %s, %d CPUs, Linux %s, %s; %s to %s UTC, up to %d rounds. %s\n", o.name, m.CPU, m.CPUs, m.Kernel, m.Go,
			first.Format("2006-01-02 15:04"), last.Format("2006-01-02 15:04"), rounds, spread(o.cases))
	}
	w.printf("\n| work | | bar | here | |")
	for _, o := range w.others {
		w.printf(" %s | |", o.name)
	}
	w.printf("\n|---|---|---|---|---|%s\n", strings.Repeat("---|---|", len(w.others)))
	for _, b := range bars {
		w.printf("| %s | %s | %s |", b.work, b.what, b.limit())
		for _, r := range append([]results{w.results}, w.otherResults()...) {
			m, z := b.judged(r)
			w.printf(" %s | %s |", b.marked(m), b.marked(z))
		}
		w.printf("\n")
	}
	w.printf("\n")
}

func (w *writer) otherResults() (all []results) {
	for _, o := range w.others {
		all = append(all, o.results)
	}
	return all
}

// marked is the median, bold if the bar is missed.
func (b bar) marked(s stats.Sample) string {
	switch {
	case len(s) == 0:
		return ""
	case b.holds(s.Median()):
		return figure(s.Median()) + b.unit
	}
	return fmt.Sprintf("**%s**", figure(s.Median())+b.unit)
}
