package filestorage

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/zeolite-go/zeolite"
)

// The format of Data.fs. All numbers are big-endian.
//
//	file         magic, then transactions
//	transaction  header, user, description, extension, data records, length
//	data record  header, then the data; or, if its length is 0, the position
//	             of a record that holds the data, 0 if the object is gone
//
// A length in a transaction is that of the transaction less 8.
const (
	magic     = "FS30"
	magicPy2  = "FS21"
	magicLen  = 4
	txnHdrLen = 23 // tid 8, length 8, status 1, lengths of user, description, extension 2 each
	recHdrLen = 42 // oid 8, tid 8, previous 8, transaction 8, zero 2, data length 8
	lengthLen = 8
	backLen   = 8

	// guardLen is the length of an empty transaction.
	guardLen = txnHdrLen + lengthLen

	lengthOffset = 8  // of the length in a transaction header
	statusOffset = 16 // of the status byte there
)

// Statuses of a transaction.
const (
	statusNormal      = ' '
	statusPacked      = 'p'
	statusUncommitted = 'c' // voted, but not committed: it does not count
	statusUndone      = 'u' // of old versions of ZODB: it does not count
)

// txnHeader is the fixed part of a transaction at pos.
type txnHeader struct {
	pos                      int64
	tid                      zeolite.TID
	length                   int64 // without the last 8 bytes
	status                   byte
	userLen, descLen, extLen int
}

// headerLen is the length of the header with its texts.
func (h *txnHeader) headerLen() int64 {
	return int64(txnHdrLen + h.userLen + h.descLen + h.extLen)
}

// records is the position of the first record, end that of the length field
// after the last one, next that of the next transaction.
func (h *txnHeader) records() int64 { return h.pos + h.headerLen() }
func (h *txnHeader) end() int64     { return h.pos + h.length }
func (h *txnHeader) next() int64    { return h.pos + h.length + lengthLen }

// parseTxnHeader reads a header from at least txnHdrLen bytes. A length that
// does not fit an int64 becomes the largest one.
func parseTxnHeader(b []byte, pos int64) txnHeader {
	_ = b[txnHdrLen-1]
	return txnHeader{
		pos:     pos,
		tid:     zeolite.TID(binary.BigEndian.Uint64(b)),
		length:  clampInt64(binary.BigEndian.Uint64(b[8:])),
		status:  b[statusOffset],
		userLen: int(binary.BigEndian.Uint16(b[17:])),
		descLen: int(binary.BigEndian.Uint16(b[19:])),
		extLen:  int(binary.BigEndian.Uint16(b[21:])),
	}
}

// appendTxnHeader appends the header and texts of a transaction.
func appendTxnHeader(b []byte, tid zeolite.TID, length int64, status byte, user, desc, ext []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(tid))
	b = binary.BigEndian.AppendUint64(b, uint64(length))
	b = append(b, status)
	b = binary.BigEndian.AppendUint16(b, uint16(len(user)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(desc)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(ext)))
	b = append(b, user...)
	b = append(b, desc...)
	return append(b, ext...)
}

// appendGuard appends the guard that follows the last transaction, last. It has
// the same TID: after a crash Python reports that of what it cuts off as the
// last transaction.
func appendGuard(b []byte, last zeolite.TID) []byte {
	b = appendTxnHeader(b, last, txnHdrLen, statusUncommitted, nil, nil, nil)
	return binary.BigEndian.AppendUint64(b, txnHdrLen)
}

// isGuard says whether b is a guard.
func isGuard(b []byte) bool {
	if len(b) != guardLen {
		return false
	}
	h := parseTxnHeader(b, 0)
	return h.length == txnHdrLen && h.status == statusUncommitted && h.headerLen() == txnHdrLen &&
		binary.BigEndian.Uint64(b[txnHdrLen:]) == txnHdrLen
}

// recHeader is the header of the data record at pos.
type recHeader struct {
	pos     int64
	oid     zeolite.OID
	tid     zeolite.TID
	prev    int64 // position of the previous record of the object, 0 if none
	txnPos  int64
	version uint16 // length of a version name: 0, versions are long gone
	dataLen int64
	// back is set for records without data (dataLen 0): the position of the
	// record that has it, 0 if the object is gone.
	back int64
}

// len is the length of the whole record.
func (h *recHeader) len() int64 {
	if h.dataLen == 0 {
		return recHdrLen + backLen
	}
	if h.dataLen > math.MaxInt64-recHdrLen {
		return math.MaxInt64
	}
	return recHdrLen + h.dataLen
}

// next is the position after the record.
func (h *recHeader) next() int64 {
	if n := h.pos + h.len(); n > h.pos {
		return n
	}
	return math.MaxInt64
}

// gone says that the record states that the object is no more.
func (h *recHeader) gone() bool { return h.dataLen == 0 && h.back == 0 }

// parseRecHeader reads a header from at least recHdrLen bytes, and the back
// pointer too if the record has one and b goes on that far.
func parseRecHeader(b []byte, pos int64) recHeader {
	_ = b[recHdrLen-1]
	h := recHeader{
		pos:     pos,
		oid:     zeolite.OID(binary.BigEndian.Uint64(b)),
		tid:     zeolite.TID(binary.BigEndian.Uint64(b[8:])),
		prev:    clampInt64(binary.BigEndian.Uint64(b[16:])),
		txnPos:  clampInt64(binary.BigEndian.Uint64(b[24:])),
		version: binary.BigEndian.Uint16(b[32:]),
		dataLen: clampInt64(binary.BigEndian.Uint64(b[34:])),
	}
	if h.dataLen == 0 && len(b) >= recHdrLen+backLen {
		h.back = clampInt64(binary.BigEndian.Uint64(b[recHdrLen:]))
	}
	return h
}

// appendRecHeader appends a record header.
func appendRecHeader(b []byte, oid zeolite.OID, tid zeolite.TID, prev, txnPos, dataLen int64) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(oid))
	b = binary.BigEndian.AppendUint64(b, uint64(tid))
	b = binary.BigEndian.AppendUint64(b, uint64(prev))
	b = binary.BigEndian.AppendUint64(b, uint64(txnPos))
	b = append(b, 0, 0)
	return binary.BigEndian.AppendUint64(b, uint64(dataLen))
}

// check says what is wrong with a record of oid at h.pos in a file that ends
// at end; nil if it is plausible.
func (h *recHeader) check(oid zeolite.OID, end int64) error {
	if err := h.checkPlace(oid, end); err != nil {
		return err
	}
	return h.checkPointers()
}

func (h *recHeader) checkPlace(oid zeolite.OID, end int64) error {
	switch {
	case h.oid != oid:
		return damaged(h.pos, "record is of oid %v, not of %v", h.oid, oid)
	case h.version != 0:
		return damaged(h.pos, "record has a version")
	case h.next() > end:
		return damaged(h.pos, "record of oid %v has %d bytes of data, past the end at %d", oid, h.dataLen, end)
	}
	return nil
}

func (h *recHeader) checkPointers() error {
	switch {
	case h.prev >= h.pos || h.back >= h.pos || h.txnPos >= h.pos:
		return damaged(h.pos, "record of oid %v points forward, to %d", h.oid, max(h.prev, h.back, h.txnPos))
	case h.prev != 0 && h.prev < magicLen+txnHdrLen || h.back != 0 && h.back < magicLen+txnHdrLen:
		return damaged(h.pos, "record of oid %v points into the file header", h.oid)
	}
	return nil
}

// damaged makes the error that tells where a file is damaged.
func damaged(pos int64, format string, args ...any) error {
	return &zeolite.StorageError{
		Class:   "ZODB.FileStorage.FileStorage.CorruptedFileStorageError",
		Message: fmt.Sprintf("Data.fs is damaged at %d: %s", pos, fmt.Sprintf(format, args...)),
	}
}

func clampInt64(n uint64) int64 {
	if n > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(n)
}
