package suite

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/floor"
	"github.com/zeolite-go/zeolite/tests/bench/load"
	"github.com/zeolite-go/zeolite/tests/bench/process"
)

// pace is how often a client loads an object while the server is busy with
// something else.
const pace = 2 * time.Millisecond

// streams measures loads while a blob is downloaded, on the same connection and
// on another one, and what they cost the download. The floor is an exchange of
// as many bytes, in a process of its own, beside bare sendfile.
func (s *Suite) streams() error {
	o := s.options()
	o.Objects, o.Pace = 1000, pace
	size := quickOr[int64](s, 128<<20, 1<<30)
	contenders := s.zeoWith(tcp, func(server *Server, encoding string) (Measurement, error) {
		o := o
		o.Target = server.target(encoding)
		steps := besideStream(o, "load", func(o load.Options) (*load.Result, error) { return load.Streams(o, size) })
		return thereAndBack(append(steps, func(m Measurement) error {
			r, err := load.MixedWork(o, size)
			if err != nil {
				return err
			}
			takeLoads(m, "same connection", r.Loads.Summary())
			return takeStream(m, "same connection", &r.Blob)
		}))
	})
	contenders = append(contenders, Contender{"floor", func() (Measurement, error) {
		server, err := s.start("floor", tcp, 0)
		if err != nil {
			return Measurement{}, err
		}
		// Another process, since what the machine does is asked for, and not
		// what Go's scheduler does.
		other, err := s.start("floor", tcp, 1)
		if err != nil {
			return Measurement{}, err
		}
		o := o
		o.Target = other.target("")
		return thereAndBack(besideStream(o, "echo", func(o load.Options) (*load.Result, error) {
			o.Target, o.Size, o.Pace = server.target(""), size, 0
			return floor.Send(o)
		}))
	}})
	return s.run(Case{
		Scenario: "streams", Name: "loads", Title: "loads of 1 KiB, one every 2 ms, while a blob is downloaded over and over",
		Params:     map[string]float64{"size": float64(size)},
		Contenders: contenders,
	})
}

// besideStream returns how to measure loads alone, a stream alone, and both, on
// connections of their own. The loads come from a process of their own, because
// the scheduler of a Go program that receives at full speed notices other
// replies late: it would measure itself.
func besideStream(o load.Options, work string, stream func(load.Options) (*load.Result, error)) []func(Measurement) error {
	return []func(Measurement) error{
		func(m Measurement) error {
			s, err := quietLoads(o, work)
			if err != nil {
				return err
			}
			takeLoads(m, quietly, s)
			return nil
		},
		func(m Measurement) error {
			r, err := stream(o)
			if err != nil {
				return err
			}
			return takeStream(m, alone, r)
		},
		func(m Measurement) error {
			beside, err := startApart(o, work)
			if err != nil {
				return err
			}
			o := o
			o.Ready = beside.begin
			r, err := stream(o)
			if err := errors.Join(err, beside.take(m, "another connection")); err != nil {
				return err
			}
			return takeStream(m, "another connection", r)
		},
	}
}

// What others are compared with: loads while nothing else is done, and a stream
// without loads.
const (
	quietly = "quiet"
	alone   = "alone"
)

// thereAndBack measures step by step, then in the opposite order, and returns the
// means and how they compare: what the machine does by itself, as time goes on,
// concerns all of them alike.
func thereAndBack(steps []func(Measurement) error) (Measurement, error) {
	m := Measurement{Extra: map[string]float64{}}
	for i := range 2 * len(steps) {
		once := Measurement{Extra: map[string]float64{}}
		if err := steps[min(i, 2*len(steps)-1-i)](once); err != nil {
			return m, err
		}
		for name, x := range once.Extra {
			m.Extra[name] += x / 2
		}
	}
	for name, x := range maps.Clone(m.Extra) {
		if where, ok := strings.CutPrefix(name, "p99 "); ok && where != quietly {
			m.Extra["p99 ratio "+where] = x / m.Extra["p99 "+quietly]
		}
		if where, ok := strings.CutPrefix(name, "MB/s "); ok && where != alone {
			m.Extra["rate ratio "+where] = x / m.Extra["MB/s "+alone]
		}
	}
	return m, nil
}

// takeLoads and takeStream put what was measured into the result.
func takeLoads(m Measurement, where string, s load.Summary) {
	m.Extra["p50 "+where], m.Extra["p99 "+where] = s.P50, s.P99
}

func takeStream(m Measurement, where string, r *load.Result) error {
	if r.Bytes == 0 {
		return errNothing
	}
	m.Extra["MB/s "+where] = float64(r.Bytes) / 1e6 / r.Seconds
	return nil
}

// An apart is the generator in a process of its own (bench load), that waits to
// begin.
type apart struct {
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Reader
}

func startApart(o load.Options, work string) (*apart, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"load", "-work", work, "-a", o.Address, "-conns", "1", "-objects", fmt.Sprint(o.Objects),
		"-warmup", o.Warmup.String(), "-time", o.Time.String(), "-pace", o.Pace.String(), "-ready"}
	if o.Encoding != 0 {
		args = append(args, "-encoding", string(rune(o.Encoding)))
	}
	cmd := exec.Command(self, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	a := &apart{cmd, in, bufio.NewReader(out)}
	if _, err := a.out.ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("bench load: %w", err), cmd.Wait())
	}
	return a, nil
}

// begin lets it begin.
func (a *apart) begin() { a.in.Close() }

// take waits until it has ended, and puts what it measured into the result.
func (a *apart) take(m Measurement, where string) error {
	s, err := a.summary()
	if err == nil {
		takeLoads(m, where, s)
	}
	return err
}

// summary waits until it has ended, and returns what it measured. It lets it
// begin, if nobody has: a failure may have been first.
func (a *apart) summary() (s load.Summary, err error) {
	a.begin()
	err = errors.Join(json.NewDecoder(a.out).Decode(&s), a.cmd.Wait())
	if err == nil && s.Ops == 0 {
		err = errNothing
	}
	return s, err
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

// slowReading measures loads alone, beside slow readers, and alone again: from a
// process of its own, as besideStream does.
func slowReading(server *Server, o load.Options, what load.Slow) (Measurement, error) {
	loads := o
	loads.Pace = pace
	quiet, err := quietLoads(loads, "load")
	if err != nil {
		return Measurement{}, err
	}
	before, err := process.MemoryOf(server.PID)
	if err != nil {
		return Measurement{}, err
	}
	_ = process.ResetPeak(server.PID) // else the growth is one since the start
	beside, err := startApart(loads, "load")
	if err != nil {
		return Measurement{}, err
	}
	o.Ready = beside.begin
	read, err := load.SlowReaders(o, what)
	if err == nil && read.Bytes == 0 {
		err = errNothing
	}
	with, besideErr := beside.summary()
	if err := errors.Join(err, besideErr); err != nil {
		return Measurement{}, err
	}
	after, err := process.MemoryOf(server.PID)
	if err != nil {
		return Measurement{}, err
	}
	again, err := quietLoads(loads, "load")
	p99 := (quiet.P99 + again.P99) / 2
	return Measurement{Summary: with, Extra: map[string]float64{
		"growth MiB": float64(after.Peak-before.Resident) / (1 << 20),
		"p99 quiet":  p99,
		"p99 ratio":  with.P99 / p99,
	}}, err
}

// quietLoads measures loads, or the floor's exchanges, while nothing else is done.
func quietLoads(o load.Options, work string) (load.Summary, error) {
	a, err := startApart(o, work)
	if err != nil {
		return load.Summary{}, err
	}
	return a.summary()
}
