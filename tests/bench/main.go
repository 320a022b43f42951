// Bench measures zeolite beside its peers. tests/bench/run runs all of it; the
// parts can be run by hand:
//
//	go build -o bench ./tests/bench
//	./bench load -h          drive one server, of any kind
package main

import (
	"fmt"
	"os"
)

var commands = map[string]func(args []string) error{
	"load": loadCommand,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: bench load [flags]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
