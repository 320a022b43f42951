package main

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/floor"
	"github.com/zeolite-go/zeolite/tests/bench/load"
	"github.com/zeolite-go/zeolite/tests/bench/process"
)

// works are what "bench load" can do to a server.
var works = map[string]func(load.Options) (*load.Result, error){
	"ping":     load.Pings,
	"load":     load.Loads,
	"commit":   load.Commits,
	"blob-get": load.BlobGets,
	"blob-put": load.BlobPuts,
	"mixed":    mixed,
	"fan-out":  fanOut,
	"echo":     echo,
}

// mixed downloads a blob of Size bytes over and over on one connection, with
// loads of 1 KiB on the same: operations and latency are theirs, and the bytes
// the blob's.
func mixed(o load.Options) (*load.Result, error) {
	size := o.Size
	o.Size, o.Pace = 1024, cmp.Or(o.Pace, 2*time.Millisecond)
	r, err := load.MixedWork(o, size)
	if err != nil {
		return nil, err
	}
	r.Loads.Bytes = r.Blob.Bytes
	return &r.Loads, nil
}

// fanOut commits every Pace, and listens on Conns connections.
func fanOut(o load.Options) (*load.Result, error) {
	return load.FanOut(o, cmp.Or(o.Pace, 20*time.Millisecond))
}

// echo drives the floor as a load drives a server.
func echo(o load.Options) (*load.Result, error) {
	request, answer := load.LoadFrames(int(o.Size))
	return floor.Echo(o, request, answer)
}

// loadCommand drives one server and prints a line of JSON.
func loadCommand(args []string) error {
	fs := flag.NewFlagSet("load", flag.ExitOnError)
	var o load.Options
	work := fs.String("work", "load", "what to do: ping, load, commit, blob-get, blob-put, mixed (a blob beside loads), fan-out (invalidations); echo, with the floor")
	o.Flags(fs)
	fs.StringVar(&o.Storage, "storage", "1", "name of the storage")
	encoding := fs.String("encoding", "", "M (msgpack) or Z (pickle); default: what the server prefers")
	secure := fs.Bool("tls", false, "use TLS; the certificate of the server is not checked")
	cert := fs.String("cert", "", "with -tls: a `FILE` with the client's certificate and key")
	fs.IntVar(&o.Objects, "objects", 1000, "objects to load")
	fs.IntVar(&o.Records, "records", 1, "records of a transaction")
	fs.BoolVar(&o.Overlap, "overlap", false, "let all connections commit to the same objects")
	fs.IntVar(&o.Piece, "piece", 59000, "bytes of the pieces of blobs that are sent")
	fs.Uint64Var(&o.FirstOID, "oid", 1, "oid of the first object; the objects from there on are overwritten")
	fs.IntVar(&o.Count, "count", 0, "with blobs: measure so many for each connection, instead of a time")
	fs.DurationVar(&o.Pace, "pace", 0, "with load, mixed, fan-out and echo: how often one begins (default: at once; mixed 2ms, fan-out 20ms)")
	ready := fs.Bool("ready", false, "when all is prepared print a line, and wait for one on standard input")
	pid := fs.Int("pid", 0, "process id of the server, to measure its processor time and memory")
	_ = fs.Parse(args)
	do := works[*work]
	if do == nil {
		return fmt.Errorf("there is no work %q", *work)
	}
	if *encoding != "" {
		o.Encoding = (*encoding)[0]
	}
	if *secure {
		o.TLS = &tls.Config{InsecureSkipVerify: true}
	}
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *cert)
		if err != nil {
			return err
		}
		o.TLS.Certificates = []tls.Certificate{pair}
	}
	if *ready {
		o.Ready = func() {
			fmt.Println("ready")
			_, _ = fmt.Scanln()
		}
	}
	usage := process.NewUsage(*pid)
	o.Probe = usage.Probe
	r, err := do(o)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(struct {
		Work string
		load.Summary
		process.Used
	}{*work, r.Summary(), usage.Used()})
}
