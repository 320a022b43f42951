package suite

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/load"
	"github.com/zeolite-go/zeolite/tests/bench/process"
)

// fanOut measures how fast others hear of a commit: of one object, and for 64
// listeners also of 64.
func (s *Suite) fanOut() error {
	return each([]struct {
		name           string
		conns, records int
		every          time.Duration
	}{
		{"c4", 4, 1, 20 * time.Millisecond},
		{"c64", 64, 1, 20 * time.Millisecond},
		{"c1000", 1000, 1, 100 * time.Millisecond},
		{"64-objects-c64", 64, 64, 20 * time.Millisecond},
	}, func(c struct {
		name           string
		conns, records int
		every          time.Duration
	}) error {
		o := s.options()
		o.Conns, o.Records = c.conns, c.records
		return s.run(Case{
			Scenario: "invalidations", Name: c.name,
			Title: fmt.Sprintf("from the call of tpc_finish to the invalidation, %d listeners, a commit of %s every %v",
				c.conns, plural(c.records, "object"), c.every),
			Params: map[string]float64{"conns": float64(c.conns), "records": float64(c.records)},
			Contenders: s.zeoWith(tcp, func(server *Server, encoding string) (Measurement, error) {
				o.Target = server.target(encoding)
				var read time.Duration
				m, err := server.measure(o, func(o load.Options) (*load.Result, error) {
					r, err := load.FanOut(o, c.every)
					if err == nil {
						read = r.Read.Quantile(.5)
					}
					return r, err
				})
				m.Extra = map[string]float64{"p50 read": float64(read.Nanoseconds()) / 1000}
				return m, err
			}),
		})
	})
}

// files is how many files this process, and a server, may have open.
const files = 1 << 20

// raiseFiles lets this process, and those it starts, open as many files as the
// machine allows.
func raiseFiles() (allowed uint64, err error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	raised := syscall.Rlimit{Cur: files, Max: max(files, limit.Max)}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
		return raised.Cur, nil
	}
	limit.Cur = limit.Max
	return limit.Cur, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// idle measures connections that do nothing.
func (s *Suite) idle() error {
	allowed, err := raiseFiles()
	if err != nil {
		return err
	}
	return each(quickOr(s, []int{10_000}, []int{100, 1000, 10_000}), func(n int) error {
		if uint64(n)+100 > allowed {
			return fmt.Errorf("%d connections: only %d files may be open", n, allowed)
		}
		o := s.options()
		o.Conns = n
		return s.run(Case{
			Scenario: "idle", Name: fmt.Sprintf("c%d", n), Title: fmt.Sprintf("%d idle connections", n),
			Params: map[string]float64{"conns": float64(n)},
			Contenders: s.zeoWith(tcp, func(server *Server, encoding string) (Measurement, error) {
				o.Target = server.target(encoding)
				m, err := idling(server, o)
				return m, errors.Join(err, s.stopAll()) // the next one has a fresh server
			}),
		})
	})
}

func idling(server *Server, o load.Options) (Measurement, error) {
	before, err := process.MemoryOf(server.PID)
	if err != nil {
		return Measurement{}, err
	}
	m := Measurement{Extra: map[string]float64{}}
	start := time.Now()
	err = load.Idle(o, func() error {
		m.Extra["seconds to connect"] = time.Since(start).Seconds()
		after, err := process.MemoryOf(server.PID)
		m.Resident, m.Peak = after.Resident, after.Peak
		m.Extra["resident MiB"] = float64(after.Resident) / (1 << 20)
		m.Extra["KiB for each"] = float64(after.Resident-before.Resident) / 1024 / float64(o.Conns)
		return err
	})
	return m, err
}
