package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

// TestWriteWhole: a file is there when it is whole, with the mode that the umask
// leaves; what fails leaves nothing.
func TestWriteWhole(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	name := filepath.Join(t.TempDir(), "blob")
	for _, text := range []string{"one", "two"} {
		if err := writeWhole(name, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if err := writeWhole(name, io.MultiReader(strings.NewReader("half"), iotest.ErrReader(io.ErrUnexpectedEOF))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
		if b, err := os.ReadFile(name); err != nil || string(b) != text {
			t.Errorf("the file has %q, %v", b, err)
		}
	}
	if st, err := os.Stat(name); err != nil || st.Mode() != 0o600 {
		t.Errorf("its mode is %v, %v", st.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(name)); err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestInterrupted: a signal ends what copies bytes, and another one what does
// not get on because nobody reads.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	name := filepath.Join(t.TempDir(), "blob")
	if err := writeWhole(name, untilDone{ctx, strings.NewReader("text")}); !errors.Is(err, context.Canceled) || exists(name) {
		t.Errorf("got %v", err)
	}

	dir, blob := sample(t, 1)
	cmd := exec.Command(os.Args[0], "blob", "get", filepath.Join(dir, "Data.fs"), "1", "-b", filepath.Join(dir, "blobs"))
	cmd.Env = append(os.Environ(), "ZEOLITE_TEST_AS_PROGRAM=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, blob[:1]); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, err := cmd.Process.Wait(); ended <- err }()
	limit := time.After(30 * time.Second)
	for {
		if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			return
		case <-limit:
			t.Error("signals do not end it")
			_ = cmd.Process.Kill()
			limit = nil
		case <-time.After(time.Millisecond):
		}
	}
}

// TestWriteToPipe: what is no file stays what it is.
func TestWriteToPipe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		b, _ := os.ReadFile(name)
		got <- string(b)
	}()
	if err := writeWhole(name, strings.NewReader("text")); err != nil {
		t.Fatal(err)
	}
	st, err := os.Lstat(name)
	if err != nil || st.Mode().Type() != os.ModeNamedPipe {
		t.Fatalf("it is %v, %v", st.Mode(), err)
	}
	if text := <-got; text != "text" {
		t.Errorf("got %q", text)
	}
}

// TestWriteToLink: a link stays one, as /dev/stdout must, and what it leads to is
// made, or written to.
func TestWriteToLink(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"a long text", "short"} {
		if err := writeWhole(link, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if to, err := os.Readlink(link); err != nil || to != file {
			t.Errorf("the link leads to %q, %v", to, err)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != text {
			t.Errorf("the file has %q, %v", b, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
