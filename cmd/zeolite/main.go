// Zeolite serves ZODB databases to ZEO clients.
//
// This package is wiring: each subcommand has a file, which turns flags into
// options and errors into exit codes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"syscall"
)

// command is one subcommand.
type command struct {
	name, summary string
	run           func(args []string) error
}

var commands = []command{
	{"serve", "serve a database to ZEO clients", serve},
	{"ping", "ask a server how it is, for monitors", ping},
	{"pack", "forget old revisions and unreachable objects", pack},
	{"check", "look for damage in a database", check},
	{"copy", "copy a database with its history, and compare", copyCommand},
	{"log", "list transactions", logCommand},
	{"tail", "print transactions as they are committed", tail},
	{"load", "write the bytes of an object", load},
	{"history", "list the revisions of an object", history},
	{"blob", "get the blob of an object", blob},
	{"version", "print the version", version},
}

// usageError says that the command line is wrong; its text says how it should
// be.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// configError says that the configuration file is wrong.
type configError struct{ err error }

func (e *configError) Error() string { return e.err.Error() }

func (e *configError) Unwrap() error { return e.err }

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit code: 0, 1 for a failure, 2 for a wrong command line or
// configuration, or if another server has the address. As with runzeo, 2 means
// that there is no point in starting it again; zdaemon goes by that.
func run(args []string) int {
	if len(args) == 0 {
		usage(os.Stderr)
		return 2
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		usage(os.Stdout)
		return 0
	}
	for _, c := range commands {
		if c.name != args[0] {
			continue
		}
		err := c.run(args[1:])
		var wrong *usageError
		switch {
		case err == nil, errors.Is(err, flag.ErrHelp):
			return 0
		case errors.As(err, &wrong):
			fmt.Fprintf(os.Stderr, "zeolite %s: %v\nTry: zeolite %[1]s -h\n", c.name, err)
			return 2
		}
		fmt.Fprintf(os.Stderr, "zeolite %s: %v\n", c.name, err)
		if errors.As(err, new(*configError)) || errors.Is(err, syscall.EADDRINUSE) {
			return 2
		}
		return 1
	}
	fmt.Fprintf(os.Stderr, "zeolite: there is no command %q\n\n", args[0])
	usage(os.Stderr)
	return 2
}

func usage(w io.Writer) {
	fmt.Fprint(w, "zeolite serves ZODB databases to ZEO clients.\n\nUsage: zeolite COMMAND [FLAGS]\n\nCommands:\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\nHelp on a command: zeolite COMMAND -h\n")
}

// newFlags returns a flag set whose help begins with the given text.
func newFlags(name, help string) *flags {
	fs := &flags{}
	fs.Init(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // parse prints
	fs.Usage = func() {
		fmt.Fprint(os.Stdout, help, "\nFlags:\n")
		fs.SetOutput(os.Stdout)
		fs.PrintDefaults()
		fs.SetOutput(io.Discard)
	}
	return fs
}

// parse parses a command line.
func parse(fs *flags, args []string) error {
	err := fs.Parse(args)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	return &usageError{err.Error()}
}

func version([]string) error {
	v := "(unknown version)"
	if info, ok := debug.ReadBuildInfo(); ok {
		v = info.Main.Version
	}
	fmt.Println("zeolite", v)
	return nil
}
