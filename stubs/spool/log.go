package spool

import (
	"encoding/binary"

	"github.com/zeolite-go/zeolite"
)

// Kind says what an operation of a transaction does.
type Kind uint8

// The kinds of operations, as Op.Kind.
const (
	Store Kind = iota
	StoreBlob
	Delete
	Check
	Restore
	Undo
)

// Op is one operation, with its arguments. Its record is kept apart from it.
type Op struct {
	Kind   Kind
	Gone   bool // of Restore: there is no record, the object is gone
	OID    zeolite.OID
	Serial zeolite.TID // of Undo: the transaction to undo; of Restore: the revision with the same data
	Size   int         // of the record, in bytes

	off int64 // of the record
}

// opSize is the length of an Op as it is kept.
const opSize = 34

func (o *Op) append(b []byte) []byte {
	gone := byte(0)
	if o.Gone {
		gone = 1
	}
	b = append(b, byte(o.Kind), gone)
	b = binary.BigEndian.AppendUint64(b, uint64(o.OID))
	b = binary.BigEndian.AppendUint64(b, uint64(o.Serial))
	b = binary.BigEndian.AppendUint64(b, uint64(o.off))
	return binary.BigEndian.AppendUint64(b, uint64(o.Size))
}

func opFrom(b []byte) Op {
	return Op{
		Kind:   Kind(b[0]),
		Gone:   b[1] == 1,
		OID:    zeolite.OID(binary.BigEndian.Uint64(b[2:])),
		Serial: zeolite.TID(binary.BigEndian.Uint64(b[10:])),
		off:    int64(binary.BigEndian.Uint64(b[18:])),
		Size:   int(binary.BigEndian.Uint64(b[26:])),
	}
}

// Log keeps the operations of a transaction, in order, and their records. It is
// used by one goroutine at a time.
type Log struct {
	ops, records Spool
	buf          []byte
}

// NewLog makes a log that has limit bytes of records in memory at the most, and a
// quarter of that of operations; the rest is in temporary files.
func NewLog(limit int) Log {
	return Log{ops: Spool{Limit: limit / 4}, records: Spool{Limit: limit}}
}

// Add appends an operation with its record, which is copied, and whose length
// becomes o.Size. If it fails, no operation was added.
func (l *Log) Add(o *Op, record []byte) (err error) {
	o.Size = len(record)
	if o.off, err = l.records.Append(record); err != nil {
		return err
	}
	l.buf = o.append(l.buf[:0])
	_, err = l.ops.Append(l.buf)
	return err
}

// Len is the number of operations.
func (l *Log) Len() int { return int(l.ops.Size() / opSize) }

// Bytes is how many bytes of records there are.
func (l *Log) Bytes() int64 { return l.records.Size() }

// Each calls f for all operations, with their numbers, until one fails. o is valid
// until f returns.
func (l *Log) Each(f func(i int, o *Op) error) error {
	const atOnce = 100
	var o Op
	for i, n := 0, l.Len(); i < n; {
		some := min(n-i, atOnce)
		b, err := l.ops.Bytes(int64(i)*opSize, some*opSize)
		if err != nil {
			return err
		}
		for ; len(b) > 0; b = b[opSize:] {
			o = opFrom(b)
			if err := f(i, &o); err != nil {
				return err
			}
			i++
		}
	}
	return nil
}

// Record returns the record of an operation, empty if it has none. It must not be
// changed, and stays as it is whatever is added.
func (l *Log) Record(o *Op) ([]byte, error) { return l.records.Bytes(o.off, o.Size) }

// InMemory tells whether Record would not read a file.
func (l *Log) InMemory(o *Op) bool { return l.records.InMemory(o.off) }

// Close forgets all of it.
func (l *Log) Close() {
	l.ops.Close()
	l.records.Close()
}
