package server

import (
	"encoding/binary"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs/spool"
)

// operation is what a client asked for within its transaction.
type operation uint8

const (
	opStore operation = iota
	opBlob            // a store with a blob
	opDelete
	opCheck
	opRestore
	opUndo
)

// entry is one operation, with its arguments.
type entry struct {
	op     operation
	none   bool // opRestore: no data, the object is gone
	oid    zeolite.OID
	serial zeolite.TID // opUndo: the transaction to undo; opRestore: the revision with the same data
	off    int64       // of the data
	size   int
}

// entrySize is the length of an entry as it is kept.
const entrySize = 34

func (e *entry) append(b []byte) []byte {
	none := byte(0)
	if e.none {
		none = 1
	}
	b = append(b, byte(e.op), none)
	b = binary.BigEndian.AppendUint64(b, uint64(e.oid))
	b = binary.BigEndian.AppendUint64(b, uint64(e.serial))
	b = binary.BigEndian.AppendUint64(b, uint64(e.off))
	return binary.BigEndian.AppendUint64(b, uint64(e.size))
}

func entryFrom(b []byte) *entry {
	return &entry{
		op:     operation(b[0]),
		none:   b[1] == 1,
		oid:    zeolite.OID(binary.BigEndian.Uint64(b[2:])),
		serial: zeolite.TID(binary.BigEndian.Uint64(b[10:])),
		off:    int64(binary.BigEndian.Uint64(b[18:])),
		size:   int(binary.BigEndian.Uint64(b[26:])),
	}
}

// txnLog keeps what a client does in its transaction until it votes: the
// entries and their data in memory as far as a limit allows, and in temporary
// files beyond. It belongs to the client's ordered lane.
type txnLog struct {
	entries, records spool.Spool
	buf              []byte
}

// newTxnLog makes a log that has limit bytes of data in memory at the most,
// and some of entries.
func newTxnLog(limit int) txnLog {
	return txnLog{entries: spool.Spool{Limit: limit / 4}, records: spool.Spool{Limit: limit}}
}

// add appends an operation and copies its data.
func (l *txnLog) add(e entry, data []byte) (err error) {
	e.size = len(data)
	if e.off, err = l.records.Append(data); err != nil {
		return err
	}
	l.buf = e.append(l.buf[:0])
	_, err = l.entries.Append(l.buf)
	return err
}

// len is the number of entries.
func (l *txnLog) len() int { return int(l.entries.Size() / entrySize) }

// bytes is how many bytes of data there are.
func (l *txnLog) bytes() int { return int(l.records.Size()) }

// each calls f for all entries, with their numbers, until one fails.
func (l *txnLog) each(f func(i int, e *entry) error) error {
	const atOnce = 100
	for i, n := 0, l.len(); i < n; {
		some := min(n-i, atOnce)
		b, err := l.entries.Bytes(int64(i)*entrySize, some*entrySize)
		if err != nil {
			return err
		}
		for ; len(b) > 0; b = b[entrySize:] {
			if err := f(i, entryFrom(b)); err != nil {
				return err
			}
			i++
		}
	}
	return nil
}

// data returns the data of an entry. It must not be changed.
func (l *txnLog) data(e *entry) ([]byte, error) { return l.records.Bytes(e.off, e.size) }

func (l *txnLog) close() {
	l.entries.Close()
	l.records.Close()
}
