package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
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
