package suite

import (
	"errors"
	"maps"
	"slices"
	"testing"
)

// TestThereAndBack: each step is done twice, in the order A B B A, and what the
// machine does as time goes on is in none of the ratios.
func TestThereAndBack(t *testing.T) {
	var order []string
	now := 0.0 // everything becomes slower with each step
	step := func(name string, take func(m Measurement, drift float64)) func(Measurement) error {
		return func(m Measurement) error {
			order = append(order, name)
			now++
			take(m, now)
			return nil
		}
	}
	m, err := thereAndBack([]func(Measurement) error{
		step("loads", func(m Measurement, drift float64) { m.Extra["p99 "+quietly] = 10 + drift }),
		step("stream", func(m Measurement, drift float64) { m.Extra["MB/s "+alone] = 100 - drift }),
		step("both", func(m Measurement, drift float64) {
			m.Extra["p99 beside"], m.Extra["MB/s beside"] = 20+2*drift, 50-drift/2
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"loads", "stream", "both", "both", "stream", "loads"}; !slices.Equal(order, want) {
		t.Errorf("measured %v", order)
	}
	want := map[string]float64{
		"p99 " + quietly: 13.5, "MB/s " + alone: 96.5, "p99 beside": 27, "MB/s beside": 48.25,
		"p99 ratio beside": 2, "rate ratio beside": .5,
	}
	if !maps.Equal(m.Extra, want) {
		t.Errorf("%v, want %v", m.Extra, want)
	}

	broken := errors.New("the server is gone")
	if _, err := thereAndBack([]func(Measurement) error{func(Measurement) error { return broken }}); !errors.Is(err, broken) {
		t.Errorf("a step that fails: %v", err)
	}
}
