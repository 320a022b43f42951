// Peers measures remote procedure calls of other kinds, with the payloads that
// ZEO's have: a ping without content, and a load, which sends an oid and a tid
// and gets a record and its serial.
//
//	peers serve -kind grpc -a 127.0.0.1:8200
//	peers load -kind grpc -a 127.0.0.1:8200 -work load -conns 4 -depth 16
//
// It is a module of its own, so that what it depends on is no dependency of
// zeolite.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/zeolite-go/zeolite/tests/bench/load"
	"github.com/zeolite-go/zeolite/tests/bench/process"
)

// A kind is one way to call procedures.
type kind struct {
	// serve answers calls until the process ends.
	serve func(l net.Listener, size int) error
	// dial returns a connection, which is used from depth goroutines.
	dial func(address string, depth int) (caller, error)
}

// A caller is the client's side of a connection. Any goroutine may use it.
type caller interface {
	ping() error
	// load returns the record of an object.
	load(oid uint64) ([]byte, error)
	close() error
}

var kinds = map[string]kind{
	"grpc":   {grpcServe, grpcDial},
	"drpc":   {drpcServe, drpcDial},
	"netrpc": {netrpcServe, netrpcDial},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: peers serve|load -kind KIND [flags]")
	}
	fs := flag.NewFlagSet(args[0], flag.ExitOnError)
	var o load.Options
	o.Flags(fs)
	name := fs.String("kind", "grpc", "grpc, drpc or netrpc")
	work := fs.String("work", "load", "ping or load")
	pid := fs.Int("pid", 0, "process id of the server, to measure its processor time and memory")
	_ = fs.Parse(args[1:])
	k, ok := kinds[*name]
	if !ok {
		return fmt.Errorf("there is no kind %q", *name)
	}
	switch args[0] {
	case "serve":
		l, err := net.Listen("tcp", o.Address)
		if err != nil {
			return err
		}
		fmt.Println("listening on", l.Addr())
		return k.serve(l, int(o.Size))
	case "load":
		return measure(k, *work, o, *pid)
	}
	return fmt.Errorf("there is no command %q", args[0])
}

// measure drives a server and prints a line of JSON, as "bench load" does.
func measure(k kind, work string, o load.Options, pid int) error {
	usage := process.NewUsage(pid)
	o.Probe = usage.Probe
	var callers []caller
	giveUp := func() {
		for _, c := range callers {
			_ = c.close() // the first error is the one to tell
		}
	}
	defer giveUp()
	var ops []func() (int64, error)
	for range o.Conns {
		c, err := k.dial(o.Address, o.Depth)
		if err != nil {
			return err
		}
		callers = append(callers, c)
		op, err := operation(c, work, int(o.Size))
		if err != nil {
			return err
		}
		ops = append(ops, slices.Repeat([]func() (int64, error){op}, o.Depth)...)
	}
	r, err := load.Repeat(o, ops, giveUp)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(struct {
		Work string
		load.Summary
		process.Used
	}{work, r.Summary(), usage.Used()})
}

// operation returns one call. It checks the size of the answer only: a peer has
// no storage.
func operation(c caller, work string, size int) (func() (int64, error), error) {
	switch work {
	case "ping":
		return func() (int64, error) { return 0, c.ping() }, nil
	case "load":
		return func() (int64, error) {
			record, err := c.load(1)
			if err == nil && len(record) != size {
				err = fmt.Errorf("a record of %d bytes", len(record))
			}
			return int64(len(record)), err
		}, nil
	}
	return nil, fmt.Errorf("there is no work %q", work)
}

// record is what every load returns.
func record(size int) []byte { return []byte(strings.Repeat("x", size)) }
