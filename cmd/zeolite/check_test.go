package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

func TestCheckExitCodes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Data.fs")
	s, err := filestorage.Open(path, filestorage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	tx, err := s.Begin(ctx, zeolite.TxnMeta{})
	if err == nil {
		err = tx.Store(ctx, 0, 0, storagetest.Record("root"))
	}
	if err == nil {
		err = tx.Vote(ctx)
	}
	if err == nil {
		_, err = tx.Finish(ctx, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	want := func(code int, args ...string) {
		t.Helper()
		if got := run(append([]string{"check"}, args...)); got != code {
			t.Errorf("check %v: exit code %d, want %d", args, got, code)
		}
	}
	want(0, path) // while it is open
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want(0, path, "-q")
	want(2)
	want(2, path, path)
	want(2, path, "--max", "0")
	want(1, filepath.Join(t.TempDir(), "missing"))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	want(1, path)
}

func TestWrapped(t *testing.T) {
	text := strings.Repeat("some words ", 30)
	for line := range strings.SplitSeq(wrapped(text, 40), "\n") {
		if len(strings.TrimSpace(line)) > 40 {
			t.Errorf("line of %d characters: %q", len(line), line)
		}
	}
	if got := strings.Join(strings.Fields(wrapped(text, 40)), " "); got != strings.TrimSpace(text) {
		t.Errorf("the words are others: %q", got)
	}
}
