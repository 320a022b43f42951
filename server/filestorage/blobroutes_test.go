package filestorage

import (
	"testing"
	"time"
)

// upload is an upload of 64 MiB that waits so many milliseconds for the disk.
func (r *blobRoutes) upload(through, past time.Duration) (route int) {
	trip := r.begin(blobDirect)
	trip.waited = []time.Duration{through, past}[trip.route] * time.Millisecond
	trip.durable(64 << 20)
	trip.end()
	return trip.route
}

// The route that lets uploads wait less is taken, past the cache rather than
// through it, and now and then the other one is tried: a disk that has changed is
// noticed.
func TestBlobRoutes(t *testing.T) {
	var r blobRoutes
	count := func(n int, through, past time.Duration) (direct int) {
		for range n {
			direct += r.upload(through, past)
		}
		return direct
	}
	if first, second := r.upload(100, 100), r.upload(100, 100); first != pastCache || second != throughCache {
		t.Errorf("the first two uploads take the routes %d and %d", first, second)
	}
	const rounds = 10
	n := rounds * (blobTrial + 1)
	for _, c := range []struct {
		what          string
		through, past time.Duration
		direct        int
	}{
		{"as fast as the other", 100, 100, n - rounds},
		{"a little slower", 100, 120, n - rounds},
		{"half as fast", 100, 200, rounds},
		{"as fast as that again", 200, 200, n - rounds},
		{"much faster", 200, 1, n - rounds},
		{"of no wait at all", 0, 0, n - rounds},
	} {
		count(20*(blobTrial+1), c.through, c.past) // the disk has changed
		if direct := count(n, c.through, c.past); direct != c.direct {
			t.Errorf("a route past the cache that is %s is taken by %d of %d uploads, not %d", c.what, direct, n, c.direct)
		}
	}
	if r.direct != 0 || r.large != 0 {
		t.Errorf("%d uploads past the cache, of %d, have not ended", r.direct, r.large)
	}
}

// What uploads wait that share the disk, are small, fail, or are refused, tells
// nothing of the routes.
func TestBlobRoutesMeasured(t *testing.T) {
	var r blobRoutes
	first, second := r.begin(blobDirect), r.begin(blobDirect)
	first.durable(64 << 20)
	first.end()
	second.durable(64 << 20)
	second.end()
	small := r.begin(blobDirect)
	small.durable(blobDirect + blobMeasure - 1)
	small.end()
	refused := r.begin(blobDirect)
	refused.refused()
	refused.durable(64 << 20)
	refused.end()
	r.begin(blobDirect).end()
	if r.waits != [2]float64{} {
		t.Errorf("measured: %v", r.waits)
	}
	alone := r.begin(blobDirect)
	alone.durable(64 << 20)
	alone.end()
	if r.waits[alone.route] == 0 {
		t.Error("an upload that was alone is not measured")
	}
}
