package stubs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// loads is a StorageServer that has one record.
type loads struct {
	StorageServer
	revision zeolite.Revision
}

func (s loads) LoadBefore(context.Context, zeolite.OID, zeolite.TID) (zeolite.Revision, error) {
	return s.revision, nil
}

// BenchmarkDispatch reads calls of loadBefore from a connection, dispatches them
// and writes the replies: all but the storage and the network.
func BenchmarkDispatch(b *testing.B) {
	for _, enc := range encodings {
		b.Run(fmt.Sprint(enc), func(b *testing.B) {
			id := zrpc.Tuple{[]byte("\x00\x00\x00\x00\x00\x00\x00\x01"), []byte("\x7f\xff\xff\xff\xff\xff\xff\xff")}
			e := zrpc.NewEncoder(enc, nil)
			e.Start()
			e.Value(zrpc.Tuple{id, false, "loadBefore", id})
			e.Stop()
			frame := append(zrpc.AppendFrameHeader(nil, len(e.Buf)), e.Buf...)
			f := &endless{feed{in: bytes.NewReader(bytes.Repeat(frame, b.N)), idle: make(chan struct{}), closed: make(chan struct{})}}
			srv := loads{revision: zeolite.Revision{Data: make([]byte, 1024), TID: 5}}
			b.ReportAllocs()
			b.ResetTimer()
			c := zrpc.NewConn(f, enc, zrpc.Options{})
			c.Start(handlerFunc(func(call *zrpc.Call) { DispatchStorageServer(bg, srv, call) }))
			<-f.idle
			b.StopTimer()
			if err := c.Err(); err != nil {
				b.Fatal(err)
			}
			c.Close()
		})
	}
}

// endless is a feed that forgets what is written to it.
type endless struct{ feed }

func (f *endless) Write(p []byte) (int, error) { return io.Discard.Write(p) }
