package suite

import (
	"errors"
	"fmt"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/floor"
	"github.com/zeolite-go/zeolite/tests/bench/load"
)

// A shape is what a transaction holds.
type shape struct {
	records int
	size    int64
}

func (c shape) title() string {
	return fmt.Sprintf("commit of %d×%d KiB", c.records, c.size>>10)
}

// inFile is about what a transaction takes in a Data.fs.
func (c shape) inFile() int64 { return int64(c.records)*(c.size+42) + 60 }

// commits measures durable transactions.
func (s *Suite) commits() error {
	shapes := []shape{{1, 1 << 10}, {10, 1 << 10}, {100, 4 << 10}}
	conns := quickOr(s, []int{1, 8, 64}, []int{1, 4, 8, 64})
	return each(shapes, func(c shape) error {
		return each(conns, func(n int) error {
			if s.Quick && c.records > 1 && n == 64 {
				return nil
			}
			return errors.Join(s.commit(c, n, false), s.commit(c, n, true))
		})
	})
}

// commit measures one shape with some connections.
func (s *Suite) commit(c shape, n int, overlap bool) error {
	if overlap && (n == 1 || s.Quick && n*c.records != 8) {
		return nil
	}
	o := s.options()
	o.Conns, o.Size, o.Records, o.Overlap = n, c.size, c.records, overlap
	o.FirstOID = uint64(10_000*c.records + 1)
	kind := map[bool]string{false: "disjoint", true: "overlapping"}[overlap]
	test := Case{
		Scenario: "commits", Name: fmt.Sprintf("%dx%dk-c%d-%s", c.records, c.size>>10, n, kind),
		Title:      fmt.Sprintf("%s, %s, %s objects", c.title(), plural(n, "connection"), kind),
		Params:     map[string]float64{"conns": float64(n), "records": float64(c.records), "size": float64(c.size)},
		Contenders: s.zeo(tcp, o, load.Commits),
	}
	if !overlap {
		test.Contenders = append(test.Contenders, Contender{"floor", func() (Measurement, error) {
			o.Size = c.inFile()
			r, err := floor.Append(o, s.dir)
			if err != nil {
				return Measurement{}, err
			}
			return Measurement{Summary: r.Summary()}, nil
		}})
	}
	return s.run(test)
}

// stalls measures commits while another client has voted and does not finish,
// and while that client waits without a transaction, before and after: what the
// machine does by itself concerns both.
func (s *Suite) stalls() error {
	const stall = time.Second
	o := s.options()
	o.Conns, o.Time = 4, max(o.Time, 2*time.Second)
	return s.run(Case{
		Scenario: "stalls", Name: "c4", Title: "commit of 1×1 KiB, 4 connections, while another client that voted stalls 1 s",
		Params: map[string]float64{"conns": 4},
		Contenders: s.zeoWith(tcp, func(server *Server, encoding string) (Measurement, error) {
			o.Target = server.target(encoding)
			var stalled Measurement
			quiet, share := 0.0, 0.0
			for _, voted := range []bool{false, true, true, false} {
				m, err := server.measure(o, func(o load.Options) (*load.Result, error) {
					return load.StalledCommits(o, stall, voted)
				})
				if err != nil && !(voted && errors.Is(err, errNothing)) {
					return m, err
				}
				if voted {
					stalled = m
					share += m.Rate
				} else {
					quiet += m.Rate
				}
			}
			stalled.Extra = map[string]float64{"quiet rate": quiet / 2, "share": share / quiet}
			return stalled, nil
		}),
	})
}
