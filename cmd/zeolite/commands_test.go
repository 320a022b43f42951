package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/config"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/serving"
)

// zeolite runs a command line and returns its exit code and what it printed.
func zeoliteCommand(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = stdout }()
	printed := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		printed <- string(b)
	}()
	code = run(args)
	w.Close()
	return code, <-printed
}

// sample makes a Data.fs with n transactions, the last with a blob, and returns
// the directory.
func sample(t *testing.T, n int) (dir string, blob []byte) {
	t.Helper()
	dir = t.TempDir()
	s := openFile(t, dir)
	defer s.Close()
	serial := zeolite.ZeroTID
	for i := range n {
		serial = commit(t, s, fmt.Sprintf("transaction %d", i), func(ctx context.Context, txn zeolite.Txn) error {
			return txn.Store(ctx, 0, serial, storagetest.Record(fmt.Sprint("root ", i), 1))
		})
	}
	blob = bytes.Repeat([]byte("a blob of some size "), 20_000)
	commit(t, s, "blob", func(ctx context.Context, txn zeolite.Txn) error {
		upload, err := s.CreateBlob(ctx)
		if err != nil {
			return err
		}
		if _, err := upload.Write(blob); err != nil {
			return err
		}
		if err := upload.Complete(); err != nil {
			return err
		}
		return txn.StoreBlob(ctx, 1, 0, storagetest.BlobRecord(), upload)
	})
	return dir, blob
}

func openFile(t *testing.T, dir string) *filestorage.Storage {
	t.Helper()
	s, err := filestorage.Open(filepath.Join(dir, "Data.fs"), filestorage.Options{BlobDir: filepath.Join(dir, "blobs")})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func commit(t *testing.T, s zeolite.Storage, description string, do func(context.Context, zeolite.Txn) error) zeolite.TID {
	t.Helper()
	ctx := t.Context()
	txn, err := s.Begin(ctx, zeolite.TxnMeta{User: []byte("user"), Description: []byte(description)})
	if err != nil {
		t.Fatal(err)
	}
	defer txn.Abort()
	if err := do(ctx, txn); err != nil {
		t.Fatal(err)
	}
	if err := txn.Vote(ctx); err != nil {
		t.Fatal(err)
	}
	tid, err := txn.Finish(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tid
}

// served serves a sample and returns the address.
func served(t *testing.T, dir string) string {
	t.Helper()
	storage := openFile(t, dir)
	t.Cleanup(func() {
		if err := storage.Close(); err != nil {
			t.Error(err)
		}
	})
	_, addr := serving.Start(t, storage)
	return addr
}

// TestCommandsOnFileAndServer runs what shows a database, on a file and on a
// server: it prints the same.
func TestCommandsOnFileAndServer(t *testing.T) {
	dir, blob := sample(t, 3)
	file := filepath.Join(dir, "Data.fs")
	onFile := map[string]string{}
	commands := map[string][]string{
		"log":      {"log"},
		"log -n":   {"log", "-n", "2", "-records"},
		"history":  {"history", "", "0"},
		"load":     {"load", "", "0x00"},
		"blob get": {"blob", "get", "", "1", "-b", filepath.Join(dir, "blobs")},
	}
	with := func(args []string, target string) []string {
		args = append([]string(nil), args...)
		for i, a := range args {
			if a == "" {
				args[i] = target
				return args
			}
		}
		return append(args, target)
	}
	for name, args := range commands {
		code, out := zeoliteCommand(t, with(args, file)...)
		if code != 0 || out == "" {
			t.Errorf("%s: exit code %d, printed %q", name, code, out)
		}
		onFile[name] = out
	}
	if got := strings.Count(onFile["log"], "\n"); got != 4 {
		t.Errorf("log printed %d lines:\n%s", got, onFile["log"])
	}
	if onFile["load"] != string(storagetest.Record("root 2", 1)) {
		t.Errorf("load printed %q", onFile["load"])
	}
	if onFile["blob get"] != string(blob) {
		t.Errorf("blob get printed %d bytes", len(onFile["blob get"]))
	}

	addr := served(t, dir)
	commands["blob get"] = []string{"blob", "get", "", "1"}
	for name, args := range commands {
		code, out := zeoliteCommand(t, with(args, addr)...)
		if code != 0 || out != onFile[name] {
			t.Errorf("%s from a server: exit code %d, printed %.200q, not %.200q", name, code, out, onFile[name])
		}
	}
	if code, out := zeoliteCommand(t, "ping", addr); code != 0 || !strings.Contains(out, `"last-transaction"`) {
		t.Errorf("ping: exit code %d, printed %q", code, out)
	}
	if code, out := zeoliteCommand(t, "pack", addr); code != 0 || !strings.Contains(out, "Packed") {
		t.Errorf("pack: exit code %d, printed %q", code, out)
	}
	if code, out := zeoliteCommand(t, "history", addr, "0"); code != 0 || strings.Count(out, "\n") != 1 {
		t.Errorf("history after a pack: exit code %d, printed %q", code, out)
	}
}

// TestCopy copies a database, goes on with a copy that is behind, and refuses
// to write into one that is something else.
func TestCopy(t *testing.T) {
	dir, _ := sample(t, 5)
	file, blobs := filepath.Join(dir, "Data.fs"), filepath.Join(dir, "blobs")
	to := t.TempDir()
	args := []string{"copy", file, filepath.Join(to, "Data.fs"), "-src-blobs", blobs, "-dst-blobs", filepath.Join(to, "blobs")}
	code, out := zeoliteCommand(t, args...)
	if code != 0 || !strings.Contains(out, "Copied 6 transactions") || !strings.Contains(out, "the copy is equal") {
		t.Fatalf("exit code %d, printed %q", code, out)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(to, "Data.fs")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy has %d bytes, %v; the original %d", len(got), err, len(want))
	}

	s := openFile(t, dir)
	serial, err := s.CurrentTID(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, "one more", func(ctx context.Context, txn zeolite.Txn) error {
		return txn.Store(ctx, 0, serial, storagetest.Record("more", 1))
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	code, out = zeoliteCommand(t, args...)
	if code != 0 || !strings.Contains(out, "Went on after") || !strings.Contains(out, "Copied 1 transactions") {
		t.Errorf("second time: exit code %d, printed %q", code, out)
	}

	other, _ := sample(t, 1)
	args[2] = filepath.Join(other, "Data.fs")
	args[6] = filepath.Join(other, "blobs")
	if code, out = zeoliteCommand(t, args...); code != 1 {
		t.Errorf("copy into another database: exit code %d, printed %q", code, out)
	}
}

// TestCopyKilled kills the process that copies, several times; the next one
// goes on, and in the end the copy is equal.
func TestCopyKilled(t *testing.T) {
	dir, _ := sample(t, 600)
	st, err := os.Stat(filepath.Join(dir, "Data.fs"))
	if err != nil {
		t.Fatal(err)
	}
	addr := served(t, dir)
	to := t.TempDir()
	copied := filepath.Join(to, "Data.fs")
	args := []string{"copy", addr, copied, "-src-blobs", filepath.Join(to, "cache"), "-dst-blobs", filepath.Join(to, "blobs")}
	killed := 0
	for part := range int64(4) {
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), "ZEOLITE_TEST_AS_PROGRAM=1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for running := true; running; {
			select {
			case err := <-ended:
				t.Logf("it ended before it was killed: %v", err)
				running = false
			case <-time.After(time.Millisecond):
				if now, err := os.Stat(copied); err == nil && now.Size() > (part+1)*st.Size()/6 {
					_ = cmd.Process.Kill()
					if exit := (*exec.ExitError)(nil); errors.As(<-ended, &exit) && !exit.Exited() {
						killed++
					}
					running = false
				}
			}
		}
	}
	if killed == 0 {
		t.Error("every copy ended before it could be killed")
	}
	code, out := zeoliteCommand(t, args...)
	if code != 0 || !strings.Contains(out, "Went on after") || !strings.Contains(out, "Compared 601 transactions: the copy is equal") {
		t.Errorf("exit code %d, printed %q", code, out)
	}
	if code, out := zeoliteCommand(t, "check", copied, "-b", filepath.Join(to, "blobs")); code != 0 {
		t.Errorf("check of the copy: exit code %d, printed %q", code, out)
	}
	if left, err := filepath.Glob(filepath.Join(to, "blobs", "tmp", "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestWrongCommandLines gives the exit code 2 to what cannot be meant.
func TestWrongCommandLines(t *testing.T) {
	for _, args := range [][]string{
		{}, {"dance"}, {"log"}, {"load", "x.fs"}, {"load", "x.fs", "oid"}, {"history", "x.fs", "0x1@2"}, {"blob"}, {"blob", "put"},
		{"copy", "a.fs"}, {"ping"}, {"ping", "8100", "8101"}, {"pack", "--days", "-1", "x.fs"}, {"serve", "extra"}, {"serve", "-t", "-1"}, {"serve", "--check"},
		{"serve", "-X", "zeo/address=1"},
		{"serve", "-a", "host:port"}, {"serve", "-C", "x", "-f", "y"}, {"serve", "--max-record", "much"}, {"log", "--since", "soon", "x.fs"},
		{"serve", "--postgres", "host=x", "-f", "y"}, {"serve", "--postgres", "host=x", "--no-wal"}, {"serve", "--postgres-commits", "3"}, {"serve", "--postgres", "host=x", "--postgres-loads", "-1"},
	} {
		if code, _ := zeoliteCommand(t, args...); code != 2 {
			t.Errorf("zeolite %s: exit code %d, want 2", strings.Join(args, " "), code)
		}
	}
}

// TestPing: flags may follow the address.
func TestPing(t *testing.T) {
	dir, _ := sample(t, 1)
	if code, out := zeoliteCommand(t, "ping", served(t, dir), "--timeout", "1m"); code != 0 || !strings.Contains(out, `"connections"`) {
		t.Errorf("exit code %d, printed %q", code, out)
	}
}

// TestNoDirectory: what is missing is the directory, and not the lock, whatever
// the database is opened for.
func TestNoDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "var", "Data.fs")
	_, copying := (&target{name: path, writable: true}).open(t.Context())
	_, serving := openStorage(t.Context(), &config.FileStorage{Path: path}, howToOpen{}, slog.New(slog.DiscardHandler))
	for _, err := range []error{copying, serving} {
		if err == nil || !strings.Contains(err.Error(), "make it first") {
			t.Errorf("it said: %v", err)
		}
	}
}

// A pack refuses if objects are missing, unless it is told to go on.
func TestPackDanglingReferences(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir)
	first := commit(t, s, "root", func(ctx context.Context, txn zeolite.Txn) error {
		return txn.Store(ctx, 0, 0, storagetest.Record("root"))
	})
	commit(t, s, "root", func(ctx context.Context, txn zeolite.Txn) error {
		return txn.Store(ctx, 0, first, storagetest.Record("root", 99))
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "Data.fs")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := zeoliteCommand(t, "pack", file); code == 0 {
		t.Error("a database with a dangling reference was packed")
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(after, before) {
		t.Errorf("a pack that was refused changed the file (%v)", err)
	}
	if code, out := zeoliteCommand(t, "pack", "--allow-dangling", file); code != 0 || !strings.HasPrefix(out, "Packed") {
		t.Errorf("pack --allow-dangling: exit code %d\n%s", code, out)
	}
	if st, err := os.Stat(file); err != nil || st.Size() >= int64(len(before)) {
		t.Errorf("nothing was packed (%v)", err)
	}
}

// A file to pack must be there, and packing it without its blobs says so.
func TestPackOfNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "Data.fs")
	if err := pack([]string{path}); err == nil || !strings.Contains(err.Error(), "nothing to pack") {
		t.Errorf("it said: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a database was made")
	}
	blobs := filepath.Join(dir, "blobs")
	if said := withoutBlobs(path); strings.Contains(said, blobs) {
		t.Errorf("without blobs it said: %s", said)
	}
	s, err := filestorage.Open(path, filestorage.Options{BlobDir: blobs})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if said := withoutBlobs(path); !strings.Contains(said, blobs) {
		t.Errorf("it said: %s", said)
	}
}
