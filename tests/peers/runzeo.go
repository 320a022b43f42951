package peers

import (
	"fmt"
	"strings"
)

// runzeoConfig writes the configuration file for Python's server.
func runzeoConfig(o Options) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("<zeo>")
	line("  address %s", o.Address)
	line("  msgpack %t", o.Msgpack)
	line("  read-only %t", o.ReadOnly)
	line("  client-conflict-resolution %t", o.ClientConflictResolution)
	if o.TransactionTimeout > 0 {
		line("  transaction-timeout %d", o.TransactionTimeout)
	}
	if o.InvalidationQueueSize > 0 {
		line("  invalidation-queue-size %d", o.InvalidationQueueSize)
	}
	line("</zeo>")
	line("<filestorage 1>")
	line("  path %s", o.Path)
	if o.BlobDir != "" {
		line("  blob-dir %s", o.BlobDir)
	}
	line("</filestorage>")
	return b.String()
}
