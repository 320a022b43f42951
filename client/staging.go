package client

import (
	"maps"
	"slices"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs/spool"
)

// op is one operation of a transaction, with its arguments. Serial is that of what
// it replaces or checks, of Undo the transaction to undo, and of Restore the
// revision with the same record.
type op struct {
	spool.Op
	blob *upload // of Store and Restore; may be nil
}

// writes tells whether an operation gives an object a new state.
func (o *op) writes() bool {
	return o.Kind == spool.Store || o.Kind == spool.Restore || o.Kind == spool.Delete
}

// staging keeps what a transaction does until it votes. Of each object that is
// written it knows the last operation that does so, which is the one that counts,
// and of operations their blobs. It belongs to its transaction.
type staging struct {
	log   spool.Log
	last  map[zeolite.OID]int // the operation that stores, restores or deletes an object
	blobs map[int]*upload     // of operations
}

func newStaging(limit int64) staging { return staging{log: spool.NewLog(int(limit))} }

// add takes down an operation. One that writes an object replaces what wrote it
// before.
func (g *staging) add(o *op, record []byte) error {
	n := g.log.Len()
	if err := g.log.Add(&o.Op, record); err != nil {
		return err
	}
	if o.writes() {
		if g.last == nil {
			g.last = map[zeolite.OID]int{}
		}
		if i, ok := g.last[o.OID]; ok {
			delete(g.blobs, i)
		}
		g.last[o.OID] = n
	}
	if o.blob != nil {
		if g.blobs == nil {
			g.blobs = map[int]*upload{}
		}
		g.blobs[n] = o.blob
	}
	return nil
}

// record returns the record of an operation, nil if it has none. It must not
// be changed.
func (g *staging) record(o *op) ([]byte, error) {
	if o.Size == 0 {
		return nil, nil
	}
	return g.log.Record(&o.Op)
}

// each calls f for all operations that count, until one fails.
func (g *staging) each(f func(o *op) error) error {
	return g.log.Each(func(i int, logged *spool.Op) error {
		o := &op{Op: *logged}
		if last, ok := g.last[o.OID]; o.writes() && (!ok || last != i) {
			return nil
		}
		o.blob = g.blobs[i]
		return f(o)
	})
}

// changed returns the objects that the transaction writes, each once.
func (g *staging) changed() []zeolite.OID {
	return slices.Sorted(maps.Keys(g.last))
}

func (g *staging) close() {
	g.log.Close()
	*g = staging{}
}
