// Package postgres is a zeolite.Storage on PostgreSQL. Its tables are those of
// RelStorage's history-preserving schema, so either program can open, and go on
// with, a database that the other wrote; SCHEMA.md says what is shared, what is
// ours alone, and which versions that was checked with.
//
// # Many servers
//
// Any number of servers may share a database, RelStorage clients among them.
// The database orders their commits: a transaction commits under one advisory
// lock, with a TID that is later than all that are committed, so the order of
// TIDs is the order in which transactions become visible. From Vote to Finish it
// holds advisory locks on the objects it touches; so it does while a client
// resolves a conflict.
//
// Vote writes everything, under a TID for now: what can fail fails there. Finish
// takes its turn and commits. If the connection breaks meanwhile, it finds out
// from the database what became of the commit, and votes and tries again if
// nothing did.
//
// What a server shows is what it has published. Every load asks for revisions
// up to the horizon, the last TID that was published here; a server moves its
// horizon over the transactions of all servers, one at a time and in TID order
// (publish.go). It learns of others by LISTEN/NOTIFY, and by asking now and
// then; each time it reads from the database what lies behind its horizon, so
// that a lost notification or connection costs time and nothing else.
//
// # Connections
//
// There are three pools: one for loads and all that reads, one for commits (a
// voted transaction keeps its connection until it ends), and one for blobs.
// Besides, one connection listens, each pack has one, and for moments another
// looks for what is left of uploads. [Storage.Stats] tells how they are used.
//
// # Blobs
//
// A blob is a large object. A reader gets a connection of the blobs' pool when
// it first reads, and keeps its transaction for moments only (stream.go); an
// upload writes the large object as the bytes come (upload.go).
//
// Read the files in this order: schema.go, storage.go, load.go, txn.go,
// vote.go, write.go, finish.go, doubt.go, publish.go, follow.go.
package postgres
