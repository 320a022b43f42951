// Bench measures zeolite beside its peers. tests/bench/run runs all of it; the
// parts can be run by hand:
//
//	go build -o bench ./tests/bench
//	./bench suite -h         run the suite, or some of its cases
//	./bench report -h        write the page about results
//	./bench load -h          drive one server, of any kind
//	./bench floor -h         serve bare sockets and files
//	./bench open FILE        open a Data.fs, and say how long it took
package main

import (
	"fmt"
	"os"
)

var commands = map[string]func(args []string) error{
	"suite":  suiteCommand,
	"report": reportCommand,
	"load":   loadCommand,
	"floor":  floorCommand,
	"open":   openCommand,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: bench suite|report|load|floor|open [flags]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
