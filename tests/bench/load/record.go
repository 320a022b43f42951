package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// Records are those of a persistent mapping with one key, whose value is bytes:
// the oid, a version, and a body that is the same in all of them. So each can
// be checked in full, and the body to compare it with stays in the processor's
// cache.

const (
	recordHead = "\x80\x03cpersistent.mapping\nPersistentMapping\n.\x80\x03}X\x04\x00\x00\x00dataB"
	recordTail = "s."
	nameBytes  = 16 // oid and version

	// MinRecord is the size of the smallest record.
	MinRecord = len(recordHead) + 4 + nameBytes + len(recordTail)
)

// noise is what bodies and blobs are made of. It does not compress.
var noise = func() []byte {
	b := make([]byte, noisePeriod+maxPiece)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(b[:noisePeriod])
	for n := noisePeriod; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
	return b
}()

const (
	noisePeriod = 65521 // a prime, so that no block size hides a shift
	maxPiece    = 4 << 20
)

// BlobPiece returns n bytes of the content of every blob, from an offset;
// n is at most maxPiece.
func BlobPiece(offset int64, n int) []byte {
	start := int(offset % noisePeriod)
	return noise[start : start+n]
}

// Record appends the record of an object, of exactly size bytes.
func Record(dst []byte, size int, oid, version uint64) []byte {
	body := size - MinRecord
	dst = append(dst, recordHead...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(nameBytes+body))
	dst = binary.BigEndian.AppendUint64(dst, oid)
	dst = binary.BigEndian.AppendUint64(dst, version)
	dst = append(dst, noise[:body]...)
	return append(dst, recordTail...)
}

// checkRecord looks at every byte of a record, and returns its version.
func checkRecord(data []byte, size int, oid uint64) (version uint64, err error) {
	if len(data) != size {
		return 0, fmt.Errorf("object %d has %d bytes, not %d", oid, len(data), size)
	}
	head := len(recordHead) + 4
	names := data[head : head+nameBytes]
	body := data[head+nameBytes : len(data)-len(recordTail)]
	if string(data[:len(recordHead)]) != recordHead || string(data[len(data)-len(recordTail):]) != recordTail ||
		binary.BigEndian.Uint64(names) != oid || !bytes.Equal(body, noise[:len(body)]) {
		return 0, fmt.Errorf("the record of object %d is damaged", oid)
	}
	return binary.BigEndian.Uint64(names[8:]), nil
}
