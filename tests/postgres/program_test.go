package postgres

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/client"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/server/postgres"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/peers"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// zeoliteRuns runs a command of the built program and returns what it printed.
func zeoliteRuns(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	cmd := exec.Command(peers.Binary(t), args...)
	b, err := cmd.CombinedOutput()
	return string(b), err
}

func mustRun(t *testing.T, want string, args ...string) string {
	t.Helper()
	out, err := zeoliteRuns(t, args...)
	if err != nil || !strings.Contains(out, want) {
		t.Fatalf("zeolite %s: %v, printed\n%s\nwant %q", strings.Join(args, " "), err, out, want)
	}
	return out
}

// connectTo returns a client of a server.
func connectTo(t *testing.T, addr string) *client.Storage {
	t.Helper()
	c, err := client.Open(t.Context(), client.Options{Addresses: []string{addr}, BlobDir: t.TempDir(),
		WaitTimeout: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// put commits what fill does.
func put(t *testing.T, s zeolite.Storage, fill func(tx zeolite.Txn) error) zeolite.TID {
	t.Helper()
	tid, err := tryPut(t.Context(), s, fill)
	if err != nil {
		t.Fatal(err)
	}
	return tid
}

func tryPut(ctx context.Context, s zeolite.Storage, fill func(tx zeolite.Txn) error) (zeolite.TID, error) {
	tx, err := s.Begin(ctx, zeolite.TxnMeta{User: []byte("user"), Description: []byte("description")})
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
	return tx.Finish(ctx, nil)
}

// upload returns a complete upload of n bytes that are told apart by a number.
func upload(t *testing.T, s zeolite.BlobStorage, n, number int) (zeolite.BlobUpload, []byte) {
	t.Helper()
	data := bytes.Repeat(fmt.Appendf(nil, "blob %d ", number), n/7+1)[:n]
	up, err := s.CreateBlob(t.Context())
	if err == nil {
		_, err = up.Write(data)
	}
	if err == nil {
		err = up.Complete()
	}
	if err != nil {
		t.Fatal(err)
	}
	return up, data
}

func blobOf(t *testing.T, s zeolite.BlobStorage, oid zeolite.OID, tid zeolite.TID) []byte {
	t.Helper()
	b, err := s.OpenBlob(t.Context(), oid, tid)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	data, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestServe runs two of the built program on one database: the clients of each
// see what those of the other commit; one is killed in the middle of commits and
// uploads, and what it leaves behind holds up nobody.
func TestServe(t *testing.T) {
	cluster, dsn := pgtest.Shared(t), pgtest.Database(t)
	one := peers.Start(t, peers.Zeolite, peers.Options{Postgres: dsn, Flags: []string{"--http", "127.0.0.1:0", "--metrics",
		"--postgres-loads", "4", "--postgres-commits", "3", "--postgres-blobs", "5"}})
	two := peers.Start(t, peers.Zeolite, peers.Options{Postgres: dsn, TransactionTimeout: 1})
	a, b := connectTo(t, one.Address()), connectTo(t, two.Address())
	ctx := t.Context()

	up, data := upload(t, a, 3<<20, 1)
	first := put(t, a, func(tx zeolite.Txn) error {
		if err := tx.Store(ctx, 0, 0, storagetest.Record("root", 1)); err != nil {
			return err
		}
		return tx.StoreBlob(ctx, 1, 0, storagetest.BlobRecord(), up)
	})
	eventually(t, "the other server's client hears of it", func() bool { return b.LastTID() == first })
	if got := blobOf(t, b, 1, first); !bytes.Equal(got, data) {
		t.Errorf("the blob has %d bytes, or others", len(got))
	}
	second := put(t, b, func(tx zeolite.Txn) error { return tx.Store(ctx, 0, first, storagetest.Record("second", 1)) })
	eventually(t, "and the other way round", func() bool {
		rev, err := a.LoadBefore(ctx, 0, zeolite.MaxTID)
		return err == nil && rev.TID == second
	})

	// The numbers of the pools are there, and the limits are those of the flags.
	get := func(path string) string {
		t.Helper()
		resp, err := http.Get("http://" + one.HTTP(t) + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %d, %v", path, resp.StatusCode, err)
		}
		return string(body)
	}
	if got := get("/blobs/1/1"); got != string(data) {
		t.Errorf("over HTTP the blob has %d bytes, or others", len(got))
	}
	page := get("/metrics")
	for _, want := range []string{
		`zeolite_postgres_connections_max{pool="loads",storage="1"} 4`, `zeolite_postgres_connections_max{pool="commits",storage="1"} 3`,
		`zeolite_postgres_connections_max{pool="blobs",storage="1"} 5`, `zeolite_postgres_connections_busy{pool="commits",storage="1"} 0`,
		`zeolite_postgres_listened_total{storage="1"} 1`, `zeolite_postgres_spooled_bytes{storage="1"} 0`,
		// And all else that a site wants to see.
		`zeolite_connections 1`, `zeolite_call_seconds_count{method="vote"} 1`, `zeolite_call_errors_total{method="vote"} 0`,
		`zeolite_commit_lock_wait_seconds_count{storage="1"} 1`, `zeolite_invalidations_sent_total{storage="1"} 1`,
		`zeolite_blob_downloads{storage="1"} 0`, `zeolite_blob_uploads_total{storage="1"} 1`, `zeolite_http_blob_streams 0`,
		`zeolite_queued_bytes 0`, `zeolite_packs_total{end="success",storage="1"} 0`,
	} {
		if !strings.Contains(page, "\n"+want+"\n") {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if !regexp.MustCompile(`\nzeolite_sent_bytes_total [1-9]`).MatchString(page) || !regexp.MustCompile(`\nzeolite_postgres_acquired_total\{pool="loads",storage="1"\} [1-9]`).MatchString(page) {
		t.Errorf("/metrics has no bytes sent, or no connections acquired:\n%s", page)
	}

	// A client that stalls between vote and finish is thrown out by the
	// transaction timeout, and its connection to the database with it.
	stalled, err := b.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		t.Fatal(err)
	}
	if err := stalled.Store(ctx, 0, second, storagetest.Record("stalled")); err != nil {
		t.Fatal(err)
	}
	if err := stalled.Vote(ctx); err != nil {
		t.Fatal(err)
	}
	third := put(t, a, func(tx zeolite.Txn) error { return tx.Store(ctx, 0, second, storagetest.Record("third", 1)) })
	if _, err := stalled.Finish(ctx, nil); err == nil {
		t.Error("a transaction that was timed out was committed")
	}

	// One server is killed with a voted transaction and an upload.
	dying, err := a.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		t.Fatal(err)
	}
	up, _ = upload(t, a, 2<<20, 2)
	if err := dying.StoreBlob(ctx, 2, 0, storagetest.BlobRecord(), up); err != nil {
		t.Fatal(err)
	}
	if err := dying.Store(ctx, 0, third, storagetest.Record("dying")); err != nil {
		t.Fatal(err)
	}
	if err := dying.Vote(ctx); err != nil {
		t.Fatal(err)
	}
	if err := one.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other server knows what was committed last", func() bool { return b.LastTID() >= third })
	fourth := put(t, b, func(tx zeolite.Txn) error { return tx.Store(ctx, 0, third, storagetest.Record("fourth", 1)) })
	if n := cluster.Value(t, dsn, "SELECT count(*) FROM transaction WHERE tid > 0"); n != "4" {
		t.Errorf("%s transactions, want 4", n)
	}
	if n := cluster.Value(t, dsn, "SELECT count(*) FROM blob_chunk"); n != "1" {
		t.Errorf("%s blobs, want 1", n)
	}
	dying.Abort()
	if err := one.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client is back", func() bool {
		rev, err := a.LoadBefore(ctx, 0, zeolite.MaxTID)
		return err == nil && rev.TID == fourth
	})

	// The commands that look work on the database, too, beside the servers.
	if out := mustRun(t, "description", "log", dsn); strings.Count(out, "\n") != 4 {
		t.Errorf("log printed\n%s", out)
	}
	mustRun(t, "fourth", "load", dsn, "0")
	mustRun(t, "Packed", "pack", dsn)
	if out := mustRun(t, "", "history", dsn, "0"); strings.Count(out, "\n") != 1 {
		t.Errorf("history after a pack:\n%s", out)
	}
	mustRun(t, "Packed", "pack", two.Address())
	if rev, err := b.LoadBefore(ctx, 0, zeolite.MaxTID); err != nil || rev.TID != fourth {
		t.Errorf("after packs: %v, %v", rev.TID, err)
	}
}

// history fills a storage with all that a copy has to bring over.
func history(t *testing.T, s zeolite.Storage) {
	t.Helper()
	ctx, blobs := t.Context(), s.(zeolite.BlobStorage)
	var serial, blobSerial zeolite.TID
	for i := range 12 {
		serial = put(t, s, func(tx zeolite.Txn) error {
			return tx.Store(ctx, 0, serial, storagetest.Record(fmt.Sprint("root ", i), 1, 2))
		})
		up, _ := upload(t, blobs, i*100_000, i)
		blobSerial = put(t, s, func(tx zeolite.Txn) error {
			// Not in the order of oids.
			for oid := zeolite.OID(100 + 20*i); oid > zeolite.OID(90+20*i); oid-- {
				if err := tx.Store(ctx, oid, 0, storagetest.Record(fmt.Sprint("new ", oid))); err != nil {
					return err
				}
			}
			return tx.StoreBlob(ctx, 1, blobSerial, storagetest.BlobRecord(), up)
		})
	}
	put(t, s, func(tx zeolite.Txn) error { return tx.Delete(ctx, 100, mustSerial(t, s, 100)) })
	put(t, s, func(tx zeolite.Txn) error {
		_, err := tx.Undo(ctx, blobSerial)
		return err
	})
	// Part of it is packed.
	if err := s.(zeolite.Packer).Pack(ctx, mustSerial(t, s, 180), zeolite.PackOptions{GC: new(bool)}); err != nil {
		t.Fatal(err)
	}
}

func mustSerial(t *testing.T, s zeolite.Storage, oid zeolite.OID) zeolite.TID {
	t.Helper()
	tid, err := s.CurrentTID(t.Context(), oid)
	if err != nil {
		t.Fatal(err)
	}
	return tid
}

// TestCopyBothWays copies a Data.fs into PostgreSQL and back with the built
// program, and through a server. One copy is killed on its way, and goes on.
func TestCopyBothWays(t *testing.T) {
	ctx := t.Context()
	file := func(dir string) (string, string) { return filepath.Join(dir, "Data.fs"), filepath.Join(dir, "blobs") }
	open := func(dir string) *filestorage.Storage {
		path, blobs := file(dir)
		s, err := filestorage.Open(path, filestorage.Options{BlobDir: blobs})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	from := t.TempDir()
	original := open(from)
	history(t, original)
	// More, so that there is time to kill the copy.
	for i := range zeolite.OID(300) {
		put(t, original, func(tx zeolite.Txn) error { return tx.Store(ctx, 1000+i, 0, storagetest.Record("more")) })
	}
	if err := original.Close(); err != nil {
		t.Fatal(err)
	}
	path, blobs := file(from)
	dsn := pgtest.Database(t)

	// The first attempt is killed when part of it is there.
	cmd := exec.Command(peers.Binary(t), "copy", path, dsn, "-src-blobs", blobs)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	eventually(t, "some of it is copied", func() bool {
		out, err := pgtest.Shared(t).SQL(dsn[strings.LastIndex(dsn, "=")+1:], "SELECT count(*) FROM transaction WHERE tid > 0")
		return err == nil && len(out) > 1 // ten at least
	})
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-ended
	// The second one goes on.
	out := mustRun(t, "the copy is equal", "copy", path, dsn, "-src-blobs", blobs)
	if !strings.Contains(out, "Went on after transaction") {
		t.Errorf("it began anew:\n%s", out)
	}
	// A third has nothing to do, but to compare.
	mustRun(t, "Copied 0 transactions", "copy", path, dsn, "-src-blobs", blobs)

	// And back, also through a server, and between two databases.
	back := t.TempDir()
	backPath, backBlobs := file(back)
	mustRun(t, "the copy is equal", "copy", dsn, backPath, "-dst-blobs", backBlobs)
	mustRun(t, "the copy is equal", "copy", dsn, pgtest.Database(t))
	srv := peers.Start(t, peers.Zeolite, peers.Options{Postgres: dsn})
	served := t.TempDir()
	servedPath, servedBlobs := file(served)
	mustRun(t, "the copy is equal", "copy", srv.Address(), servedPath, "-src-blobs", t.TempDir(), "-dst-blobs", servedBlobs)

	// What came back is what there was, and the database goes on.
	mustRun(t, "Copied 0 transactions", "copy", path, backPath, "-src-blobs", blobs, "-dst-blobs", backBlobs)
	returned := open(back)
	defer returned.Close()
	put(t, returned, func(tx zeolite.Txn) error { return tx.Store(ctx, 5000, 0, storagetest.Record("goes on")) })
	pg := opened(t, postgres.Options{DSN: dsn})
	put(t, pg, func(tx zeolite.Txn) error { return tx.Store(ctx, 5000, 0, storagetest.Record("goes on")) })
	// A database that has something else is refused.
	if out, err := zeoliteRuns(t, "copy", path, dsn, "-src-blobs", blobs); err == nil || !strings.Contains(out, "is not a copy of the source") {
		t.Errorf("copied into a database that went on: %v, %s", err, out)
	}
}

// TestPackProgram packs a database, and does not make one to pack.
func TestPackProgram(t *testing.T) {
	dsn := pgtest.Database(t)
	if out, err := zeoliteRuns(t, "pack", dsn); err == nil || !strings.Contains(out, "there are no tables of a ZODB database") {
		t.Errorf("packed a database that is empty: %v, %s", err, out)
	}
	if n := pgtest.Shared(t).Value(t, dsn, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"); n != "0" {
		t.Errorf("it made %s relations", n)
	}
	s := opened(t, postgres.Options{DSN: dsn})
	serial := put(t, s, func(tx zeolite.Txn) error { return tx.Store(t.Context(), 0, 0, storagetest.Record("old")) })
	put(t, s, func(tx zeolite.Txn) error { return tx.Store(t.Context(), 0, serial, storagetest.Record("new")) })
	mustRun(t, "VACUUM FULL", "pack", dsn)
	if n := pgtest.Shared(t).Value(t, dsn, "SELECT count(*) FROM object_state"); n != "1" {
		t.Errorf("%s revisions are left", n)
	}
}
