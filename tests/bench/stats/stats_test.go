package stats

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBuckets(t *testing.T) {
	previous := -1
	for _, ns := range []uint64{0, 1, 31, 32, 63, 64, 65, 66, 127, 128, 1000, 1e6, 1e9, 1e12, math.MaxInt64} {
		b := bucket(ns)
		if b < previous || b >= len(Histogram{}.counts) {
			t.Errorf("%d ns: bucket %d after %d", ns, b, previous)
		}
		previous = b
		if got := float64(middle(b)); math.Abs(got-float64(ns)) > float64(ns)*.03 {
			t.Errorf("%d ns is taken for %.0f", ns, got)
		}
	}
}

func TestQuantiles(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var all, half Histogram
	var exact []time.Duration
	for range 20_000 {
		d := time.Duration(math.Exp(rnd.Float64()*20)) * time.Nanosecond
		exact = append(exact, d)
		if rnd.IntN(2) == 0 {
			all.Add(d)
		} else {
			half.Add(d)
		}
	}
	all.Merge(&half)
	slices.Sort(exact)
	if all.Count() != uint64(len(exact)) || all.Max() != exact[len(exact)-1] {
		t.Errorf("%d durations up to %v", all.Count(), all.Max())
	}
	for _, q := range []float64{0, .1, .5, .9, .99, .999, 1} {
		want := exact[min(int(q*float64(len(exact))), len(exact)-1)]
		if got := all.Quantile(q); math.Abs(float64(got-want)) > float64(want)*.03+1 {
			t.Errorf("quantile %g is %v, want %v", q, got, want)
		}
	}
}

func TestEmptyHistogram(t *testing.T) {
	var h Histogram
	if h.Quantile(.5) != 0 || h.Max() != 0 || h.Count() != 0 {
		t.Error("an empty histogram is not zero")
	}
	h.Add(-time.Second)
	if h.Count() != 1 || h.Quantile(1) != 0 {
		t.Error("a negative duration does not count as zero")
	}
}

func TestSample(t *testing.T) {
	for _, c := range []struct {
		s                Sample
		median, min, max float64
	}{
		{nil, 0, 0, 0},
		{Sample{3}, 3, 3, 3},
		{Sample{3, 1, 2}, 2, 1, 3},
		{Sample{4, 1, 3, 2}, 2.5, 1, 4},
	} {
		if c.s.Median() != c.median || c.s.Min() != c.min || c.s.Max() != c.max {
			t.Errorf("%v: %g, %g to %g", c.s, c.s.Median(), c.s.Min(), c.s.Max())
		}
	}
	s := Sample{3, 1, 2}
	s.Median()
	if !slices.Equal(s, Sample{3, 1, 2}) {
		t.Error("the median sorts the sample")
	}
}

func BenchmarkHistogram(b *testing.B) {
	b.ReportAllocs()
	var h Histogram
	for i := range b.N {
		h.Add(time.Duration(i))
	}
}
