// Package stats holds the arithmetic of the benchmarks: histograms of
// durations, medians and ranges.
package stats

import (
	"math/bits"
	"time"
)

// subBits is how many bits of a duration below its highest are told apart: 32
// buckets for each power of two, an error of 3 % at most.
const subBits = 5

// A Histogram counts durations. It costs a few nanoseconds a duration and no
// allocation. One goroutine may use it at a time; the zero value is empty.
type Histogram struct {
	counts [(64 - subBits + 1) << subBits]uint64
	n      uint64
	max    time.Duration
}

// bucket returns the bucket of a duration in nanoseconds.
func bucket(ns uint64) int {
	high := bits.Len64(ns)
	if high <= subBits+1 {
		return int(ns)
	}
	shift := high - subBits - 1
	return shift<<subBits + int(ns>>shift)
}

// middle returns the duration in the middle of a bucket.
func middle(b int) time.Duration {
	if b < 2<<subBits {
		return time.Duration(b)
	}
	shift := b>>subBits - 1
	low := uint64(b-shift<<subBits) << shift
	return time.Duration(low + (1<<shift)/2)
}

// Add counts a duration; a negative one counts as zero.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

// Merge adds what another histogram has counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, c := range other.counts {
		h.counts[i] += c
	}
	h.n += other.n
	h.max = max(h.max, other.max)
}

// Count returns how many durations were added.
func (h *Histogram) Count() uint64 { return h.n }

// Quantile returns a duration that the share q (0 to 1) of all does not
// exceed, to within 3 %; zero if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := min(uint64(q*float64(h.n)), h.n-1)
	var seen uint64
	for b, c := range h.counts {
		if seen += c; seen > rank {
			return min(middle(b), h.max)
		}
	}
	return h.max
}

// Max returns the longest duration, exactly.
func (h *Histogram) Max() time.Duration { return h.max }
