package suite

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/zeolite-go/zeolite/tests/bench/load"
)

func turnOf(contender string, round int, rate float64, failed string) RunResult {
	return RunResult{Contender: contender, Round: round, Error: failed, Measurement: Measurement{Summary: load.Summary{Rate: rate}}}
}

func TestCaseResult(t *testing.T) {
	c := &CaseResult{Scenario: "s", Name: "n", Runs: []RunResult{
		turnOf("a", 0, 10, ""), turnOf("b", 0, 5, ""),
		turnOf("b", 1, 4, ""), turnOf("a", 1, 12, ""),
		turnOf("a", 2, 99, "it failed"), turnOf("b", 2, 1, ""),
		turnOf("a", 3, 7, ""), turnOf("b", 3, 0, ""),
	}}
	dir := t.TempDir()
	if err := c.Save(filepath.Join(dir, "s-n.json")); err != nil {
		t.Fatal(err)
	}
	all, err := Read(dir)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d results, %v", len(all), err)
	}
	c = all[0]
	if got := c.Contenders(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("contenders %v", got)
	}
	if got := c.Of("a", Rate); !slices.Equal(got, []float64{10, 12, 7}) {
		t.Errorf("rates of a: %v", got)
	}
	if got := c.Ratios("a", "b", Rate); !slices.Equal(got, []float64{2, 3}) {
		t.Errorf("ratios: %v", got)
	}
}
