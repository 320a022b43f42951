package client_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"path/filepath"
	"time"

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

func ExampleStorage_History() {
	addr, stop := startServer()
	defer stop()
	s := connect(client.Options{Addresses: []string{addr}})
	defer s.Close()
	ctx := context.Background()
	serial, _ := commit(ctx, s, 1, zeolite.ZeroTID, "one")
	commit(ctx, s, 1, serial, "two")

	revisions, err := s.History(ctx, 1, 10)
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range revisions { // newest first
		data, err := s.LoadSerial(ctx, 1, r.TID)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %s: %s\n", r.User, r.Description, data)
	}
	// Output:
	// me wrote two: two
	// me wrote one: one
}

// NextRecord walks over all objects as they are now.
func ExampleStorage_NextRecord() {
	addr, stop := startServer()
	defer stop()
	s := connect(client.Options{Addresses: []string{addr}})
	defer s.Close()
	ctx := context.Background()
	commit(ctx, s, zeolite.RootOID, zeolite.ZeroTID, "root")
	commit(ctx, s, 7, zeolite.ZeroTID, "seven")

	for rec := (zeolite.CurrentRecord{More: true}); rec.More; {
		var err error
		if rec, err = s.NextRecord(ctx, rec.Next); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%v %s\n", rec.OID, rec.Data)
	}
	// Output:
	// 0x00 root
	// 0x07 seven
}

// With CachePath what was cached is there after a restart. It is verified
// before it is used, also if the server had transactions meanwhile.
func ExampleOptions_cachePath() {
	addr, stop := startServer()
	defer stop()
	dir, remove := temporaryDir()
	defer remove()
	ctx := context.Background()
	writer := connect(client.Options{Addresses: []string{addr}})
	defer writer.Close()
	serial, _ := commit(ctx, writer, 1, zeolite.ZeroTID, "old")

	options := client.Options{Addresses: []string{addr}, CachePath: filepath.Join(dir, "cache"), CacheSize: 100 << 20}
	s := connect(options)
	rev, _ := s.LoadBefore(ctx, 1, zeolite.MaxTID)
	fmt.Println(string(rev.Data))
	s.Close()

	commit(ctx, writer, 1, serial, "new")
	s = connect(options)
	defer s.Close()
	rev, _ = s.LoadBefore(ctx, 1, zeolite.MaxTID)
	fmt.Println(string(rev.Data))
	// Output:
	// old
	// new
}

// Several servers of one database: the first that answers is used. One that
// refuses writes will do until a writable one is back.
func ExampleOptions_readOnlyFallback() {
	addr, stop := startServer()
	defer stop()
	s := connect(client.Options{
		Addresses:        []string{"127.0.0.1:1", addr}, // nobody is at the first
		ReadOnlyFallback: true,
		WaitTimeout:      time.Minute,
	})
	defer s.Close()
	fmt.Println("read-only:", s.Info().ReadOnly)
	// Output: read-only: false
}

// A client is a storage: a server can serve it to clients of its own, with its
// cache between them.
func Example_fanOut() {
	far, stop := startServer()
	defer stop()
	s := connect(client.Options{Addresses: []string{far}})
	defer s.Close()

	near := server.New(server.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := near.AddStorage("1", s); err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go near.Serve(l)
	defer near.Shutdown(context.Background())

	c := connect(client.Options{Addresses: []string{l.Addr().String()}})
	defer c.Close()
	tid, err := commit(context.Background(), c, 1, zeolite.ZeroTID, "hello")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the far server has it:", s.LastTID() == tid)
	// Output: the far server has it: true
}
