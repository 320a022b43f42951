package filestorage

import (
	"encoding/binary"
	"hash/crc32"

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
//	checksum   4, CRC-32C of the 48 bytes above and of the transactions
//	zero      12
//	the transactions, as they are in Data.fs
//
// Numbers are big-endian. Entries are wherever there was room: their order is
// that of the sequence. An entry without transactions, at position 0, says that
// what came before it is of no use any more.
const (
	walMagic     = "zeoWAL 1" // of the file
	walEntryTag  = "zeoentry"
	walBlock     = 4096 // what any disk takes at a time
	walHeaderLen = 64
	walSumOffset = 48
)

// walEntry is the header of an entry.
type walEntry struct {
	epoch, seq uint64
	pos        int64
	last       zeolite.TID
	length     int64
}

func (e *walEntry) next() int64 { return e.pos + e.length }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// put writes the header in front of the transactions that are already in b.
func (e *walEntry) put(b []byte) {
	clear(b[:walHeaderLen])
	copy(b, walEntryTag)
	binary.BigEndian.PutUint64(b[8:], e.epoch)
	binary.BigEndian.PutUint64(b[16:], e.seq)
	binary.BigEndian.PutUint64(b[24:], uint64(e.pos))
	binary.BigEndian.PutUint64(b[32:], uint64(e.last))
	binary.BigEndian.PutUint64(b[40:], uint64(e.length))
	binary.BigEndian.PutUint32(b[walSumOffset:], walSum(b, b[walHeaderLen:walHeaderLen+e.length]))
}

func walSum(header, transactions []byte) uint32 {
	return crc32.Update(crc32.Checksum(header[:walSumOffset], castagnoli), castagnoli, transactions)
}

// parseWALEntry reads the entry at the start of b, if a whole one is there.
func parseWALEntry(b []byte) (e walEntry, transactions []byte, ok bool) {
	if len(b) < walHeaderLen || string(b[:len(walEntryTag)]) != walEntryTag {
		return walEntry{}, nil, false
	}
	e = walEntry{
		epoch:  binary.BigEndian.Uint64(b[8:]),
		seq:    binary.BigEndian.Uint64(b[16:]),
		pos:    clampInt64(binary.BigEndian.Uint64(b[24:])),
		last:   zeolite.TID(binary.BigEndian.Uint64(b[32:])),
		length: clampInt64(binary.BigEndian.Uint64(b[40:])),
	}
	if e.length > int64(len(b)-walHeaderLen) || e.pos > 1<<62 {
		return walEntry{}, nil, false
	}
	transactions = b[walHeaderLen : walHeaderLen+e.length]
	if binary.BigEndian.Uint32(b[walSumOffset:]) != walSum(b, transactions) {
		return walEntry{}, nil, false
	}
	return e, transactions, true
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

// walBlocks is the length of an entry with n bytes of transactions, in whole
// blocks.
func walBlocks(n int64) int64 {
	return (walHeaderLen + n + walBlock - 1) / walBlock * walBlock
}
