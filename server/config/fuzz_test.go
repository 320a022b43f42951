package config

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzParse feeds the parser anything. It must not panic, nor pass its limits,
// and what it says must make sense: errors in order, at lines that exist, or a
// configuration that can be described and has all that a server needs.
func FuzzParse(f *testing.F) {
	paths, err := filepath.Glob("testdata/golden/*.conf")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	for _, text := range handWritten(f.TempDir()) {
		f.Add(text)
	}
	for seed := range uint64(50) {
		g := &generator{Rand: rand.New(rand.NewPCG(seed, 2)), dir: "/d"}
		f.Add(g.file())
	}
	f.Fuzz(func(t *testing.T, text string) {
		l := filesLoader(map[string]string{"a": text, "b": "%include a\n"})
		l.Limits = Limits{ExpandedBytes: 1 << 16, Errors: 10, Files: 8}
		c, err := l.Parse("zeo.conf", strings.NewReader(text))
		if err == nil {
			if len(c.Storages) == 0 || c.ZEO.Address.Network() == "" {
				t.Error("accepted without storage or address")
			}
			for st := range walk(c.Storages) {
				if st.Spec == nil {
					t.Error("storage of no kind")
				}
			}
			if !strings.HasPrefix(c.Describe(), "zeo.conf: ") {
				t.Errorf("described as %q", c.Describe())
			}
			return
		}
		var errs Errors
		if !errors.As(err, &errs) || len(errs) == 0 || len(errs) > 11 {
			t.Fatalf("%#v", err)
		}
		if !slices.IsSortedFunc(errs, func(a, b *Error) int { return a.Pos.compare(b.Pos) }) {
			t.Errorf("not in order:\n%v", err)
		}
		for _, e := range errs {
			if e.Pos.File == "zeo.conf" && e.Pos.Line > strings.Count(text, "\n")+1 {
				t.Errorf("no such line: %v", e)
			}
		}
	})
}
