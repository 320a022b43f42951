package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/client"
)

// A transaction changes several objects together, and depends on another one.
func ExampleStorage_Begin() {
	addr, stop := startServer()
	defer stop()
	s := connect(client.Options{Addresses: []string{addr}})
	defer s.Close()
	ctx := context.Background()
	serial, err := commit(ctx, s, 1, zeolite.ZeroTID, "the rate")
	if err != nil {
		log.Fatal(err)
	}

	transfer := func() error {
		oids, err := s.NewOIDs(ctx, 2)
		if err != nil {
			return err
		}
		tx, err := s.Begin(ctx, zeolite.TxnMeta{User: []byte("joe"), Description: []byte("transfer")})
		if err != nil {
			return err
		}
		defer tx.Abort()
		// What is wrong with these is told by Vote.
		if err := errors.Join(
			tx.CheckCurrent(ctx, 1, serial),
			tx.Store(ctx, oids[0], zeolite.ZeroTID, []byte("from")),
			tx.Store(ctx, oids[1], zeolite.ZeroTID, []byte("to")),
		); err != nil {
			return err
		}
		if err := tx.Vote(ctx); err != nil {
			return err
		}
		_, err = tx.Finish(ctx, nil)
		return err
	}
	fmt.Println("first:", transfer())

	if _, err := commit(ctx, s, 1, serial, "another rate"); err != nil {
		log.Fatal(err)
	}
	err = transfer() // with what it read before
	var conflict *zeolite.ConflictError
	fmt.Println("second: a conflict:", errors.As(err, &conflict), "about", conflict.OID)
	// Output:
	// first: <nil>
	// second: a conflict: true about 0x01
}

// What a transaction did is undone by another one.
func ExampleTxn_Undo() {
	addr, stop := startServer()
	defer stop()
	s := connect(client.Options{Addresses: []string{addr}})
	defer s.Close()
	ctx := context.Background()
	serial, _ := commit(ctx, s, 1, zeolite.ZeroTID, "good")
	commit(ctx, s, 1, serial, "bad")

	for txn, err := range s.UndoLog(ctx) { // newest first
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("undo %q\n", txn.Description)
		tx, err := s.Begin(ctx, zeolite.TxnMeta{})
		if err != nil {
			log.Fatal(err)
		}
		defer tx.Abort()
		if _, err := tx.Undo(ctx, txn.TID); err != nil {
			log.Fatal(err)
		}
		if err := tx.Vote(ctx); err != nil {
			log.Fatal(err) // *zeolite.UndoError if a later one stands in the way
		}
		if _, err := tx.Finish(ctx, nil); err != nil {
			log.Fatal(err)
		}
		break
	}
	rev, err := s.LoadBefore(ctx, 1, zeolite.MaxTID)
	fmt.Println(string(rev.Data), err)
	// Output:
	// undo "wrote bad"
	// good <nil>
}

// A call that failed because the connection was lost says whether it may be
// made again.
func ExampleSafeToRepeat() {
	ctx := context.Background()
	s := connect(client.Options{
		Addresses:   []string{"127.0.0.1:1"},
		NoWait:      true,
		WaitTimeout: 10 * time.Millisecond,
	})
	defer s.Close()
	_, err := s.LoadBefore(ctx, zeolite.RootOID, zeolite.MaxTID)
	fmt.Println(err != nil, client.SafeToRepeat(err))
	// Output: true true
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
