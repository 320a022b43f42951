package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/zeolite-go/zeolite/tests/bench/stats"
	"github.com/zeolite-go/zeolite/tests/bench/suite"
)

// results are cases by scenario-name.
type results map[string]*suite.CaseResult

func byName(cases []*suite.CaseResult) results {
	r := results{}
	for _, c := range cases {
		r[c.Scenario+"-"+c.Name] = c
	}
	return r
}

func (r results) of(name, contender string, n number) stats.Sample {
	if c := r[name]; c != nil {
		return c.Of(contender, n)
	}
	return nil
}

func (r results) ratios(name, a, b string, n number) stats.Sample {
	if c := r[name]; c != nil {
		return c.Ratios(a, b, n)
	}
	return nil
}

// figure writes a number with three digits.
func figure(x float64) string {
	switch a := math.Abs(x); {
	case a == 0:
		return "0"
	case a >= 100:
		return thousands(int64(math.Round(x)))
	case a >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2g", x)
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	var b strings.Builder
	for i, c := range s {
		if i > 0 && (len(s)-i)%3 == 0 && s[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// micros writes microseconds in the unit that reads best.
func micros(x float64) string {
	switch {
	case x == 0:
		return ""
	case x >= 1e6:
		return figure(x/1e6) + " s"
	case x >= 1e3:
		return figure(x/1e3) + " ms"
	}
	return figure(x) + " µs"
}
