// Package server shares storages with ZEO clients.
//
// A [Server] accepts connections; for each there is a session, which implements
// stubs.StorageServer (session.go for reading, txn.go for committing). What
// belongs to a storage and is common to its clients is in its export: who is
// connected, the commit locks, the counters, and the order in which
// transactions are published (export.go, publish.go).
//
// # Three lanes
//
// The goroutine that reads a connection runs what cannot block (inline), loads
// that the storage can answer from memory among it (quick.go). What touches the
// client's transaction or its upload is run in the order in which it arrived, one
// call at a time (ordered); as long as the transaction is small and nothing has
// to be waited for but a disk that was quick the last time, by the reading
// goroutine too (now.go). If the disk is not quick this time, another goroutine
// reads on. Everything else only reads and is run by a few workers (free). So a
// vote that waits for somebody's locks, or a slow disk, holds up nobody else, not
// even the same client's loads for more than some milliseconds.
//
// Replies are written by the goroutine that made them, if the socket takes them
// at once, together with what waits for that client already. The connection's
// writing goroutine does the rest: streams, invalidations, and what the socket
// did not take.
//
// # What a load costs
//
// The reading goroutine parses the call where it was received, looks the object
// up in the index, reads header and record with one system call (two beyond 4
// KiB) that fails rather than waits for the disk, encodes the reply into a buffer
// from a pool, and joins it to others that are ready. When no further call is at
// hand it writes them with one system call that does not wait either. So nothing
// is allocated, no other goroutine is woken, and a burst of 16 loads takes 16
// reads of the file, one or two of the socket, and one write. What does not go
// that way goes to a worker and to the connection's writing goroutine: a record
// that is not in memory or larger than 20 KiB, an error, a socket that is full,
// TLS (the writing only), a load that meets a transaction being published.
//
// # What a commit costs
//
// tpc_begin, the stores and the vote of a small transaction mostly arrive
// together: one read, the look at each object's record, one write of the reply,
// all in the reading goroutine. If nobody else commits, it also runs tpc_finish,
// and writes the reply, behind the message with the storage's size and the
// invalidations of others that wait for the client: no other thread is woken.
// While others commit tpc_finish has to wait, so it is handed to a worker.
//
// Where many want the same objects nearly all transactions end in a conflict; who
// met one is let in first when it tries again (retry.go).
//
// # The ordering rules
//
// For every client, on its one connection:
//
//  1. Invalidations arrive once each, in tid order: every commit of somebody
//     else after register returned.
//  2. A reply that calls a revision current is queued before the invalidation
//     that ends it.
//  3. A reply that states a tid (register, lastTransaction, getInvalidations,
//     tpc_finish) is queued behind the invalidations of all transactions up to
//     that one.
//  4. Nothing of a transaction can be loaded before it is durable and its
//     invalidation is queued for that client.
//  5. A transaction is all or nothing.
//
// publish.go is where they are kept.
package server
