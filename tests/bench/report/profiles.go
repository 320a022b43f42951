package report

import (
	"slices"
	"strings"

	"github.com/zeolite-go/zeolite/tests/bench/profile"
	"github.com/zeolite-go/zeolite/tests/bench/suite"
)

// profiled is the contender that profiles are of.
const profiled = "zeolite M5"

// profiles writes where the time goes.
func (w *writer) profiles() {
	names := w.profileNames()
	if len(names) == 0 {
		return
	}
	w.printf("## Where the time goes\n\nOf zeolite alone, in msgpack, by Go's profiles. What was tried where a bar is missed stands in\n[SPEED.md](SPEED.md#what-was-not-reached-and-where-the-time-goes).\n\n")
	w.printf("Time of the server's processors, for one:\n\n")
	w.profileTable(names, "cpu ", profile.Parts, "all", func(name string) float64 {
		sum := 0.0
		for _, part := range profile.Parts {
			sum += w.profile(name, "cpu "+part)
		}
		return sum
	})
	w.printf("What the server's goroutines wait for, for one, by a trace. Several can wait at once: they are added up. Only for a\n" +
		"single client that waits itself, so not for downloads, do the waits and the time of the processor make up the last column, which\n" +
		"is the time from one to the next.\n\n")
	w.profileTable(names, "wait ", profile.Waits, "from one to the next", func(name string) float64 { return w.profile(name, "turn") })
}

// profileNames are the cases, in the order in which they were measured.
func (w *writer) profileNames() (names []string) {
	cases := slices.Clone(w.cases)
	slices.SortStableFunc(cases, func(a, b *suite.CaseResult) int { return a.Started.Compare(b.Started) })
	for _, c := range cases {
		if c.Scenario == "profiles" {
			names = append(names, "profiles-"+c.Name)
		}
	}
	return names
}

func (w *writer) profile(name, what string) float64 {
	return w.results.of(name, profiled, suite.Extra(what)).Median()
}

// profileTable writes a row for each case.
func (w *writer) profileTable(names []string, prefix string, columns []string, last string, lastOf func(name string) float64) {
	w.printf("| | %s | %s |\n|---|%s---|\n", strings.Join(columns, " | "), last, strings.Repeat("---|", len(columns)))
	for _, name := range names {
		w.printf("| %s |", w.results[name].Title)
		for _, column := range columns {
			w.printf(" %s |", micros(w.profile(name, prefix+column)))
		}
		w.printf(" %s |\n", micros(lastOf(name)))
	}
	w.printf("\n")
}
