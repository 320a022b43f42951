//go:build unix

package client

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Only files can be adopted. A link would become the blob instead of what it
// leads to, and the blob could not be opened; to open a pipe would take for ever.
func TestBlobAdoptNoFile(t *testing.T) {
	w, _, _ := blobClients(t)
	dir := t.TempDir()
	target, link, pipe := filepath.Join(dir, "target"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	must(t, os.WriteFile(target, []byte("content"), 0o600))
	must(t, os.Symlink(target, link))
	must(t, syscall.Mkfifo(pipe, 0o666))
	for _, path := range []string{link, pipe, dir} {
		_, err := w.AdoptFile(t.Context(), path)
		if err == nil || !strings.Contains(err.Error(), path+" is not a regular file") {
			t.Errorf("AdoptFile(%s): got error %v", path, err)
		}
	}
	if to, err := os.Readlink(link); to != target {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if text, err := os.ReadFile(target); string(text) != "content" {
		t.Errorf("the file that it leads to has %q, %v", text, err)
	}
	if st, err := os.Stat(target); err != nil || st.Mode() != 0o600 {
		t.Errorf("the file that it leads to: %v, %v", st.Mode(), err)
	}
	noTemporaryFiles(t, w.opt.BlobDir)
}

// A file that somebody has locked is not taken over, and the error says why.
func TestBlobAdoptLocked(t *testing.T) {
	w, _, _ := blobClients(t)
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte("adopted"), 0o666))
	lock := newFlock(path)
	must(t, lock.Lock())
	defer lock.Unlock()
	if _, err := w.AdoptFile(t.Context(), path); err == nil || !strings.Contains(err.Error(), "locked by another process") {
		t.Errorf("AdoptFile: got error %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
