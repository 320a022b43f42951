package suite

import (
	"errors"
	"os"
	"testing"
)

// TestStop stops a run in the middle of a case: no turn follows, of that case or
// another, and nothing of it is kept.
func TestStop(t *testing.T) {
	stop := make(chan struct{})
	turns := 0
	contender := Contender{"zeolite", func() (Measurement, error) {
		if turns++; turns == 2 {
			close(stop)
		}
		return Measurement{}, nil
	}}
	first := Case{Scenario: "s", Name: "first", Contenders: []Contender{contender, contender}}
	second := Case{Scenario: "s", Name: "second", Contenders: []Contender{contender}}

	before := scenarios
	defer func() { scenarios = before }()
	scenarios = []func(*Suite) error{
		func(s *Suite) error { return s.run(first) },
		func(s *Suite) error { return s.run(second) },
	}
	dir := t.TempDir()
	err := Run(Config{Results: dir, Rounds: 3, Scratch: t.TempDir(), Stop: stop})
	if !errors.Is(err, ErrStopped) {
		t.Errorf("the run ended with %v", err)
	}
	if turns != 2 {
		t.Errorf("%d turns", turns)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("kept %v, %v", files, err)
	}
}
