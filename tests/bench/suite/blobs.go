package suite

import (
	"errors"
	"fmt"

	"github.com/zeolite-go/zeolite/tests/bench/floor"
	"github.com/zeolite-go/zeolite/tests/bench/load"
)

// A blobCase is a size and how often it is measured.
type blobCase struct {
	name  string
	size  int64
	count int // of each connection; zero measures a time
}

// blobs measures downloads and uploads.
func (s *Suite) blobs() error {
	sizes := []blobCase{{"100 KiB", 100 << 10, 0}, {"64 MiB", 64 << 20, quickOr(s, 2, 16)}}
	if !s.Quick {
		sizes = append(sizes, blobCase{"1 GiB", 1 << 30, 1})
	}
	return each(sizes, func(b blobCase) error {
		return each([]transport{tcp, unix, ssl}, func(t transport) error {
			return each([]int{1, 4}, func(n int) error {
				if s.Quick && t != tcp && (n != 1 || b.size != 64<<20) {
					return nil
				}
				return errors.Join(s.blob("get", b, t, n), s.blob("put", b, t, n))
			})
		})
	})
}

// blob measures one way, size, transport and number of connections. The servers
// end with it, so that their files do not pile up.
func (s *Suite) blob(way string, b blobCase, t transport, n int) error {
	o := s.options()
	o.Conns, o.Size, o.Count = n, b.size, b.count
	work, bare := load.BlobGets, floor.Send
	if b.count > 0 { // processor time is counted in steps of 10 ms
		o.Count = max(1, 4*b.count/n)
	}
	if way == "put" {
		work, bare = load.BlobPuts, floor.Receive
		if b.count > 0 { // each leaves a file behind
			o.Count = max(1, b.count/2/n)
		}
	}
	contenders := s.zeo(t, o, work)
	if t != ssl {
		contenders = append(contenders, Contender{"floor", func() (Measurement, error) {
			server, err := s.start("floor", t, 0)
			if err != nil {
				return Measurement{}, err
			}
			o.Address = server.Address
			return server.measure(o, bare)
		}})
	}
	return errors.Join(s.run(Case{
		Scenario: "blobs", Name: fmt.Sprintf("%s-%d-c%d-%s", way, b.size>>10, n, t),
		Title:      fmt.Sprintf("blob %s of %s, %s, %s", way, b.name, plural(n, "connection"), t),
		Params:     map[string]float64{"conns": float64(n), "size": float64(b.size)},
		Contenders: contenders,
	}), s.stopAll())
}
