package server

import (
	"context"
	"encoding/base64"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// Of undos that cannot be, a transaction keeps one reason, however many there are.
func TestManyBadUndos(t *testing.T) {
	for class, id := range map[string]string{
		"binascii.Error":              "no base64!",
		"ZODB.POSException.UndoError": base64.StdEncoding.EncodeToString([]byte("short")),
	} {
		s := startServer(t, newMemory(t), Options{})
		p := s.connect(t, zrpc.Msgpack)
		kept := map[int]string{}
		for _, n := range []int{1, 1000} {
			txn := p.tpcBegin()
			for range n {
				p.send("undoa", []byte(id), txn)
			}
			p.sync()
			kept[n] = p.session().txn.failed.Error()
			p.callRaises(class, "vote", txn)
		}
		if kept[1] != kept[1000] {
			t.Errorf("%s: of 1000 bad ids %d bytes are kept, of one %d", class, len(kept[1000]), len(kept[1]))
		}
	}
}

// A client that may not store is not let send as much as one that may.
func TestReadOnlyClientSendsNoBulk(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{Limits: Limits{MaxMessage: 4 << 10, MaxRecord: 64 << 10}})
		for _, name := range []string{"storea", "restorea", "storeBlobChunk", "storeBlobEnd", "storeBlobShared", "storeEmptyBlob"} {
			p := s.connectReadOnly(t, enc)
			p.send(name, make([]byte, 5<<10))
			p.waitClosed()
			p.assertOneLine("larger than the limit of 4096 bytes to raise the limit=--max-message; the client is read-only")
		}
		// No flag raises what is for everybody who has not registered.
		p := s.dial(t, enc)
		p.send("storea", make([]byte, maxUnregistered+1))
		p.waitClosed()
		p.assertOneLine("larger than the limit of 65536 bytes the limit is for=clients that have not registered")
	})
}

// What a client chooses does not fill the log, neither by its length nor by its
// number.
func TestLogIsNotFlooded(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newFileStorage(t), Options{})
		long := strings.Repeat("x", 50<<10)
		asked := s.dial(t, enc)
		for range 100 {
			asked.callRaises("builtins.ValueError", "register", long, false)
		}
		asked.call("register", "1", false)
		for range 100 {
			asked.send("set_client_label", long)
		}
		asked.sync()
		shared := s.connect(t, enc)
		id := shared.tpcBegin()
		shared.send("storeBlobShared", zeolite.OID(1), zeolite.ZeroTID, []byte("x"), long, id)
		shared.waitClosed()
		blamed := s.connect(t, enc)
		id = blamed.tpcBegin()
		for range 100 {
			blamed.send("storeBlobShared", zeolite.OID(1), zeolite.ZeroTID, []byte("x"), "x.tmp", id)
		}
		blamed.callRaises("builtins.FileNotFoundError", "vote", id)
		for range 100 {
			id := blamed.tpcBegin()
			blamed.send("storeBlobShared", zeolite.OID(1), zeolite.ZeroTID, []byte("x"), "x.tmp", id)
			blamed.callRaises("builtins.FileNotFoundError", "vote", id)
			id = blamed.tpcBegin()
			blamed.send("undoa", []byte("no base64!"), id)
			blamed.callRaises("binascii.Error", "vote", id)
			for oid, data := range map[zeolite.OID][]byte{1: nil, 1<<63 - 1: []byte("x")} {
				id = blamed.tpcBegin()
				blamed.store(id, oid, 0, data)
				blamed.callRaises("ZODB.POSException.StorageError", "vote", id)
			}
			blamed.send("tpc_begin", id, []byte(long+long), []byte("d"), zrpc.NewDict())
			blamed.exception(blamed.begin("vote", id))
			blamed.send("tpc_begin", id, []byte("u"), []byte("d"), zrpc.NewDict(), zeolite.MaxTID, " ")
			blamed.exception(blamed.begin("vote", id))
		}
		if enc == zrpc.Pickle {
			for _, payload := range []string{
				"\x80\x03(K\x00\x88X\x05\x00\x00\x00undoac" + long + "\n" + long + "\n\x85t.",
				"\x80\x03c\xff" + long + "\n" + long + "\n.",
			} {
				p := s.connect(t, enc)
				p.writeFrame([]byte(payload))
				p.waitClosed()
			}
		}
		for _, message := range []string{"client asked for an unknown storage", "client label", "client was disconnected", "vote failed"} {
			s.logs.wait(t, message, func(r logRecord) bool { return r.message == message })
		}
		lines := 0
		for _, r := range s.logs.all() {
			if len(r.text) > 1000 {
				t.Errorf("a line of %d bytes: %.200s", len(r.text), r.text)
			}
			if r.level > slog.LevelDebug {
				lines++
			}
		}
		if lines > 20 {
			t.Errorf("%d lines", lines)
		}
	})
}

// longStorage has more transactions than a client may ask for at once.
type longStorage struct {
	zeolite.Storage
	info  zeolite.TransactionInfo
	asked atomic.Int64 // for so many
}

func (l *longStorage) UndoLog(context.Context) iter.Seq2[*zeolite.TransactionInfo, error] {
	return func(yield func(*zeolite.TransactionInfo, error) bool) {
		for range 3 * maxListed {
			if l.asked.Add(1); !yield(&l.info, nil) {
				return
			}
		}
	}
}

func (l *longStorage) History(_ context.Context, _ zeolite.OID, n int) ([]zeolite.TransactionInfo, error) {
	l.asked.Add(int64(n))
	return slices.Repeat([]zeolite.TransactionInfo{l.info}, min(n, 3*maxListed)), nil
}

// However much a client wants to hear of transactions, it gets so much, or is told
// that it is too much.
func TestListsAreBounded(t *testing.T) {
	text := strings.Repeat("x", 60<<10)
	short, err := zrpc.AppendPickle(nil, zrpc.NewDict("k", text))
	if err != nil {
		t.Fatal(err)
	}
	// {"k": (text, text, ...)}, with one text
	again := "\x80\x03}X\x01\x00\x00\x00k(X\x00\xc0\x00\x00" + text[:0xc000] + "q\x00" + strings.Repeat("h\x00", 300) + "ts."
	for name, c := range map[string]struct {
		info   zeolite.TransactionInfo
		enough int // too few
		most   int // are looked at
	}{
		"many":              {zeolite.TransactionInfo{}, maxListed / 10, maxListed + 1},
		"large":             {zeolite.TransactionInfo{Description: []byte(text)}, 100, 1200},
		"large extensions":  {zeolite.TransactionInfo{Extension: short}, 100, 1200},
		"larger than bytes": {zeolite.TransactionInfo{Extension: []byte(again)}, 4, 6},
	} {
		t.Run(name, func(t *testing.T) {
			storage := &longStorage{Storage: newMemory(t), info: c.info}
			storage.info.TID = 1 << 40
			s := startServer(t, storage, Options{})
			p := s.connect(t, zrpc.Msgpack)
			for _, list := range []zrpc.Tuple{tupleOf(t, p.call("undoLog", 0, c.enough)), tupleOf(t, p.call("history", zeolite.OID(0), c.enough))} {
				if len(list) != c.enough {
					t.Errorf("got %d entries, want %d", len(list), c.enough)
				}
			}
			for _, name := range []string{"undoLog", "undoInfo"} {
				storage.asked.Store(0)
				if e := p.callRaises("builtins.ValueError", name, 0, int64(1)<<62); !strings.Contains(e.Error(), "ask for fewer") {
					t.Error(e)
				}
				if n := int(storage.asked.Load()); n > c.most {
					t.Errorf("%s looked at %d transactions, want %d at the most", name, n, c.most)
				}
			}
			storage.asked.Store(0)
			p.callRaises("builtins.ValueError", "history", zeolite.OID(0), int64(1)<<62)
			if n, most := int(storage.asked.Load()), firstHistory+3*c.most; n > most {
				t.Errorf("history asked for %d transactions, want %d at the most", n, most)
			}
		})
	}
}

// A transaction of too many operations fails at its vote, and nothing more is kept
// of it, blobs included.
func TestTooManyOperations(t *testing.T) {
	s := startServer(t, newFileStorage(t), Options{Limits: Limits{Operations: 10}})
	p := s.connect(t, zrpc.Msgpack)
	for n := range 20 {
		id := p.tpcBegin()
		for i := range n {
			if oid := zeolite.OID(100*n + i); i%2 == 0 {
				p.store(id, oid, 0, record("x"))
			} else {
				p.send("storeBlobStart")
				p.send("storeBlobEnd", oid, zeolite.ZeroTID, record("blob"), id)
			}
		}
		if n <= 10 {
			p.call("vote", id)
			p.finish(id)
			continue
		}
		p.sync()
		if txn := p.session().txn; txn.log.Len() != 10 || len(txn.blobs) != 5 {
			t.Errorf("of %d operations %d are kept, and %d blobs", n, txn.log.Len(), len(txn.blobs))
		}
		if e := p.callRaises("ZODB.POSException.StorageError", "vote", id); !strings.Contains(e.Error(), "--max-operations") {
			t.Error(e)
		}
	}
}
