package server

import (
	"encoding/base64"
	"testing"

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
			p.assertOneLine("larger than the limit of 4096 bytes")
		}
	})
}
