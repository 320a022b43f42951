package client

import (
	"fmt"
	"os"

	"github.com/zeolite-go/zeolite"
)

// operation is what a transaction is asked to do.
type operation uint8

const (
	opStore operation = iota
	opDelete
	opCheck
	opRestore
	opUndo
)

// op is one operation of a transaction, with its arguments.
type op struct {
	kind   operation
	oid    zeolite.OID
	serial zeolite.TID // opUndo: the transaction to undo; opRestore: prev
	data   []byte      // nil if spilled, or if there is none
	off    int64       // of spilled data
	size   int
	blob   *upload // of opStore and opRestore; may be nil
	void   bool    // replaced by a later one
}

// staging keeps what a transaction does until it votes, in order: records in
// memory, where the caller has put them, and beyond a limit in a temporary
// file. It belongs to its transaction.
type staging struct {
	limit  int64
	ops    []op
	last   map[zeolite.OID]int // the one that stores, restores or deletes an object
	memory int64
	file   *os.File // nil until memory does not suffice
	size   int64    // of the file
}

// add takes down an operation. One that writes an object replaces what wrote
// it before.
func (g *staging) add(o op, data []byte) error {
	o.size = len(data)
	if g.file == nil && g.memory+int64(len(data)) > g.limit {
		f, err := os.CreateTemp("", "zeolite-client-*.tbuf")
		if err != nil {
			return fmt.Errorf("temporary file of a transaction: %w", err)
		}
		_ = os.Remove(f.Name())
		g.file = f
	}
	switch {
	case data == nil:
	case g.file == nil || int64(len(data)) < 64:
		o.data = data
		g.memory += int64(len(data))
	default:
		if _, err := g.file.WriteAt(data, g.size); err != nil {
			return fmt.Errorf("temporary file of a transaction: %w", err)
		}
		o.off = g.size
		g.size += int64(len(data))
	}
	switch o.kind {
	case opStore, opRestore, opDelete:
		if g.last == nil {
			g.last = map[zeolite.OID]int{}
		}
		if i, ok := g.last[o.oid]; ok {
			g.ops[i].void = true
			g.ops[i].data = nil
		}
		g.last[o.oid] = len(g.ops)
	}
	g.ops = append(g.ops, o)
	return nil
}

// bytes returns the record of an operation, nil if it has none.
func (g *staging) bytes(o *op) ([]byte, error) {
	if o.data != nil || o.size == 0 {
		return o.data, nil
	}
	data := make([]byte, o.size)
	if _, err := g.file.ReadAt(data, o.off); err != nil {
		return nil, fmt.Errorf("temporary file of a transaction: %w", err)
	}
	return data, nil
}

// each calls f for all operations that count, until one fails.
func (g *staging) each(f func(o *op) error) error {
	for i := range g.ops {
		if g.ops[i].void {
			continue
		}
		if err := f(&g.ops[i]); err != nil {
			return err
		}
	}
	return nil
}

// changed returns the objects that the transaction writes, each once.
func (g *staging) changed() []zeolite.OID {
	oids := make([]zeolite.OID, 0, len(g.last))
	for i, o := range g.ops {
		if j, ok := g.last[o.oid]; ok && j == i {
			oids = append(oids, o.oid)
		}
	}
	return oids
}

func (g *staging) close() {
	if g.file != nil {
		g.file.Close()
	}
	*g = staging{}
}
