package main

import (
	"fmt"
	"math"
	"testing"
)

func TestSize(t *testing.T) {
	for text, want := range map[string]size{"1": 1, "1048576": 1 << 20, "512KiB": 512 << 10, "1.5MiB": 3 << 19, "1G": 1 << 30, "3kB": 3 << 10} {
		var s size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("Set(%q) = %d, %v, want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "0", "1X", "1KM", "MiB", "1e30", "NaN", fmt.Sprint(uint64(math.MaxInt) + 1)} {
		var s size
		if err := s.Set(text); err == nil {
			t.Errorf("Set(%q) = %d, want an error", text, s)
		}
	}
}
