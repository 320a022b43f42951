// Package references finds out which objects a data record refers to, as
// ZODB.serialize.referencesf does, and which records are blobs.
//
// A data record is two pickles, one behind the other: the object's class, and
// its state. Whatever in them is itself a persistent object is pickled as a
// persistent id, of one of these forms:
//
//	oid                  an object without a known class
//	(oid, class)         an object
//	['w', (oid, ...)]    a weak reference; an old form is [oid]
//	['n', (db, oid)]     an object in another database
//	['m', (db, oid, class)]
//
// The first two keep an object alive. To find them the package runs over the
// opcodes (scan.go), keeps no more of each value than could become part of an
// id, and imports and builds nothing. Records that clients compressed it inflates
// (zlib.go).
package references

import (
	"bytes"

	"github.com/zeolite-go/zeolite"
)

// Find appends to oids what the record refers to, with repetitions, in the
// order in which it does. Weak references and those to other databases do not
// count. An error says that the record is not two pickles of protocol 0 to 5,
// or that it has an id of an unknown form. A record without bytes, which says
// that an object is gone, has no references.
func Find(oids []zeolite.OID, record []byte) ([]zeolite.OID, error) {
	if len(record) == 0 {
		return oids, nil
	}
	plain, err := inflateAll(record)
	if err != nil {
		return oids, err
	}
	s := scanners.Get().(*scanner)
	defer s.free()
	s.data, s.oids = plain, oids
	for range 2 {
		if err := s.pickle(); err != nil {
			return oids, err
		}
	}
	return s.oids, nil
}

var blobModule = []byte("ZODB.blob")

// IsBlob says whether a record is that of a blob: its class pickle is exactly
// the class ZODB.blob.Blob.
func IsBlob(record []byte) bool {
	plain, err := inflate(record, blobInflated)
	if err != nil || !bytes.Contains(plain, blobModule) {
		return false
	}
	s := scanners.Get().(*scanner)
	defer s.free()
	s.data = plain
	err = s.pickle()
	return err == nil && s.result.kind == kindBlobClass
}

// Check is Find for a record that may be damaged: it also fails if a pickle
// leaves something on its stack, or if anything follows the second one.
func Check(oids []zeolite.OID, record []byte) ([]zeolite.OID, error) {
	if len(record) == 0 {
		return oids, nil
	}
	plain, err := inflateAll(record)
	if err != nil {
		return oids, err
	}
	s := scanners.Get().(*scanner)
	defer s.free()
	s.data, s.oids = plain, oids
	for range 2 {
		if err := s.pickle(); err != nil {
			return oids, err
		}
		if len(s.stack) > 0 {
			return oids, formatError("a pickle leaves something on its stack")
		}
	}
	if len(s.data) > 0 {
		return oids, formatError("something follows the second pickle")
	}
	return s.oids, nil
}
