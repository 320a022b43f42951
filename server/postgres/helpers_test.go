package postgres

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// admin is a connection beside the storage, to look at the database and to do
// harm to it. It is used by one goroutine at a time.
type admin struct {
	testing.TB
	conn *pgx.Conn
}

func newAdmin(t testing.TB, dsn string) *admin {
	t.Helper()
	a := &admin{TB: t}
	a.connect(dsn)
	t.Cleanup(func() { a.conn.Close(context.Background()) })
	return a
}

func (a *admin) connect(dsn string) {
	a.Helper()
	conn, err := pgx.Connect(a.Context(), dsn)
	if err != nil {
		a.Fatal(err)
	}
	a.conn = conn
}

func (a *admin) exec(sql string, args ...any) {
	a.Helper()
	if _, err := a.conn.Exec(a.Context(), sql, args...); err != nil {
		a.Fatalf("%s: %v", sql, err)
	}
}

func (a *admin) number(sql string, args ...any) (n int) {
	a.Helper()
	if err := a.conn.QueryRow(a.Context(), sql, args...).Scan(&n); err != nil {
		a.Fatalf("%s: %v", sql, err)
	}
	return n
}

// pids returns the processes that serve connections of one kind.
func (a *admin) pids(app string) []int {
	a.Helper()
	rows, err := a.conn.Query(a.Context(),
		"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1 ORDER BY pid", app)
	if err != nil {
		a.Fatal(err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		a.Fatal(err)
	}
	return pids
}

// kill ends all connections of one kind and returns how many there were.
func (a *admin) kill(app string) int {
	a.Helper()
	return a.number(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = $1`, app)
}

// listening waits until a number of storages wait for commits of others.
func (a *admin) listening(n int) {
	a.Helper()
	// The state of a listening connection shows when it waits.
	eventually(a, "all listen", func() bool {
		return a.number(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND application_name = $1 AND state = 'idle' AND query NOT LIKE '%advisory%' AND query <> ''`, appFollow) == n
	})
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// put commits what fill does.
func put(t testing.TB, s zeolite.Storage, fill func(tx zeolite.Txn) error) zeolite.TID {
	t.Helper()
	tid, err := tryPut(t.Context(), s, nil, fill)
	if err != nil {
		t.Fatal(err)
	}
	return tid
}

func tryPut(ctx context.Context, s zeolite.Storage, publish zeolite.Publish, fill func(tx zeolite.Txn) error) (zeolite.TID, error) {
	tx, err := s.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		return 0, err
	}
	defer tx.Abort()
	if err := fill(tx); err != nil {
		return 0, err
	}
	if err := tx.Vote(ctx); err != nil {
		return 0, err
	}
	return tx.Finish(ctx, publish)
}

func store(ctx context.Context, oid zeolite.OID, serial zeolite.TID, text string) func(tx zeolite.Txn) error {
	return func(tx zeolite.Txn) error { return tx.Store(ctx, oid, serial, storagetest.Record(text)) }
}

// noise returns n bytes that do not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b) // never fails
	return b
}

// uploaded returns a complete upload.
func uploaded(t testing.TB, s *Storage, data []byte) zeolite.BlobUpload {
	t.Helper()
	up, err := s.CreateBlob(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 64<<10)
		if _, err := up.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := up.Complete(); err != nil {
		t.Fatal(err)
	}
	return up
}

// putBlob commits a new object with a blob.
func putBlob(t testing.TB, s *Storage, oid zeolite.OID, data []byte) zeolite.TID {
	t.Helper()
	up := uploaded(t, s, data)
	return put(t, s, func(tx zeolite.Txn) error {
		return tx.StoreBlob(t.Context(), oid, 0, storagetest.BlobRecord(), up)
	})
}

// readAll reads a blob from start to end in pieces of a size.
func readAll(b zeolite.Blob, piece int) ([]byte, error) {
	var all bytes.Buffer
	buf := make([]byte, piece)
	for off := int64(0); off < b.Size(); {
		n, err := b.ReadAt(buf[:min(int64(piece), b.Size()-off)], off)
		all.Write(buf[:n])
		if off += int64(n); err != nil {
			return all.Bytes(), fmt.Errorf("at %d: %w", off, err)
		}
	}
	return all.Bytes(), nil
}

func openBlob(t testing.TB, s *Storage, oid zeolite.OID, tid zeolite.TID) zeolite.Blob {
	t.Helper()
	b, err := s.OpenBlob(t.Context(), oid, tid)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
