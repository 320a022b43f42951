package load

import (
	"flag"
	"time"
)

// Flags lets a command line set what every measurement has.
func (o *Options) Flags(fs *flag.FlagSet) {
	fs.StringVar(&o.Address, "a", "127.0.0.1:8100", "address of the server: HOST:PORT, or the path of a Unix socket")
	fs.IntVar(&o.Conns, "conns", 4, "connections")
	fs.IntVar(&o.Depth, "depth", 1, "calls under way on each connection")
	fs.Int64Var(&o.Size, "size", 1024, "bytes of a record, or of a blob")
	fs.DurationVar(&o.Warmup, "warmup", 500*time.Millisecond, "time that is not measured")
	fs.DurationVar(&o.Time, "time", 3*time.Second, "time that is measured")
}
