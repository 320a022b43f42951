package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/zeolite-go/zeolite"
)

// Options are the settings of a Storage. Only Addresses is required; a field
// that is zero has its default.
type Options struct {
	// Addresses are the servers to try, all at once; the first that answers
	// as asked is used. Each is "host:port", or the path of a Unix socket,
	// which has a slash in it.
	Addresses []string
	// Storage is the name of the storage at the server ("1").
	Storage string
	// ReadOnly asks for a connection without writes.
	ReadOnly bool
	// ReadOnlyFallback takes a server that refuses writes as long as no
	// other one can be had, and moves to a writable one when it returns.
	ReadOnlyFallback bool
	// WaitTimeout is how long Open, and a call made while there is no
	// connection, wait for one (30 s).
	WaitTimeout time.Duration
	// NoWait makes Open return before there is a connection.
	NoWait bool
	// TLS, if set, is the configuration of every connection, with the
	// client's certificate if the server wants one. If it names no server,
	// the host of the address is checked.
	TLS *tls.Config
	// Label names this client in the server's log.
	Label string
	// Logger gets the client's log; slog.Default by default.
	Logger *slog.Logger

	// CacheSize bounds the object cache, in bytes (20 MiB); negative means
	// no cache.
	CacheSize int64
	// CachePath, if set, is the file in which the object cache survives a
	// restart. One process may use it at a time.
	CachePath string

	// BlobDir, if set, is the directory of the blob cache, which any number
	// of processes share, of Go and of Python. Without it there are no blobs.
	BlobDir string
	// SharedBlobDir says that BlobDir is the blob directory of the server
	// itself: no blob is downloaded, sent or removed then.
	SharedBlobDir bool
	// BlobCacheSize, if not 0, is the size in bytes to which the blob cache
	// is cut down each time BlobCacheSizeCheck percent of it (10) were added.
	BlobCacheSize      int64
	BlobCacheSizeCheck int
	// Progress, if set, is told how blob transfers get on, by the goroutines
	// that do them: it must be quick, and may be called concurrently.
	Progress func(BlobProgress)

	// Resolve, if set, is asked when a store, or an undo, met a conflict: see Conflict.
	// Python's server has it asked with client-conflict-resolution only; else it
	// merges by itself, or the vote fails.
	Resolve func(ctx context.Context, c Conflict) ([]byte, error)

	// TransactionMemory is how many bytes of records a transaction keeps in
	// memory before they go to a temporary file (16 MiB). What else there is to
	// know of its operations has a quarter of that besides.
	TransactionMemory int64
	// Heartbeat is the silence after which the server is asked whether it is
	// still there; if it stays silent as long again the connection is ended
	// (30 s). Negative means never.
	Heartbeat time.Duration
	// ReconnectMin and ReconnectMax bound the pause between two rounds of
	// attempts to connect (100 ms, 10 s). It doubles with each failure.
	ReconnectMin, ReconnectMax time.Duration
	// AttemptTimeout bounds one attempt to connect, up to the point where the
	// connection can be used (20 s).
	AttemptTimeout time.Duration
	// MaxMessage is the largest message that is accepted, in bytes (512 MiB).
	MaxMessage int
	// Dial, if set, makes the connections instead of the standard library:
	// network is "tcp" or "unix".
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Conflict is a store that met a newer revision. Options.Resolve may merge the
// two: it returns the record to store on top of Committed, or an error, which
// makes the vote fail with a *zeolite.ConflictError. The revisions themselves
// can be had by LoadSerial. It is called by the goroutine that votes.
//
// The conflict of an undo is merged alike: Seen is the transaction to be undone,
// and Data the state that the object had before it.
type Conflict struct {
	OID zeolite.OID
	// Committed is the current serial, Seen the one that the transaction read.
	Committed, Seen zeolite.TID
	// Data is what the transaction stores.
	Data []byte
}

// BlobProgress says how far the transfer of a blob is.
type BlobProgress struct {
	OID zeolite.OID
	// TID is the revision, of a download.
	TID    zeolite.TID
	Upload bool
	// Done counts bytes. Total is the size; a download does not know it and
	// says -1, until it is complete.
	Done, Total int64
}

func (o Options) withDefaults() (Options, error) {
	if len(o.Addresses) == 0 {
		return o, errors.New("client: no address to connect to")
	}
	for _, a := range o.Addresses {
		if _, _, err := splitAddress(a); err != nil {
			return o, err
		}
	}
	if o.ReadOnly && o.ReadOnlyFallback {
		return o, errors.New("client: ReadOnly and ReadOnlyFallback exclude each other")
	}
	if o.BlobCacheSizeCheck < 0 || o.BlobCacheSizeCheck >= 100 {
		return o, errors.New("client: BlobCacheSizeCheck must be less than 100 percent")
	}
	setDefault(&o.Storage, "1")
	setDefault(&o.WaitTimeout, 30*time.Second)
	setDefault(&o.CacheSize, 20<<20)
	setDefault(&o.BlobCacheSizeCheck, 10)
	setDefault(&o.TransactionMemory, 16<<20)
	setDefault(&o.Heartbeat, 30*time.Second)
	setDefault(&o.ReconnectMin, 100*time.Millisecond)
	setDefault(&o.ReconnectMax, 10*time.Second)
	setDefault(&o.AttemptTimeout, 20*time.Second)
	setDefault(&o.MaxMessage, 512<<20)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	return o, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// splitAddress tells what to dial for an address of Options.
func splitAddress(a string) (network, address string, err error) {
	if strings.Contains(a, "/") {
		return "unix", a, nil
	}
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		return "", "", fmt.Errorf("client: address %q is neither host:port nor the path of a socket: %w", a, err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return "tcp", net.JoinHostPort(host, port), nil
}
