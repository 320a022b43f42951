package main

import (
	"flag"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/zeolite-go/zeolite/server"
)

// limitFlags adds the flags that bound what a client can ask for.
func limitFlags(fs *flag.FlagSet, l *server.Limits) {
	fs.Var((*size)(&l.MaxRecord), "max-record", "refuse a record, or a piece of a blob, of more than `SIZE` (default 256MiB)")
	fs.Var((*size)(&l.MaxMessage), "max-message", "refuse any other message of more than `SIZE` (default 1MiB)")
	fs.Var((*size)(&l.Outbox), "max-outbox", "disconnect a client for which more than `SIZE` of invalidations waits that it does not read (default 64MiB)")
	fs.Var((*size)(&l.TransactionMemory), "transaction-memory", "keep up to `SIZE` of a transaction in memory, more in a temporary file (default 1MiB)")
	fs.IntVar(&l.Operations, "max-operations", 0, "refuse a transaction of more than `N` stores and other operations, of which each takes some 250 bytes of memory at its vote (default 10000000)")
	fs.IntVar(&l.Invalidations, "max-invalidations", 0, "let a client drop its cache rather than verify it if more than `N` objects changed (default 100000)")
}

// size is a flag for a number of bytes: 1048576, 1024KiB or 1MiB.
type size int

func (s *size) String() string { return strconv.Itoa(int(*s)) }

func (s *size) Set(text string) error {
	number, unit := strings.TrimRight(text, "KMGTiBkb"), 1.0
	suffix := strings.ToUpper(strings.TrimSuffix(strings.TrimSuffix(text[len(number):], "B"), "i"))
	if suffix != "" {
		exponent := strings.Index("KMGT", suffix)
		if exponent < 0 || len(suffix) != 1 {
			return fmt.Errorf("not a size; use a number of bytes, or KiB, MiB, GiB behind it")
		}
		unit = math.Pow(1024, float64(exponent+1))
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n > 0 && n*unit <= min(math.MaxInt32*64, math.MaxInt)) {
		return fmt.Errorf("not a size; use a number of bytes, or KiB, MiB, GiB behind it")
	}
	*s = size(n * unit)
	return nil
}
