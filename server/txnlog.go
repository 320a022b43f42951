package server

import (
	"fmt"
	"os"

	"github.com/zeolite-go/zeolite"
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

// txnLog keeps what a client does in its transaction until it votes: the
// entries in memory, their data in memory as far as a limit allows and in a
// temporary file beyond. It belongs to the client's ordered lane.
type txnLog struct {
	limit   int
	entries []entry
	memory  []byte
	file    *os.File // nil while memory suffices
	size    int64    // of the file
}

// add appends an operation and copies its data.
func (l *txnLog) add(e entry, data []byte) error {
	e.size = len(data)
	if l.file == nil && len(l.memory)+len(data) > l.limit {
		if err := l.spill(); err != nil {
			return err
		}
	}
	if l.file == nil {
		e.off = int64(len(l.memory))
		l.memory = append(l.memory, data...)
	} else {
		e.off = l.size
		if _, err := l.file.WriteAt(data, l.size); err != nil {
			return fmt.Errorf("temporary file of a transaction: %w", err)
		}
		l.size += int64(len(data))
	}
	l.entries = append(l.entries, e)
	return nil
}

// spill moves the data to a temporary file, which has no name any more as soon
// as it is open.
func (l *txnLog) spill() error {
	f, err := os.CreateTemp("", "zeolite-txn-*")
	if err != nil {
		return fmt.Errorf("temporary file of a transaction: %w", err)
	}
	_ = os.Remove(f.Name())
	if _, err := f.Write(l.memory); err != nil {
		f.Close()
		return fmt.Errorf("temporary file of a transaction: %w", err)
	}
	l.file, l.size, l.memory = f, int64(len(l.memory)), nil
	return nil
}

// data returns the data of an entry. It must not be changed.
func (l *txnLog) data(e *entry) ([]byte, error) {
	if l.file == nil {
		return l.memory[e.off : e.off+int64(e.size) : e.off+int64(e.size)], nil
	}
	data := make([]byte, e.size)
	if _, err := l.file.ReadAt(data, e.off); err != nil {
		return nil, fmt.Errorf("temporary file of a transaction: %w", err)
	}
	return data, nil
}

func (l *txnLog) close() {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	l.entries, l.memory = nil, nil
}
