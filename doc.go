// Package zeolite holds the vocabulary of ZODB storages: the words that the
// wire, the servers, the clients and the back ends of this module share.
//
// # What a storage is
//
// ZODB keeps Python objects in a database. Below the objects there is a
// storage, and a storage knows nothing about Python: it keeps byte strings,
// by name, in every state they ever had. This package describes that level.
//
// An object has a name, its [OID]: eight bytes, handed out by the storage and
// never reused. The object with OID 0 is the root from which all others are
// reached.
//
// The database changes by transactions only. A transaction has a name too,
// its [TID]: eight bytes that hold a moment in time (UTC, steps of 60/2³²
// seconds) and that grow strictly from each transaction to the next. So a TID
// also names the state of the whole database just after that transaction.
//
// When a transaction changes an object it adds a [Revision] of it: the bytes
// of the new state (two pickles, if Python wrote them, but a storage never
// looks). A revision is current from the TID that wrote it, its serial, until
// the TID that wrote the next one. To read the database as it was at some
// moment is therefore to ask, for each object, for the revision that was
// current just before a given TID: LoadBefore is the one load every ZODB
// reader uses.
//
// # How a transaction is committed
//
// Commits are optimistic. A writer says for each object which serial it read;
// if somebody else has written the object since, the store is a conflict
// ([ConflictError]) and the writer resolves it or gives up. Committing has two
// phases. In the first the writer stores records and then votes: a storage
// that accepts the vote promises that nothing but a crash can keep it from
// committing. In the second the writer finishes (the transaction gets its TID,
// becomes durable, and then visible, all of it at once) or aborts.
//
// Every other reader is then told by an invalidation which objects changed in
// which transaction, so that it can drop them from its caches. Invalidations
// reach each reader once, in TID order.
//
// # The rest of the words
//
// A blob is a file that belongs to one revision of an object, for data too big
// to be a record. Undo writes a new transaction that gives objects back the
// state they had before an earlier one. Pack forgets revisions that were
// superseded before a given time, and objects that nothing refers to.
//
// [Storage] is the contract of a back end, [Txn] that of a transaction in it.
// The network protocol (ZEO) that serves a storage to other processes is in
// packages zrpc and stubs, and described in protocol.md.
package zeolite
