package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/floor"
	"github.com/zeolite-go/zeolite/tests/bench/load"
	"github.com/zeolite-go/zeolite/tests/bench/report"
	"github.com/zeolite-go/zeolite/tests/bench/suite"
)

// suiteCommand runs the benchmarks.
func suiteCommand(args []string) error {
	fs := flag.NewFlagSet("suite", flag.ExitOnError)
	var c suite.Config
	fs.StringVar(&c.Zeolite, "zeolite", "", "the `PROGRAM` zeolite")
	fs.StringVar(&c.Peers, "peers", "", "the `PROGRAM` of tests/bench/peers")
	fs.StringVar(&c.Python, "python", "", "a Python that has ZEO")
	fs.StringVar(&c.UVLoop, "uvloop", "", "a `DIRECTORY` with the package uvloop for that Python")
	fs.StringVar(&c.Results, "results", "tests/bench/results", "the `DIRECTORY` for what is measured")
	fs.StringVar(&c.Scratch, "dir", "", "make databases in `DIR` (default: a temporary directory)")
	fs.BoolVar(&c.Quick, "quick", false, "every scenario with small sizes")
	fs.IntVar(&c.Rounds, "rounds", 0, "turns of each contender (default 5, with -quick 2)")
	fs.DurationVar(&c.Time, "time", 0, "length of a turn (default 3s, with -quick 0.5s)")
	only := fs.String("only", "", "run cases that match this `REGEXP`, as loads/1k-c4-d16")
	except := fs.String("except", "", "leave out cases that match this `REGEXP`")
	_ = fs.Parse(args)
	for _, f := range []struct {
		text string
		to   **regexp.Regexp
	}{{*only, &c.Only}, {*except, &c.Except}} {
		if f.text == "" {
			continue
		}
		expression, err := regexp.Compile(f.text)
		if err != nil {
			return err
		}
		*f.to = expression
	}
	if c.Rounds == 0 {
		c.Rounds = map[bool]int{false: 5, true: 2}[c.Quick]
	}
	if c.Time == 0 {
		c.Time = map[bool]time.Duration{false: 3 * time.Second, true: time.Second / 2}[c.Quick]
	}
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer restore()
	c.Stop = ctx.Done()
	quiet := context.AfterFunc(ctx, func() {
		restore()
		fmt.Fprintln(os.Stderr, "ending when the turn under way is over; the same signal once more ends at once")
	})
	defer quiet()
	return suite.Run(c)
}

// reportCommand writes the page about results.
func reportCommand(args []string) error {
	fs := flag.NewFlagSet("report", flag.ExitOnError)
	results := fs.String("results", "tests/bench/results", "the `DIRECTORY` with what was measured")
	page := fs.String("o", "tests/bench/REPORT.md", "write the `FILE`, and its charts beside it")
	_ = fs.Parse(args)
	return report.Write(*results, *page)
}

// floorCommand is the server of package floor.
func floorCommand(args []string) error {
	fs := flag.NewFlagSet("floor", flag.ExitOnError)
	address := fs.String("a", "127.0.0.1:8300", "listen on `ADDRESS`")
	dir := fs.String("dir", os.TempDir(), "files are in `DIR`")
	_ = fs.Parse(args)
	l, err := net.Listen(load.Network(*address), *address)
	if err != nil {
		return err
	}
	return floor.Serve(l, *dir)
}

// openCommand opens a Data.fs, for the suite.
func openCommand(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: bench open FILE")
	}
	return suite.Open(args[0])
}
