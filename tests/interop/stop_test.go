package interop

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/client"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/peers"
)

// makeLarge makes a database of many megabytes without an index, in which half
// of the revisions are old.
func makeLarge(t *testing.T, path string) {
	t.Helper()
	s, err := filestorage.Open(path, filestorage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	const objects, rounds = 4000, 2
	serial := zeolite.ZeroTID
	for range rounds {
		tx, err := s.Begin(ctx, zeolite.TxnMeta{})
		if err != nil {
			t.Fatal(err)
		}
		for oid := range zeolite.OID(objects) {
			if err := tx.Store(ctx, oid, serial, storagetest.Record(strings.Repeat("x", 10000), (oid+1)%objects)); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Vote(ctx); err != nil {
			t.Fatal(err)
		}
		if serial, err = tx.Finish(ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path + ".index"); err != nil {
		t.Fatal(err)
	}
}

func wantGood(t *testing.T, path string) {
	t.Helper()
	report, err := filestorage.Check(context.Background(), path, filestorage.CheckOptions{})
	if err != nil || len(report.Findings) > 0 || report.Objects != 4000 {
		t.Errorf("check: %v: %+v", err, report)
	}
}

// SIGTERM while the server packs: it ends in good order, and the database is
// the old or the new one.
func TestStopWhilePacking(t *testing.T) {
	t.Parallel()
	for range 5 {
		if stopWhilePacking(t) {
			return
		}
	}
	t.Error("each pack was over before the server stopped")
}

// stopWhilePacking says whether the pack was cut short: it may be over before the
// signal arrives.
func stopWhilePacking(t *testing.T) bool {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "Data.fs")
	makeLarge(t, path)
	server := peers.Start(t, peers.Zeolite, peers.Options{Dir: dir})
	ctx := context.Background()
	c, err := client.Open(ctx, client.Options{Addresses: []string{server.Address()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var failed error
	packed := make(chan struct{})
	go func() {
		defer close(packed)
		failed = c.Pack(ctx, zeolite.TIDFromTime(time.Now()), zeolite.PackOptions{})
	}()
	within(t, "the pack begins", func() bool {
		select {
		case <-packed:
			return true
		default:
			_, err := os.Stat(path + ".pack")
			return err == nil
		}
	})
	stop(t, server)
	c.Close()
	<-packed
	t.Logf("pack: %v", failed)
	if _, err := os.Stat(path + ".pack"); err == nil {
		t.Error("the unfinished file is still there")
	}
	wantGood(t, path)
	return failed != nil
}

// SIGTERM while the server scans a file that has no index.
func TestStopWhileScanning(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "Data.fs")
	makeLarge(t, path)
	var log string
	for range 5 {
		if log = stopWhileScanning(t, path); strings.Contains(log, "stopped before it was ready") {
			wantGood(t, path)
			return
		}
	}
	t.Errorf("no scan was cut short:\n%s", log)
}

// stopWhileScanning returns the log, which says whether the scan was cut short: it
// may be over before the signal arrives.
func stopWhileScanning(t *testing.T, path string) string {
	t.Helper()
	for _, name := range []string{path + ".lock", path + ".index"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	cmd := exec.Command(peers.Binary(t), "serve", "-f", path, "-a", "127.0.0.1:0")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	within(t, "the database is being opened", func() bool {
		_, err := os.Stat(path + ".lock")
		return err == nil
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("serve: %v\n%s", err, &log)
	}
	return log.String()
}
