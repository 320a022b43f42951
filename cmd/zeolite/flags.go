package main

import (
	"flag"
	"time"
)

// targetFlags adds the flags that say how to open a storage.
func targetFlags(fs *flag.FlagSet) *target {
	t := &target{}
	fs.StringVar(&t.storage, "storage", "1", "the `NAME` of the storage at the server")
	fs.StringVar(&t.blobs, "b", "", "the blob `DIR` of a Data.fs, or where blobs of a server are cached")
	fs.DurationVar(&t.timeout, "timeout", 10*time.Second, "give up if the server does not answer in this time")
	return t
}

// parseOne parses a command line with one argument, the target.
func parseOne(fs *flags, args []string, t *target, want string) error {
	rest, err := fs.parseMixed(args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return &usageError{"give " + want}
	}
	t.name = rest[0]
	return nil
}

// parseTwo parses a command line with two arguments, the target and another.
func parseTwo(fs *flags, args []string, t *target, other *string, want string) error {
	rest, err := fs.parseMixed(args)
	if err != nil {
		return err
	}
	if len(rest) != 2 {
		return &usageError{"give " + want}
	}
	t.name, *other = rest[0], rest[1]
	return nil
}

// flags is a flag set that takes flags before, between and after arguments.
type flags struct{ flag.FlagSet }

func (fs *flags) parseMixed(args []string) (rest []string, err error) {
	for {
		if err := parse(fs, args); err != nil {
			return nil, err
		}
		if args = fs.Args(); len(args) == 0 {
			return rest, nil
		}
		rest = append(rest, args[0])
		args = args[1:]
	}
}
