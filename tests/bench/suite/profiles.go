package suite

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/load"
	"github.com/zeolite-go/zeolite/tests/bench/profile"
)

// profileUnit is the size of the blob that one download or upload is counted as.
const profileUnit = 64 << 20

// profiles says where the time goes in what others are compared with.
func (s *Suite) profiles() error {
	if !s.has("zeolite") {
		return nil
	}
	each1 := func(r *load.Result) float64 { return float64(r.Ops) }
	each64MiB := func(r *load.Result) float64 { return float64(r.Bytes) / profileUnit }
	return each([]profiledWork{
		{"load-c4-d16", "load of 1 KiB, 4 connections, depth 16", load.Options{Conns: 4, Depth: 16, Objects: 4096}, load.Loads, each1, 0},
		{"load-c1-d1", "load of 1 KiB, 1 connection, depth 1", load.Options{Objects: 4096}, load.Loads, each1, 0},
		{"commit-c1", "commit of 1×1 KiB, 1 connection", load.Options{FirstOID: 10_001}, load.Commits, each1, 0},
		{"commit-c8", "commit of 1×1 KiB, 8 connections", load.Options{Conns: 8, FirstOID: 10_001}, load.Commits, each1, 0},
		{"invalidation-c64", "commit of 1×1 KiB every 20 ms, invalidations to 64 listeners", load.Options{Conns: 64, FirstOID: 20_001},
			func(o load.Options) (*load.Result, error) { return load.FanOut(o, 20*time.Millisecond) },
			func(r *load.Result) float64 { return float64(r.Ops) / 64 }, 1},
		{"get-c1", "download of 64 MiB, 1 connection", load.Options{Size: profileUnit, FirstOID: 30_001}, load.BlobGets, each64MiB, 0},
		{"get-c4", "download of 64 MiB, 4 connections", load.Options{Conns: 4, Size: profileUnit, FirstOID: 30_001}, load.BlobGets, each64MiB, 0},
		{"get-mixed", "download of 64 MiB, with a load every 2 ms on the same connection", load.Options{Objects: 1000, Pace: pace, FirstOID: 40_001},
			func(o load.Options) (*load.Result, error) {
				r, err := load.MixedWork(o, quickOr[int64](s, 128<<20, 1<<30))
				if err != nil {
					return nil, err
				}
				return &r.Blob, nil
			}, each64MiB, 0},
		{"put-c1", "upload of 64 MiB, 1 connection", load.Options{Size: profileUnit, FirstOID: 50_001}, load.BlobPuts, each64MiB, 0},
	}, func(w profiledWork) error {
		w.o.Conns = max(w.o.Conns, 1)
		w.clients = cmp.Or(w.clients, w.o.Conns)
		return s.run(Case{
			Scenario: "profiles", Name: w.name, Title: w.title, Params: map[string]float64{"conns": float64(w.o.Conns)},
			Contenders: []Contender{{"zeolite M5", func() (Measurement, error) {
				server, err := s.start(profiled, tcp, 0)
				if err != nil {
					return Measurement{}, err
				}
				w.o.Target = server.target("M5")
				w.o.Warmup = s.options().Warmup
				return w.measure(server, s.Time)
			}}},
		})
	})
}

// profiledWork is work of which profiles are taken.
type profiledWork struct {
	name, title string
	o           load.Options
	do          func(load.Options) (*load.Result, error)
	count       func(*load.Result) float64 // of units of work
	clients     int                        // that do one after another; all connections by default
}

// traceTime is for a trace, which has every event in it.
const traceTime = time.Second

// measure takes a profile of the processor and, in another run, since it costs
// more, a trace. Both are in microseconds for a unit of work. The turn is from the
// end of one to the end of the next of a client, with the trace.
func (w *profiledWork) measure(server *Server, d time.Duration) (Measurement, error) {
	m := Measurement{Extra: map[string]float64{}}
	file := filepath.Join(server.dir, "profile")
	units, err := w.run(server, "profile", max(d.Round(time.Second), time.Second), file)
	if err != nil {
		return m, err
	}
	stacks, err := profile.CPU(file)
	if err != nil {
		return m, err
	}
	for part, d := range profile.Sum(stacks, profile.Part) {
		m.Extra["cpu "+part] = micros(d) / units
	}
	if units, err = w.run(server, "trace", traceTime, file); err != nil {
		return m, err
	}
	for _, kind := range []string{profile.Syscall, profile.Network, profile.Scheduler} {
		stacks, err := profile.Waiting(file, kind)
		if err != nil {
			return m, err
		}
		for what, d := range profile.Sum(stacks, func(functions []string) string { return profile.Wait(kind, functions) }) {
			m.Extra["wait "+what] += micros(d) / units
		}
	}
	m.Extra["turn"] = float64(w.clients) * micros(traceTime) / units
	return m, nil
}

// run does the work while the server writes a profile of itself, and returns how
// many units it did in that time.
func (w *profiledWork) run(server *Server, what string, d time.Duration, file string) (units float64, err error) {
	o := w.o
	o.Time = d + d/10 + 200*time.Millisecond // the profile begins a little later
	var once sync.Once
	taken := make(chan error, 1)
	o.Probe = func() { once.Do(func() { go func() { taken <- server.profile(what, d, file) }() }) }
	r, err := w.do(o)
	if err != nil {
		return 0, err
	}
	if err := <-taken; err != nil {
		return 0, err
	}
	if units = w.count(r) / r.Seconds * d.Seconds(); units == 0 {
		return 0, errNothing
	}
	return units, nil
}

// profile asks the server for a profile of itself.
func (server *Server) profile(what string, d time.Duration, file string) error {
	reply, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/%s?seconds=%d", server.http, what, int(d.Seconds())))
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, reply.Body)
	if err == nil && reply.StatusCode != http.StatusOK {
		err = fmt.Errorf("the profile %s: %s", what, reply.Status)
	}
	return errors.Join(err, f.Close())
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
