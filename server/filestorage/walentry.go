package filestorage

import (
	"encoding/binary"
	"hash/crc32"
	"math"

	"github.com/zeolite-go/zeolite"
)

// The write-ahead log is a file of blocks. The first says what it is:
//
//	magic      8 bytes
//	epoch      8, random: nobody who sends data can make an entry of it
//	checksum   4, CRC-32C of the above
//
// An entry begins at a block, too, and holds what one group of transactions adds
// to Data.fs:
//
//	magic      8 bytes
//	epoch      8
//	sequence   8, one more than that of the entry before
//	position   8, of the first transaction in Data.fs
//	last       8, the TID of the transaction that ends there
//	length     8, of the transactions
//	blobs      8, length of what follows the transactions
//	behind     4, how far before position Data.fs was durable, in bytes
//	checksum   4, CRC-32C of the 60 bytes above and of what follows the header
//	the transactions, as they are in Data.fs
//	their blobs that are small: oid 8, tid 8, length 8, and the contents
//
// Numbers are big-endian. Entries are wherever there was room: their order is
// that of the sequence. An entry without transactions, at position 0, says that
// what came before it is of no use any more.
const (
	walTag       = "zeoWAL "
	walMagic     = walTag + "3" // of the file
	walEntryTag  = "zeoentry"
	walBlock     = 4096 // what any disk takes at a time
	walHeaderLen = 64
	walSumOffset = 60

	walBlobHdrLen = 24
)

// walEntry is the header of an entry.
type walEntry struct {
	epoch, seq uint64
	pos        int64
	last       zeolite.TID
	length     int64
	blobs      int64 // length of the blobs, with their headers
	durable    int64 // Data.fs and blobs were durable up to here; it may be too low
}

// walBlob is a blob in an entry.
type walBlob struct {
	oid  zeolite.OID
	tid  zeolite.TID
	data []byte
}

func (e *walEntry) next() int64 { return e.pos + e.length }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// put writes the header in front of the transactions and blobs that are already
// in b.
func (e *walEntry) put(b []byte) {
	clear(b[:walHeaderLen])
	copy(b, walEntryTag)
	binary.BigEndian.PutUint64(b[8:], e.epoch)
	binary.BigEndian.PutUint64(b[16:], e.seq)
	binary.BigEndian.PutUint64(b[24:], uint64(e.pos))
	binary.BigEndian.PutUint64(b[32:], uint64(e.last))
	binary.BigEndian.PutUint64(b[40:], uint64(e.length))
	binary.BigEndian.PutUint64(b[48:], uint64(e.blobs))
	binary.BigEndian.PutUint32(b[56:], uint32(min(e.pos-e.durable, math.MaxUint32)))
	binary.BigEndian.PutUint32(b[walSumOffset:], walSum(b, b[walHeaderLen:walHeaderLen+e.length+e.blobs]))
}

func walSum(header, contents []byte) uint32 {
	return crc32.Update(crc32.Checksum(header[:walSumOffset], castagnoli), castagnoli, contents)
}

// parseWALEntry reads the entry at the start of b, if a whole one is there.
func parseWALEntry(b []byte) (r walRecord, ok bool) {
	if len(b) < walHeaderLen || string(b[:len(walEntryTag)]) != walEntryTag {
		return walRecord{}, false
	}
	e := walEntry{
		epoch:  binary.BigEndian.Uint64(b[8:]),
		seq:    binary.BigEndian.Uint64(b[16:]),
		pos:    clampInt64(binary.BigEndian.Uint64(b[24:])),
		last:   zeolite.TID(binary.BigEndian.Uint64(b[32:])),
		length: clampInt64(binary.BigEndian.Uint64(b[40:])),
		blobs:  clampInt64(binary.BigEndian.Uint64(b[48:])),
	}
	e.durable = e.pos - int64(binary.BigEndian.Uint32(b[56:]))
	room := int64(len(b) - walHeaderLen)
	if e.length > room || e.blobs > room-e.length || e.pos > 1<<62 {
		return walRecord{}, false
	}
	contents := b[walHeaderLen : walHeaderLen+e.length+e.blobs]
	if binary.BigEndian.Uint32(b[walSumOffset:]) != walSum(b, contents) {
		return walRecord{}, false
	}
	r = walRecord{walEntry: e, transactions: contents[:e.length:e.length]}
	r.files, ok = parseWALBlobs(contents[e.length:])
	return r, ok
}

// appendWALBlobHeader appends what precedes the contents of a blob.
func appendWALBlobHeader(b []byte, oid zeolite.OID, tid zeolite.TID, size int64) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(oid))
	b = binary.BigEndian.AppendUint64(b, uint64(tid))
	return binary.BigEndian.AppendUint64(b, uint64(size))
}

// parseWALBlobs reads the blobs of an entry.
func parseWALBlobs(b []byte) (blobs []walBlob, ok bool) {
	for len(b) > 0 {
		if len(b) < walBlobHdrLen {
			return nil, false
		}
		size := binary.BigEndian.Uint64(b[16:])
		if size > uint64(len(b)-walBlobHdrLen) {
			return nil, false
		}
		end := walBlobHdrLen + int(size)
		blobs = append(blobs, walBlob{
			oid:  zeolite.OID(binary.BigEndian.Uint64(b)),
			tid:  zeolite.TID(binary.BigEndian.Uint64(b[8:])),
			data: b[walBlobHdrLen:end:end],
		})
		b = b[end:]
	}
	return blobs, true
}

// putWALHeader writes the first block of a log.
func putWALHeader(b []byte, epoch uint64) {
	clear(b[:walBlock])
	copy(b, walMagic)
	binary.BigEndian.PutUint64(b[8:], epoch)
	binary.BigEndian.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
}

// parseWALHeader returns the epoch of the log that begins with b.
func parseWALHeader(b []byte) (epoch uint64, ok bool) {
	if len(b) < walBlock || string(b[:len(walMagic)]) != walMagic ||
		binary.BigEndian.Uint32(b[16:]) != crc32.Checksum(b[:16], castagnoli) {
		return 0, false
	}
	return binary.BigEndian.Uint64(b[8:]), true
}

// otherWAL returns the version of a log that another version of this package has
// written.
func otherWAL(b []byte) (version string, other bool) {
	if len(b) < walBlock || string(b[:len(walTag)]) != walTag ||
		binary.BigEndian.Uint32(b[16:]) != crc32.Checksum(b[:16], castagnoli) {
		return "", false
	}
	version = string(b[len(walTag):len(walMagic)])
	return version, version != walMagic[len(walTag):]
}

// walBlocks is the length of an entry with n bytes of transactions and blobs, in
// whole blocks.
func walBlocks(n int64) int64 {
	return (walHeaderLen + n + walBlock - 1) / walBlock * walBlock
}
