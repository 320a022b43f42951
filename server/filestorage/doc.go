// Package filestorage keeps a ZODB database in one file, Data.fs, in the
// format of Python's ZODB FileStorage, and blobs in a directory beside it.
//
// # The file
//
// Data.fs begins with four bytes, "FS30". After them come the transactions,
// one behind the other, in TID order: a header, one record for each object the
// transaction changed, and the length once more, so that the file can be read
// backwards too. A record names its object and its transaction, points to the
// previous record of the object, and holds the object's bytes, or points to
// another record that holds the same bytes. All of that is in format.go.
//
// What Python needs is all in this file. Data.fs.wal, which is there while the
// storage is open or if it was not closed, must not be lost, either: after a power
// failure it may be the only one that has the last transactions, and their small
// blobs. The others are conveniences that may be lost: Data.fs.index saves a scan
// at the start, Data.fs.oid remembers which oids were handed out, Data.fs.old is
// the file before the last pack, Data.fs.trN holds what was cut off a torn end,
// Data.fs.walN a log that did not fit Data.fs, Data.fs.lock keeps a second process
// out.
//
// # In memory
//
// The index maps each object to its newest record (index.go): that and the
// open file are a generation (generation.go), which packing replaces as a
// whole. Reads take no lock that a commit holds: they look up the index, read
// the file at that position, and follow pointers to older records if they
// must.
//
// An object costs 8 to 10 bytes in the index if oids are close to each other, as
// they are when they are handed out one after the other, and about 100 if no
// other oid is near it (the 4096 neighbours share a bucket). What comes from a
// saved index stays in its file, which is mapped into memory (mapped.go): it
// counts as memory of the process when it has been looked up, until the kernel
// takes it back, and on disk until the storage is closed or packed, although
// another file has taken its name. Of objects that were changed there is a copy,
// with their neighbours, so that an object may cost 16 bytes. Packing needs two
// indexes more; nothing else grows with the number of objects.
//
// # Opening
//
// If the saved index is good, only what was committed after it is scanned;
// else the whole file is, at the speed of the disk. Good is an index that is whole
// and in order, and has the last records of the transactions it is for; where it
// says that an object is, is compared when the object is loaded. A long scan tells the log
// how far it is, and can be cancelled (OpenContext).
//
// # Committing
//
// A transaction gathers its records in the form they will have in the file
// (stage.go, txn.go). Vote reserves disk space (space.go). Finish queues up:
// whoever comes first commits for all who wait (finish.go, commit.go).
//
// A small group is durable by one write to a log beside Data.fs (wal.go) before
// it is written to Data.fs, which is synced a second later at most
// (walsync.go). Data.fs.wal is there from the first commit until the storage is
// closed. If it is there at the start, Data.fs gets from it what a power failure
// has kept from it (walreplay.go). A large group takes two syncs of Data.fs
// instead. The log has small blobs, too; larger ones are synced when their upload
// ends (blobsync.go).
//
// A large group, and every group if there is no log, is written over a guard, and
// leaves one: an empty transaction marked as not committed, which every reader of
// the format, also Python's, passes over. The next commit overwrites it. So the
// first thing after the last committed transaction is, durably, something marked
// as not committed, and a crash in the middle of such a commit can never leave a
// file whose end has to be guessed. Closing the storage removes the guard.
//
// # Checking
//
// Check (check.go) reads a whole database, also while it is served, and says
// what is wrong with it.
//
// # What differs from Python's FileStorage
//
//   - Packing keeps an object that only later transactions refer to, or write;
//     Python drops it. It does not keep old revisions for the sake of later
//     records that point to their data: the data moves to those. It keeps the
//     last transaction, if without records, so that the last tid stays. Where
//     a reference leads nowhere both refuse to collect garbage; ours can be
//     told not to (Options.PackDangling).
//   - Where a transaction has two records of an object, as after two undos in
//     one, packing keeps what later ones took from the second; Python gives them
//     what the first has.
//   - Iterating over the objects passes over those that are gone, where Python
//     raises POSKeyError and cannot go on.
//   - The tid of an object that is gone is always an error; Python answers in
//     some cases.
//   - Where an undo takes a merge with what later transactions did to an object,
//     Python runs the object's class. Here the vote reports a conflict with the
//     state to merge, and the caller, as a rule the client of a server, merges and
//     stores it. One that cannot has a conflict then, where Python raises
//     UndoError. Of the transactions that one transaction undoes, those that
//     changed an object one right after the other take one merge of it, as if they
//     were one; an undo that would take a second one is refused.
package filestorage
