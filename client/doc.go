// Package client is a ZODB storage that lives on a ZEO server, of this module
// or of Python: [Open] connects, and the [Storage] it returns is a
// zeolite.Storage with undo, packing, blobs and live invalidations.
//
// # What may be used at once
//
// A Storage is safe for concurrent use, and one is enough for a program: calls
// share its connection, and none waits for the answer to another. Large blobs
// are sent and received piece by piece, between other messages. A [Txn], and a
// blob that is read or written, belong to one goroutine at a time. Options are
// read by Open and may be used again.
//
// Calls that may have to wait for a server take a context, and return when it
// ends. What was asked for goes on at the server then: the answer goes into a
// cache or is dropped, but that of Finish is kept for Storage.Outcome. What a
// call returns belongs to the caller. Callbacks (Publish, Options.Progress)
// must be quick, and may load. They must not call Sync, CatchUp, Vote, Finish or
// Close of the same Storage, which wait until callbacks have returned.
// Options.Resolve may take its time, and may load.
//
// # What is shown
//
// All loads show the database as of LastTID, which grows as the server tells of
// transactions, and never show less or more: see Storage.LoadBefore. So two
// loads before the same tid agree with each other, on any goroutine, whether
// they were answered from the cache, by this server or by the next one. Only
// NextRecord gives what is current at the server.
//
// # When the connection is lost
//
// The Storage connects again by itself, for as long as it is open. Calls that
// only read wait for that, up to Options.WaitTimeout, and are made once more;
// so is Vote. Others fail with *DisconnectedError, which says whether
// repeating is safe ([SafeToRepeat]). Only Finish can leave a doubt,
// *InDoubtError, and Storage.Outcome settles it. Nothing is lost and nothing
// done twice.
//
// The cache is verified before the new connection is used, by what the server
// says has changed. A server with less than the cache is refused: it may be an
// old backup.
//
// # Where to start reading
//
// storage.go is the door. connect.go, link.go and verify.go are the connection;
// cache.go, journal.go and load.go are reading; publish.go is the order in
// which things become visible; txn.go, staging.go, commit.go and outcome.go are
// writing; blobcache.go, bloblock.go, blobclean.go, download.go and upload.go
// are blobs.
package client
