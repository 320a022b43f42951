package storagetest

import (
	"encoding/binary"

	"github.com/zeolite-go/zeolite"
)

// Record returns the data record of a PersistentMapping that holds payload and
// refers to refs: two pickles of protocol 3, the class and the state
// {"data": {"payload": payload, "refs": [...]}}, in which each reference is a
// persistent id (oid, class). Python's ZODB can load it.
func Record(payload string, refs ...zeolite.OID) []byte {
	rec := []byte("\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.")
	rec = append(rec, "\x80\x03}X\x04\x00\x00\x00data}("...)
	rec = append(rec, "X\x07\x00\x00\x00payloadB"...)
	rec = binary.LittleEndian.AppendUint32(rec, uint32(len(payload)))
	rec = append(rec, payload...)
	rec = append(rec, "X\x04\x00\x00\x00refs]("...)
	for _, oid := range refs {
		rec = append(rec, "C\x08"...)
		rec = append(rec, oid.Bytes()...)
		rec = append(rec, "cpersistent.mapping\nPersistentMapping\n\x86Q"...)
	}
	return append(rec, "eus."...)
}

// BlobRecord returns the data record of a ZODB.blob.Blob, the only class whose
// objects have blobs. It is the same for all of them.
func BlobRecord() []byte {
	return []byte("\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.")
}

// Extension returns a transaction's extension: the pickle of {"key": value},
// as Python writes it. It is 24 bytes longer than value.
func Extension(value string) []byte {
	ext := []byte("\x80\x03}q\x00X\x03\x00\x00\x00keyq\x01X")
	ext = binary.LittleEndian.AppendUint32(ext, uint32(len(value)))
	ext = append(ext, value...)
	return append(ext, "q\x02s."...)
}
