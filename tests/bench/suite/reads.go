package suite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"

	"github.com/zeolite-go/zeolite/tests/bench/floor"
	"github.com/zeolite-go/zeolite/tests/bench/load"
)

// zeo returns contenders for the ZEO servers that can be started: zeolite and
// Python in both encodings, with uvloop in the one that is faster. The work is
// the same for all.
func (s *Suite) zeo(t transport, o load.Options, work func(load.Options) (*load.Result, error)) []Contender {
	return s.zeoWith(t, func(server *Server, encoding string) (Measurement, error) {
		o.Target = server.target(encoding)
		return server.measure(o, work)
	})
}

// zeoWith is zeo for work that measures by itself.
func (s *Suite) zeoWith(t transport, work func(server *Server, encoding string) (Measurement, error)) (all []Contender) {
	for _, c := range []struct{ kind, encoding string }{
		{"zeolite", "M5"}, {"python", "M5"}, {"uvloop", "M5"}, {"zeolite", "Z5"}, {"python", "Z5"},
	} {
		if !s.has(c.kind) || s.Quick && c.kind == "python" && c.encoding == "Z5" {
			continue
		}
		all = append(all, Contender{c.kind + " " + c.encoding, func() (Measurement, error) {
			server, err := s.start(c.kind, t, 0)
			if err != nil {
				return Measurement{}, err
			}
			return work(server, c.encoding)
		}})
	}
	return all
}

// rpc returns contenders for the servers of other protocols.
func (s *Suite) rpc(o load.Options, work string) (all []Contender) {
	for _, kind := range []string{"grpc", "drpc", "netrpc"} {
		if !s.has(kind) {
			continue
		}
		all = append(all, Contender{kind, func() (Measurement, error) {
			server, err := s.start(kind, tcp, o.Size)
			if err != nil {
				return Measurement{}, err
			}
			return s.runPeer(server, o, work)
		}})
	}
	return all
}

// runPeer runs the client of a peer, which is a program of its own.
func (s *Suite) runPeer(server *Server, o load.Options, work string) (m Measurement, err error) {
	cmd := exec.Command(s.Peers, "load", "-kind", server.Kind, "-a", server.Address, "-work", work,
		"-conns", strconv.Itoa(o.Conns), "-depth", strconv.Itoa(o.Depth), "-size", fmt.Sprint(o.Size),
		"-warmup", o.Warmup.String(), "-time", o.Time.String(), "-pid", strconv.Itoa(server.PID))
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return m, fmt.Errorf("%w: %s", err, bytes.TrimSpace(failed.Stderr))
	}
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(out, &m)
}

// reads measures pings and loads.
func (s *Suite) reads() error {
	conns := quickOr(s, []int{4, 64}, []int{1, 4, 8, 64})
	work := []struct {
		scenario, title string
		size            int64
		firstOID        uint64 // sizes have objects of their own
		do              func(load.Options) (*load.Result, error)
	}{
		{"pings", "ping", 0, 0, load.Pings},
		{"loads", "load of 1 KiB", 1024, 1, load.Loads},
		{"loads", "load of 16 KiB", 16 << 10, 10_001, load.Loads},
	}
	return each(conns, func(n int) error {
		return each([]int{1, 16}, func(depth int) error {
			var errs []error
			for _, w := range work {
				o := s.options()
				o.Conns, o.Depth, o.Size, o.Objects = n, depth, w.size, 4096
				name := fmt.Sprintf("c%d-d%d", n, depth)
				if w.size > 0 {
					name = fmt.Sprintf("%dk-%s", w.size>>10, name)
					o.FirstOID = w.firstOID
				}
				if s.Quick && w.size > 1024 && n != 4 {
					continue
				}
				errs = append(errs, s.run(Case{
					Scenario: w.scenario, Name: name, Title: fmt.Sprintf("%s, %s, depth %d", w.title, plural(n, "connection"), depth),
					Params:     map[string]float64{"conns": float64(n), "depth": float64(depth), "size": float64(w.size)},
					Contenders: append(append(s.zeo(tcp, o, w.do), s.rpc(o, map[bool]string{true: "ping", false: "load"}[w.size == 0])...), s.echo(o)...),
				}))
			}
			return errors.Join(errs...)
		})
	})
}

// echo is the floor of calls at depth 1: requests and answers of the size that
// a ping, or a load, and its reply have.
func (s *Suite) echo(o load.Options) []Contender {
	if o.Depth != 1 {
		return nil
	}
	request, answer := 20, 17
	if o.Size > 0 {
		request, answer = load.LoadFrames(int(o.Size))
	}
	return []Contender{{"floor", func() (Measurement, error) {
		server, err := s.start("floor", tcp, 0)
		if err != nil {
			return Measurement{}, err
		}
		o.Address = server.Address
		return server.measure(o, func(o load.Options) (*load.Result, error) { return floor.Echo(o, request, answer) })
	}}}
}
