package suite

import (
	"errors"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/load"
	"github.com/zeolite-go/zeolite/tests/bench/process"
)

// pace is how often a client loads an object while the server is busy with
// something else.
const pace = 2 * time.Millisecond

// streams measures loads while a blob is downloaded, on the same connection and
// on another one, and what they cost the download.
func (s *Suite) streams() error {
	o := s.options()
	o.Objects = 1000
	size := quickOr[int64](s, 128<<20, 1<<30)
	phases := []struct {
		name string
		what load.Mixed
	}{
		{"quiet", load.Mixed{Loads: true}},
		{"alone", load.Mixed{BlobSize: size}},
		{"same connection", load.Mixed{Loads: true, BlobSize: size, SameConnection: true}},
		{"another connection", load.Mixed{Loads: true, BlobSize: size}},
	}
	return s.run(Case{
		Scenario: "streams", Name: "loads", Title: "loads of 1 KiB, one every 2 ms, while a blob is downloaded over and over",
		Params: map[string]float64{"size": float64(size)},
		Contenders: s.zeoWith(tcp, func(server *Server, encoding string) (Measurement, error) {
			o.Target = server.target(encoding)
			m := Measurement{Extra: map[string]float64{}}
			for _, phase := range phases {
				phase.what.Pace = pace
				r, err := load.MixedWork(o, phase.what)
				if err != nil {
					return m, err
				}
				if phase.what.Loads {
					if r.Loads.Ops == 0 {
						return m, errNothing
					}
					m.Extra["p99 "+phase.name] = r.Loads.Summary().P99
					m.Extra["p50 "+phase.name] = r.Loads.Summary().P50
				}
				if phase.what.BlobSize > 0 {
					m.Extra["MB/s "+phase.name] = float64(r.Blob.Bytes) / 1e6 / r.Blob.Seconds
				}
			}
			for _, where := range []string{"same connection", "another connection"} {
				m.Extra["p99 ratio "+where] = m.Extra["p99 "+where] / m.Extra["p99 quiet"]
				m.Extra["rate ratio "+where] = m.Extra["MB/s "+where] / m.Extra["MB/s alone"]
			}
			return m, nil
		}),
	})
}

var errNothing = errors.New("nothing was done in the time")

// slowReaders measures clients that ask for much and read slowly: what they
// cost in memory, and what others notice.
func (s *Suite) slowReaders() error {
	slow := load.Slow{Readers: 8, Rate: 1 << 20, Loads: 50_000}
	blobs := slow
	blobs.BlobSize = quickOr[int64](s, 16<<20, 64<<20)
	return each([]struct {
		name, title string
		what        load.Slow
	}{
		{"loads", "8 readers ask for 50,000 loads of 1 KiB each and read at 1 MiB/s", slow},
		{"blobs", "8 readers download blobs and read at 1 MiB/s", blobs},
	}, func(c struct {
		name, title string
		what        load.Slow
	}) error {
		o := s.options()
		o.Objects, o.Time = 1000, max(o.Time, time.Second)
		return s.run(Case{
			Scenario: "slow", Name: c.name, Title: c.title, Params: map[string]float64{"conns": 8},
			Contenders: s.zeoWith(tcp, func(server *Server, encoding string) (Measurement, error) {
				o.Target = server.target(encoding)
				m, err := slowReading(server, o, c.what)
				return m, errors.Join(err, s.stopAll()) // the next one has a fresh server
			}),
		})
	})
}

func slowReading(server *Server, o load.Options, what load.Slow) (Measurement, error) {
	quiet, err := load.SlowReaders(o, load.Slow{BlobSize: what.BlobSize}, pace)
	if err != nil {
		return Measurement{}, err
	}
	before, err := process.MemoryOf(server.PID)
	if err != nil {
		return Measurement{}, err
	}
	_ = process.ResetPeak(server.PID) // else the growth is one since the start
	r, err := load.SlowReaders(o, what, pace)
	if err != nil {
		return Measurement{}, err
	}
	after, err := process.MemoryOf(server.PID)
	return Measurement{Summary: r.Summary(), Extra: map[string]float64{
		"growth MiB": float64(after.Peak-before.Resident) / (1 << 20),
		"p99 quiet":  quiet.Summary().P99,
		"p99 ratio":  r.Summary().P99 / quiet.Summary().P99,
	}}, err
}
