package server

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// TestConflictsFoundByVote has a storage that finds conflicts only when it is
// voted on, as one does that others commit to: the client is told of each, with
// its record, and may resolve them and vote again.
func TestConflictsFoundByVote(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		storage := newFaulty(newMemory(t))
		s := startServer(t, storage, Options{})
		p := s.connect(t, enc)
		oids := []zeolite.OID{p.newOID(), p.newOID(), p.newOID()}
		var serials []zeolite.TID
		for _, oid := range oids {
			serials = append(serials, p.commit(oid, 0, record("old")))
		}
		late := func(more ...error) error {
			return errors.Join(append([]error{
				&zeolite.ConflictError{OID: oids[2], Committed: 77, Seen: serials[2]},
				&zeolite.ConflictError{OID: oids[0], Committed: 66, Seen: serials[0]},
			}, more...)...)
		}
		begin := func() int64 {
			id := p.tpcBegin()
			for i, oid := range oids {
				p.store(id, oid, serials[i], record("overwritten"))
				p.store(id, oid, serials[i], record("mine"))
			}
			return id
		}

		storage.fails("vote", late())
		id := begin()
		got := tupleOf(t, p.call("vote", id))
		if len(got) != 2 {
			t.Fatalf("vote: %v, want two conflicts", got)
		}
		for i, want := range []struct {
			oid             zeolite.OID
			committed, seen zeolite.TID
		}{{oids[0], 66, serials[0]}, {oids[2], 77, serials[2]}} {
			c := dictOf(t, got[i])
			field := func(name string) zrpc.Value {
				v, _ := c.Get(name)
				return v
			}
			serials := tupleOf(t, field("serials"))
			if oidOf(t, field("oid")) != want.oid || tidOf(t, serials[0]) != want.committed || tidOf(t, serials[1]) != want.seen ||
				string(field("data").([]byte)) != string(record("mine")) {
				t.Errorf("conflict %d is %v, want %v", i, c, want)
			}
		}
		// The client keeps its locks, resolves, and votes again.
		if _, held, _ := s.exports["1"].locks.state(); held != 1 {
			t.Errorf("%d transactions hold locks, want 1", held)
		}
		storage.on("vote", nil)
		p.store(id, oids[0], serials[0], record("resolved"))
		if got := tupleOf(t, p.call("vote", id)); len(got) != 0 {
			t.Errorf("the second vote: %v", got)
		}
		tid := p.finish(id)
		if rev, err := storage.LoadBefore(context.Background(), oids[0], zeolite.MaxTID); err != nil || rev.TID != tid || string(rev.Data) != string(record("resolved")) {
			t.Errorf("stored %q, %v", rev.Data, err)
		}
		for i := range serials {
			serials[i] = tid
		}

		// A conflict that no client can resolve is an error, and ends the
		// transaction.
		for _, c := range []*zeolite.ConflictError{
			{OID: oids[1], Committed: 99, Read: true}, {OID: oids[1]}, {OID: 12345, Committed: 99},
		} {
			storage.fails("vote", late(c))
			id = begin()
			if e := p.exception(p.begin("vote", id)); e.Class != "ZODB.POSException.ConflictError" && e.Class != "ZODB.POSException.ReadConflictError" {
				t.Errorf("raised %v", e)
			}
			s.waitIdle()
		}
		storage.on("vote", nil)
		p.commit(oids[1], tid, record("goes on"))
	})
}

// TestConflictsOfManyBytes votes with more conflicts than a reply is to hold: the
// client resolves what it is told, and is told the rest when it votes again.
func TestConflictsOfManyBytes(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		p := s.connect(t, enc)
		for i := range 5 {
			p.commit(zeolite.OID(i+1), 0, record("theirs"))
		}
		large := bytes.Repeat([]byte("x"), conflictBytes*2/5)
		id := p.tpcBegin()
		for i := range 5 {
			p.store(id, zeolite.OID(i+1), 7, large)
		}
		for _, want := range []int{2, 2, 1, 0} {
			got := tupleOf(t, p.call("vote", id))
			if len(got) != want {
				t.Fatalf("%d conflicts, want %d", len(got), want)
			}
			for _, c := range got {
				oid, _ := dictOf(t, c).Get("oid")
				serials, _ := dictOf(t, c).Get("serials")
				p.store(id, oidOf(t, oid), tidOf(t, tupleOf(t, serials)[0]), large)
			}
		}
		tid := p.finish(id)
		for i := range 5 {
			p.assertLoads(zeolite.OID(i+1), tid, large)
		}
	})
}
