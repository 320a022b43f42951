package server

import (
	"context"
	"iter"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// TestIterators walks transactions and records, in both encodings.
func TestIterators(t *testing.T) {
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
			s := startServer(t, open(t), Options{})
			p := s.connect(t, enc)
			var tids []zeolite.TID
			for i := range 3 {
				tids = append(tids, p.commit(zeolite.OID(i+1), 0, record("x")))
			}
			// Ids come from one sequence for both kinds.
			if iid := p.call("iterator_start", nil, nil); iid != int64(0) {
				t.Errorf("first iterator is %v, want 0", iid)
			}
			entry := tupleOf(t, p.call("iterator_next", 0))
			if len(entry) != 5 || tidOf(t, entry[0]) != tids[0] || entry[1] != " " ||
				string(entry[2].([]byte)) != "user" || string(entry[3].([]byte)) != "description" ||
				dictOf(t, entry[4]).Len() != 0 {
				t.Errorf("iterator_next: %v", entry)
			}
			if iid := p.call("iterator_record_start", 0, tids[0]); iid != int64(1) {
				t.Errorf("record iterator is %v, want 1", iid)
			}
			rec := tupleOf(t, p.call("iterator_record_next", 1))
			if len(rec) != 4 || oidOf(t, rec[0]) != 1 || tidOf(t, rec[1]) != tids[0] ||
				string(rec[2].([]byte)) != string(record("x")) || rec[3] != nil {
				t.Errorf("iterator_record_next: %v", rec)
			}
			if v := p.call("iterator_record_next", 1); v != nil {
				t.Errorf("after the last record: %v", v)
			}
			p.callRaises("builtins.KeyError", "iterator_record_next", 1)

			// Records of the transaction that was returned last only.
			p.callRaises("builtins.Exception", "iterator_record_start", 0, tids[1])
			p.call("iterator_next", 0)
			p.callRaises("builtins.Exception", "iterator_record_start", 0, tids[0])
			p.call("iterator_next", 0)
			if v := p.call("iterator_next", 0); v != nil {
				t.Errorf("after the last transaction: %v", v)
			}
			e := p.callRaises("builtins.KeyError", "iterator_next", 0)
			if args := e.State.(zrpc.Tuple); len(args) != 1 || args[0] != int64(0) {
				t.Errorf("KeyError has %v, want the id", args)
			}

			// Ranges include both ends; an iterator given up is gone.
			iid := p.call("iterator_start", tids[1], tids[1])
			if e := tupleOf(t, p.call("iterator_next", iid)); tidOf(t, e[0]) != tids[1] {
				t.Errorf("range: %v, want %v", e[0], tids[1])
			}
			p.send("iterator_gc", zrpc.List{iid, int64(777)})
			eventually(t, "the iterator is gone", func() bool {
				return p.waitReply(p.begin("iterator_next", iid)).isException()
			})
			// Another client's ids are its own.
			q := s.connect(t, enc)
			if iid := q.call("iterator_start", tids[2], nil); iid != int64(0) {
				t.Errorf("another client's first iterator is %v, want 0", iid)
			}
		})
	})
}

// TestIteratorsEndWithTheConnection: what they hold is given back.
func TestIteratorsEndWithTheConnection(t *testing.T) {
	storage := &countingStorage{newFaulty(newMemory(t)), make(chan struct{}, 10)}
	s := startServer(t, storage, Options{})
	p := s.connect(t, zrpc.Pickle)
	tid := p.commit(1, 0, record("x"))
	p.commit(1, tid, record("y"))
	for i := range 3 {
		p.call("iterator_start", nil, nil)
		p.call("iterator_next", i)
	}
	p.close()
	p.waitGone()
	if n := len(storage.ended); n != 3 {
		t.Errorf("%d iterators ended, want 3", n)
	}
}

// TestIteratorsFromSeveralCallsAtOnce is for the race detector.
func TestIteratorsFromSeveralCallsAtOnce(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	p := s.connect(t, zrpc.Msgpack)
	tid := p.commit(1, 0, record("x"))
	p.call("iterator_start", nil, nil)
	p.call("iterator_next", 0)
	var calls []int64
	for i := range 60 {
		calls = append(calls, p.begin("iterator_start", nil, nil), p.begin("iterator_next", i),
			p.begin("iterator_record_start", 0, tid), p.begin("iterator_record_next", i))
		p.send("iterator_gc", zrpc.List{int64(i + 5)})
	}
	for _, c := range calls {
		p.waitReply(c)
	}
}

// countingStorage tells when iterations over its transactions end.
type countingStorage struct {
	*faultyStorage
	ended chan struct{}
}

func (c *countingStorage) Transactions(ctx context.Context, start, stop zeolite.TID) iter.Seq2[*zeolite.TransactionRecord, error] {
	return func(yield func(*zeolite.TransactionRecord, error) bool) {
		defer func() { c.ended <- struct{}{} }()
		c.faultyStorage.Transactions(ctx, start, stop)(yield)
	}
}
