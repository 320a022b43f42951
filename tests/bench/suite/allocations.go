package suite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/tests/bench/load"
)

// allocations counts what a call allocates on the server, which runs in this
// process for it: the generator allocates nothing once it is going.
func (s *Suite) allocations() error {
	return each([]struct {
		name string
		size int64
		do   func(load.Options) (*load.Result, error)
	}{
		{"ping", 0, load.Pings}, {"load", 1024, load.Loads},
	}, func(w struct {
		name string
		size int64
		do   func(load.Options) (*load.Result, error)
	}) error {
		var contenders []Contender
		for _, encoding := range []string{"M5", "Z5"} {
			o := s.options()
			o.Conns, o.Depth, o.Size, o.Encoding = 4, 16, w.size, encoding[0]
			contenders = append(contenders, Contender{"zeolite " + encoding, func() (Measurement, error) { return s.allocated(o, w.do) }})
		}
		return s.run(Case{
			Scenario: "allocations", Name: w.name, Title: fmt.Sprintf("allocations of the server for a %s, 4 connections, depth 16", w.name),
			Contenders: contenders,
		})
	})
}

// allocated measures work on a server in this process.
func (s *Suite) allocated(o load.Options, do func(load.Options) (*load.Result, error)) (m Measurement, err error) {
	dir, err := os.MkdirTemp(s.dir, "allocations-")
	if err != nil {
		return m, err
	}
	defer os.RemoveAll(dir)
	storage, err := filestorage.Open(filepath.Join(dir, "Data.fs"), filestorage.Options{})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, storage.Close()) }()
	srv := server.New(server.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := srv.AddStorage("1", storage); err != nil {
		return m, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return m, err
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
		defer cancel()
		err = errors.Join(err, srv.Shutdown(ctx))
		<-served // it says that it was shut down
	}()
	o.Address = l.Addr().String()
	var counts []runtime.MemStats
	o.Probe = func() {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		counts = append(counts, stats)
	}
	r, err := do(o)
	if err != nil {
		return m, err
	}
	m.Summary = r.Summary()
	m.Extra = map[string]float64{
		"objects for each": float64(counts[1].Mallocs-counts[0].Mallocs) / float64(r.Ops),
		"bytes for each":   float64(counts[1].TotalAlloc-counts[0].TotalAlloc) / float64(r.Ops),
	}
	return m, nil
}
