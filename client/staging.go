package client

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs/spool"
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

// writes tells whether an operation gives an object a new state.
func (k operation) writes() bool { return k == opStore || k == opRestore || k == opDelete }

// op is one operation of a transaction, with its arguments.
type op struct {
	kind   operation
	oid    zeolite.OID
	serial zeolite.TID // opUndo: the transaction to undo; opRestore: prev
	off    int64       // of the record
	size   int         // 0: there is none
	blob   *upload     // of opStore and opRestore; may be nil
}

// opSize is the length of an op as it is kept.
const opSize = 33

func (o *op) append(b []byte) []byte {
	b = append(b, byte(o.kind))
	b = binary.BigEndian.AppendUint64(b, uint64(o.oid))
	b = binary.BigEndian.AppendUint64(b, uint64(o.serial))
	b = binary.BigEndian.AppendUint64(b, uint64(o.off))
	return binary.BigEndian.AppendUint64(b, uint64(o.size))
}

func opFrom(b []byte) *op {
	return &op{
		kind:   operation(b[0]),
		oid:    zeolite.OID(binary.BigEndian.Uint64(b[1:])),
		serial: zeolite.TID(binary.BigEndian.Uint64(b[9:])),
		off:    int64(binary.BigEndian.Uint64(b[17:])),
		size:   int(binary.BigEndian.Uint64(b[25:])),
	}
}

// staging keeps what a transaction does until it votes, in order: operations
// and records in memory up to a limit, and beyond it in temporary files. In
// memory alone it keeps, of each object that is written, the number of the last
// operation that does so, and what belongs to blobs. It belongs to its
// transaction.
type staging struct {
	ops, records spool.Spool
	last         map[zeolite.OID]int // the one that stores, restores or deletes an object
	blobs        map[int]*upload     // of operations
	buf          []byte
}

// newStaging makes one that has limit bytes of records in memory at the most,
// and some of operations.
func newStaging(limit int64) staging {
	return staging{ops: spool.Spool{Limit: int(limit / 4)}, records: spool.Spool{Limit: int(limit)}}
}

// add takes down an operation, and fills in where its record is. One that
// writes an object replaces what wrote it before.
func (g *staging) add(o *op, record []byte) (err error) {
	o.size = len(record)
	if o.off, err = g.records.Append(record); err != nil {
		return err
	}
	n := g.len()
	g.buf = o.append(g.buf[:0])
	if _, err = g.ops.Append(g.buf); err != nil {
		return err
	}
	if o.kind.writes() {
		if g.last == nil {
			g.last = map[zeolite.OID]int{}
		}
		if i, ok := g.last[o.oid]; ok {
			delete(g.blobs, i)
		}
		g.last[o.oid] = n
	}
	if o.blob != nil {
		if g.blobs == nil {
			g.blobs = map[int]*upload{}
		}
		g.blobs[n] = o.blob
	}
	return nil
}

// len is the number of operations, with those that were replaced.
func (g *staging) len() int { return int(g.ops.Size() / opSize) }

// record returns the record of an operation, nil if it has none. It must not
// be changed.
func (g *staging) record(o *op) ([]byte, error) {
	if o.size == 0 {
		return nil, nil
	}
	return g.records.Bytes(o.off, o.size)
}

// each calls f for all operations that count, until one fails.
func (g *staging) each(f func(o *op) error) error {
	const atOnce = 100
	for i, n := 0, g.len(); i < n; {
		some := min(n-i, atOnce)
		b, err := g.ops.Bytes(int64(i)*opSize, some*opSize)
		if err != nil {
			return err
		}
		for ; len(b) > 0; b = b[opSize:] {
			o := opFrom(b)
			if last, ok := g.last[o.oid]; !o.kind.writes() || ok && last == i {
				o.blob = g.blobs[i]
				if err := f(o); err != nil {
					return err
				}
			}
			i++
		}
	}
	return nil
}

// changed returns the objects that the transaction writes, each once.
func (g *staging) changed() []zeolite.OID {
	return slices.Sorted(maps.Keys(g.last))
}

func (g *staging) close() {
	g.ops.Close()
	g.records.Close()
	*g = staging{}
}
