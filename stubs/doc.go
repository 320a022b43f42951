// Package stubs declares every method of ZEO 5/6 once, in both directions, and
// gives callers and dispatchers for them.
//
// [StorageServer] is what a client may ask of a server, [ClientStorage] what a
// server tells a client (protocol.go). From these two interfaces the callers
// ([StorageServerStub], [ClientStorageStub]) and the dispatchers
// ([DispatchStorageServer], [DispatchClientStorage]) are generated, so that
// they cannot drift apart. Blobs, whose transfer is a sequence of one-way
// calls, have message iterators of their own (blob.go). Which Go error stands
// for which Python exception is in one table (errors.go).
//
// Bytes that a dispatcher passes to a method alias the received message and
// are valid until the method returns. Bytes that a stub returns belong to the
// caller.
package stubs
