// Postgres measures zeolite on PostgreSQL beside RelStorage, which is in the
// process of its client, on the same database: loads and commits; and streams of
// a blob beside psycopg's export to a file, and lo_get in a loop.
//
//	go run ./tests/bench/postgres
//	go run ./tests/bench/postgres -quick
//
// It starts a PostgreSQL of its own, with its defaults, that syncs to disk. All
// sides take turns, in processes of their own, and each is asked for the seconds
// of the work itself.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

type options struct {
	runs, objects, commits, blob int
	python                       string
}

func main() {
	var o options
	quick := flag.Bool("quick", false, "a tenth of everything")
	flag.IntVar(&o.runs, "runs", 5, "runs of each side")
	flag.IntVar(&o.objects, "objects", 5000, "objects to load")
	flag.IntVar(&o.commits, "commits", 200, "commits of each client")
	flag.IntVar(&o.blob, "blob", 256, "size of the blob in `MiB`")
	flag.StringVar(&o.python, "python", "tests/.venv/bin/python", "a Python that has ZEO and RelStorage")
	do := flag.String("do", "", "used by itself: do one thing with the Go client")
	flag.Parse()
	if *do != "" {
		exit(work(*do, flag.Args()))
		return
	}
	if *quick {
		o.objects, o.commits, o.blob, o.runs = o.objects/10, o.commits/10, o.blob/8, 3
	}
	exit(o.run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "postgres:", err)
		os.Exit(1)
	}
}

// side is one way to do something: the processes that do it, all at once.
type side struct {
	name  string
	procs [][]string
}

func (o *options) run() error {
	if abs, err := filepath.Abs(o.python); err == nil && filepath.Base(o.python) != o.python {
		o.python = abs
	}
	b, err := start(o)
	if err != nil {
		return err
	}
	defer b.close()
	fmt.Printf("%s, %d CPUs; %s; %d objects of 1 KiB\n\n", runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU(), b.version, o.objects)
	if _, err := output([]string{b.self, "-do", "load", b.warm, b.oids, "0", "1"}); err != nil {
		return err
	}
	fmt.Printf("%-34s %14s %14s %12s   %s\n", "", "median", "unit", "to the first", "every run")
	for _, clients := range []int{1, 4} {
		sides := func(what string, args ...string) []side {
			relstorage, zeo, native := side{name: "RelStorage, in process"}, side{name: "zeolite, Python's ZEO client"}, side{name: "zeolite, Go client"}
			warm := side{name: "zeolite, Go client, warm server"}
			for i := range clients {
				part := append([]string{b.oids, fmt.Sprint(i), fmt.Sprint(clients)}, args...)
				relstorage.procs = append(relstorage.procs, append([]string{o.python, b.script, what, "relstorage", b.dsn}, part...))
				zeo.procs = append(zeo.procs, append([]string{o.python, b.script, what, "zeo", b.addr}, part...))
				native.procs = append(native.procs, append([]string{b.self, "-do", what, b.addr}, part...))
				warm.procs = append(warm.procs, append([]string{b.self, "-do", what, b.warm}, part...))
			}
			if what == "load" {
				return []side{relstorage, zeo, native, warm}
			}
			return []side{relstorage, zeo, native}
		}
		for _, m := range []struct {
			title, unit string
			sides       []side
		}{
			{"loads", "loads/s", sides("load")},
			{"commits of 1 object", "commits/s", sides("commit", fmt.Sprint(o.commits), "1")},
			{"commits of 10 objects", "commits/s", sides("commit", fmt.Sprint(o.commits), "10")},
		} {
			if err := o.compare(fmt.Sprintf("%s, %d at a time", m.title, clients), m.unit, 1, m.sides); err != nil {
				return err
			}
		}
	}
	file := filepath.Join(b.dir, "blob")
	return o.compare(fmt.Sprintf("a blob of %d MiB, to a file", o.blob), "MiB/s", float64(o.blob), []side{
		{"psycopg, export", [][]string{{o.python, b.script, "export", "psycopg", b.dsn, b.loid, file}}},
		{"psycopg, lo_get of 1 MiB", [][]string{{o.python, b.script, "lo_get", "psycopg", b.dsn, b.loid, file}}},
		{"zeolite, HTTP", [][]string{{b.self, "-do", "http", "http://" + b.http + "/blobs/1/" + b.blobOID, file}}},
		{"zeolite, ZEO, Go client", [][]string{{b.self, "-do", "blob", b.addr, b.blobOID, file}}},
	})
}

// compare runs all sides in turns, and prints how much of unit each does in a
// second. One process does what it says it has done, times each.
func (o *options) compare(title, unit string, each float64, sides []side) error {
	rates := make([][]float64, len(sides))
	for range o.runs {
		for i, s := range sides {
			began, ended, n, err := s.measure()
			if err != nil {
				return fmt.Errorf("%s, %s: %w", title, s.name, err)
			}
			rates[i] = append(rates[i], n*each/(ended-began))
		}
	}
	fmt.Println(title)
	var first float64
	for i, s := range sides {
		var every []string
		for _, r := range rates[i] {
			every = append(every, fmt.Sprintf("%.0f", r))
		}
		slices.Sort(rates[i])
		median := rates[i][len(rates[i])/2]
		if i == 0 {
			first = median
		}
		fmt.Printf("  %-32s %14.0f %14s %11.2fx   %s\n", s.name, median, unit, median/first, strings.Join(every, " "))
	}
	fmt.Println()
	return nil
}

// measure runs the processes of a side together. What counts is the time from
// when the first began its work to when the last ended it.
func (s *side) measure() (began, ended, n float64, err error) {
	type answer struct {
		began, ended, n float64
		err             error
	}
	answers := make(chan answer)
	for _, args := range s.procs {
		go func() {
			var a answer
			var out string
			if out, a.err = output(args); a.err == nil {
				_, a.err = fmt.Sscan(out, &a.began, &a.ended, &a.n)
			}
			answers <- a
		}()
	}
	began = float64(time.Now().Add(time.Hour).Unix())
	for range s.procs {
		a := <-answers
		if a.err != nil {
			err = a.err
		}
		began, ended, n = min(began, a.began), max(ended, a.ended), n+a.n
	}
	return began, ended, n, err
}
