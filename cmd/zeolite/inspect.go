package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/zeolite-go/zeolite"
)

const logHelp = `List the transactions of a database, oldest first: tid, time, number of records,
user and description. The database is a Data.fs, the address of a server, or one in
PostgreSQL (postgres://..., or libpq's keywords).

  zeolite log var/Data.fs
  zeolite log -n 20 127.0.0.1:8100
  zeolite log -since 2026-01-31 127.0.0.1:8100
`

func logCommand(args []string) error {
	fs := newFlags("log", logHelp)
	t := targetFlags(&fs.FlagSet)
	last := fs.Int("n", 0, "list only the last `N` transactions")
	since := fs.String("since", "", "list transactions since `TIME` (YYYY-MM-DD, with THH:MM:SS if need be, UTC)")
	records := fs.Bool("records", false, "list the records of each transaction too")
	if err := parseOne(fs, args, t, "a Data.fs, the address of a server or how to connect to PostgreSQL"); err != nil {
		return err
	}
	var start zeolite.TID
	if *since != "" {
		when, err := parseTime(*since)
		if err != nil {
			return err
		}
		start = zeolite.TIDFromTime(when)
	}
	return t.use(func(ctx context.Context, storage zeolite.Storage) error {
		return listTransactions(ctx, storage, start, *last, *records)
	})
}

// listTransactions prints transactions from a tid on, or only the last of them:
// those before an error, too.
func listTransactions(ctx context.Context, storage zeolite.Storage, start zeolite.TID, last int, records bool) error {
	out := bufio.NewWriter(os.Stdout)
	var kept []string
	var failed error
	for txn, err := range storage.Transactions(ctx, start, zeolite.MaxTID) {
		var text string
		if err == nil {
			text, err = describeTransaction(txn, records)
		}
		if err != nil {
			failed = err
			break
		}
		if last > 0 {
			if kept = append(kept, text); len(kept) > last {
				kept = kept[1:]
			}
			continue
		}
		if _, err := out.WriteString(text); err != nil {
			return err
		}
	}
	for _, text := range kept {
		out.WriteString(text)
	}
	return errors.Join(failed, out.Flush())
}

func describeTransaction(txn *zeolite.TransactionRecord, records bool) (string, error) {
	var lines strings.Builder
	n := 0
	for rec, err := range txn.Each() {
		if err != nil {
			return "", err
		}
		n++
		if !records {
			continue
		}
		switch {
		case rec.Data == nil:
			fmt.Fprintf(&lines, "    %v removed\n", rec.OID)
		case rec.DataTID != 0:
			fmt.Fprintf(&lines, "    %v %d bytes, as in %v\n", rec.OID, len(rec.Data), rec.DataTID)
		default:
			fmt.Fprintf(&lines, "    %v %d bytes\n", rec.OID, len(rec.Data))
		}
	}
	return fmt.Sprintf("%v  %s %c %5d  %-16q %q\n%s", txn.TID, txn.TID.Time().Format(time.DateTime),
		txn.Status, n, txn.User, txn.Description, lines.String()), nil
}

// parseTime reads a moment, UTC.
func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			return t, nil
		}
	}
	return time.Time{}, &usageError{fmt.Sprintf("%q is not a time; use 2026-01-31 or 2026-01-31T12:30:00 (UTC)", s)}
}

const loadHelp = `Write the bytes of an object to the standard output: two pickles, if Python
wrote it. OID is a number, decimal or hexadecimal (0x1a); OID@TID is the revision
that was current at transaction TID.

  zeolite load 127.0.0.1:8100 0 | python3 -m pickletools
  zeolite load var/Data.fs 0x1a@040d2c78bddddddd
`

func load(args []string) error {
	fs := newFlags("load", loadHelp)
	t := targetFlags(&fs.FlagSet)
	revision := ""
	if err := parseTwo(fs, args, t, &revision, "a Data.fs, the address of a server or how to connect to PostgreSQL, and OID or OID@TID"); err != nil {
		return err
	}
	oid, tid, err := parseRevision(revision)
	if err != nil {
		return err
	}
	return t.use(func(ctx context.Context, storage zeolite.Storage) error {
		rev, err := loadAsOf(ctx, storage, oid, tid)
		if err == nil {
			_, err = os.Stdout.Write(rev.Data)
		}
		return err
	})
}

// loadAsOf loads the revision that was current at a transaction, or now if the
// tid is zero.
func loadAsOf(ctx context.Context, storage zeolite.Storage, oid zeolite.OID, tid zeolite.TID) (zeolite.Revision, error) {
	before := zeolite.MaxTID
	if tid != 0 {
		before = tid + 1
	}
	return storage.LoadBefore(ctx, oid, before)
}

const historyHelp = `List the revisions of an object, newest first: tid, time, size of the record,
user and description.

  zeolite history 127.0.0.1:8100 0
`

func history(args []string) error {
	fs := newFlags("history", historyHelp)
	t := targetFlags(&fs.FlagSet)
	n := fs.Int("n", 100, "list at most `N` revisions")
	name := ""
	if err := parseTwo(fs, args, t, &name, "a Data.fs, the address of a server or how to connect to PostgreSQL, and an OID"); err != nil {
		return err
	}
	oid, _, err := parseRevision(name)
	if err != nil {
		return err
	}
	return t.use(func(ctx context.Context, storage zeolite.Storage) error {
		revisions, err := storage.History(ctx, oid, *n)
		for _, r := range revisions {
			fmt.Printf("%v  %s %8d  %-16q %q\n", r.TID, r.TID.Time().Format(time.DateTime), r.Size, r.User, r.Description)
		}
		return err
	})
}

const tailHelp = `Print each transaction as it is committed: tid, time, and the objects that it
changed. It goes on until it is interrupted.

  zeolite tail 127.0.0.1:8100
`

func tail(args []string) error {
	fs := newFlags("tail", tailHelp)
	t := targetFlags(&fs.FlagSet)
	if err := parseOne(fs, args, t, "the address of a server or how to connect to PostgreSQL"); err != nil {
		return err
	}
	return t.use(func(ctx context.Context, storage zeolite.Storage) error {
		watcher, ok := storage.(zeolite.Watcher)
		if !ok {
			return &usageError{"tail needs a server or PostgreSQL"}
		}
		watcher.Watch(func(tid zeolite.TID, oids []zeolite.OID, visible func()) {
			visible()
			printChange(os.Stdout, tid, oids)
		}, func() {
			fmt.Println("(changes were missed while the connection was lost)")
		})
		<-ctx.Done()
		return nil
	})
}

func printChange(w io.Writer, tid zeolite.TID, oids []zeolite.OID) {
	const most = 12
	var b strings.Builder
	what := "objects"
	if len(oids) == 1 {
		what = "object"
	}
	fmt.Fprintf(&b, "%v  %s  %d %s:", tid, tid.Time().Format(time.DateTime), len(oids), what)
	for i, oid := range oids {
		if i == most {
			b.WriteString(" …")
			break
		}
		fmt.Fprintf(&b, " %v", oid)
	}
	fmt.Fprintln(w, b.String())
}
