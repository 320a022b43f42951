package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/client"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/memory"
)

// startServer starts a server for the examples and returns its address.
func startServer() (addr string, stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	storage := memory.New(memory.Options{})
	srv := server.New(server.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := srv.AddStorage("1", storage); err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	return l.Addr().String(), func() {
		srv.Shutdown(context.Background())
		storage.Close()
	}
}

// connect opens a client for the examples.
func connect(opt client.Options) *client.Storage {
	opt.Logger = slog.New(slog.DiscardHandler)
	s, err := client.Open(context.Background(), opt)
	if err != nil {
		log.Fatal(err)
	}
	return s
}

// commit stores one record, the way every write goes.
func commit(ctx context.Context, s zeolite.Storage, oid zeolite.OID, serial zeolite.TID, data string) (zeolite.TID, error) {
	tx, err := s.Begin(ctx, zeolite.TxnMeta{User: []byte("me"), Description: []byte("wrote " + data)})
	if err != nil {
		return 0, err
	}
	defer tx.Abort() // does nothing after Finish
	if err := tx.Store(ctx, oid, serial, []byte(data)); err != nil {
		return 0, err
	}
	if err := tx.Vote(ctx); err != nil {
		return 0, err
	}
	return tx.Finish(ctx, nil)
}

func ExampleOpen() {
	addr, stop := startServer()
	defer stop()
	ctx := context.Background()

	s, err := client.Open(ctx, client.Options{
		Addresses: []string{addr},
		Label:     "example",
		Logger:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	if _, err := commit(ctx, s, zeolite.RootOID, zeolite.ZeroTID, "hello"); err != nil {
		log.Fatal(err)
	}
	rev, err := s.LoadBefore(ctx, zeolite.RootOID, zeolite.MaxTID)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, as of the last transaction: %t\n", rev.Data, rev.TID == s.LastTID())
	// Output: hello, as of the last transaction: true
}

func ExampleStorage_LoadBefore() {
	addr, stop := startServer()
	defer stop()
	s := connect(client.Options{Addresses: []string{addr}})
	defer s.Close()
	ctx := context.Background()

	first, _ := commit(ctx, s, 1, 0, "first")
	second, _ := commit(ctx, s, 1, first, "second")
	now, _ := s.LoadBefore(ctx, 1, zeolite.MaxTID)
	then, _ := s.LoadBefore(ctx, 1, second)
	_, err := s.LoadBefore(ctx, 1, first)
	fmt.Printf("%s, %s, %v\n", now.Data, then.Data, err)
	// Output: second, first, the object did not exist yet
}

func ExampleStorage_Prefetch() {
	addr, stop := startServer()
	defer stop()
	s := connect(client.Options{Addresses: []string{addr}})
	defer s.Close()
	ctx := context.Background()

	tid, _ := commit(ctx, s, 1, 0, "one")
	tid, _ = commit(ctx, s, 2, 0, "two")
	fmt.Println(s.Prefetch(ctx, []zeolite.OID{1, 2, 3}, tid+1))
	// Output: <nil>
}

func ExampleStorage_Transactions() {
	addr, stop := startServer()
	defer stop()
	s := connect(client.Options{Addresses: []string{addr}})
	defer s.Close()
	ctx := context.Background()

	serial, _ := commit(ctx, s, 1, 0, "one")
	commit(ctx, s, 1, serial, "two")
	for txn, err := range s.Transactions(ctx, zeolite.ZeroTID, zeolite.MaxTID) {
		if err != nil {
			log.Fatal(err)
		}
		for rec, err := range txn.Records {
			if err != nil {
				log.Fatal(err)
			}
			fmt.Printf("%s: %v = %s\n", txn.Description, rec.OID, rec.Data)
		}
	}
	// Output:
	// wrote one: 0x01 = one
	// wrote two: 0x01 = two
}

func ExampleStorage_Watch() {
	addr, stop := startServer()
	defer stop()
	watcher := connect(client.Options{Addresses: []string{addr}})
	defer watcher.Close()
	told := make(chan string, 1)
	watcher.Watch(func(_ zeolite.TID, oids []zeolite.OID, visible func()) {
		visible()
		told <- fmt.Sprint("changed: ", oids)
	}, func() {})

	writer := connect(client.Options{Addresses: []string{addr}})
	defer writer.Close()
	if _, err := commit(context.Background(), writer, 1, 0, "x"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-told)
	// Output: changed: [0x01]
}

func ExampleStorage_CreateBlob() {
	addr, stop := startServer()
	defer stop()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s := connect(client.Options{Addresses: []string{addr}, BlobDir: dir})
	defer s.Close()
	ctx := context.Background()

	upload, err := s.CreateBlob(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer upload.Discard() // does nothing after a commit
	fmt.Fprint(upload, "as many bytes as you like")
	if err := upload.Complete(); err != nil {
		log.Fatal(err)
	}
	tx, err := s.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		log.Fatal(err)
	}
	defer tx.Abort()
	record := []byte("\x80\x03cZODB.blob\nBlob\n.\x80\x03N.") // what Python writes
	if err := tx.StoreBlob(ctx, 1, 0, record, upload); err != nil {
		log.Fatal(err)
	}
	if err := tx.Vote(ctx); err != nil {
		log.Fatal(err)
	}
	tid, err := tx.Finish(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}

	blob, err := s.OpenBlob(ctx, 1, tid)
	if err != nil {
		log.Fatal(err)
	}
	defer blob.Close()
	text, err := io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
	fmt.Println(string(text), err)
	// Output: as many bytes as you like <nil>
}

func ExampleStorage_Outcome() {
	addr, stop := startServer()
	defer stop()
	s := connect(client.Options{Addresses: []string{addr}})
	defer s.Close()
	ctx := context.Background()

	tid, err := commit(ctx, s, 1, 0, "x")
	if errors.Is(err, zeolite.ErrInDoubt) {
		// The connection was lost at the worst moment. Was it committed?
		tid, err = s.Outcome(ctx, err)
	}
	switch {
	case err != nil:
		log.Fatal(err)
	case tid == zeolite.ZeroTID:
		fmt.Println("not committed")
	default:
		fmt.Println("committed")
	}
	// Output: committed
}

func ExampleOptions_resolve() {
	addr, stop := startServer()
	defer stop()
	s := connect(client.Options{
		Addresses: []string{addr},
		Resolve: func(_ context.Context, c client.Conflict) ([]byte, error) {
			return append([]byte("merged "), c.Data...), nil
		},
	})
	defer s.Close()
	ctx := context.Background()

	first, _ := commit(ctx, s, 1, 0, "first")
	commit(ctx, s, 1, first, "second")
	tid, err := commit(ctx, s, 1, first, "third") // did not see the second
	if err != nil {
		log.Fatal(err)
	}
	data, _ := s.LoadSerial(ctx, 1, tid)
	fmt.Println(string(data))
	// Output: merged third
}
