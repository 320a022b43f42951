package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/client"
)

// storeBlob commits an object with a blob, of which a reader has the bytes.
func storeBlob(ctx context.Context, s *client.Storage, oid zeolite.OID, from io.Reader) (zeolite.TID, error) {
	upload, err := s.CreateBlob(ctx)
	if err != nil {
		return 0, err
	}
	defer upload.Discard() // does nothing after a commit
	if _, err := io.Copy(upload, from); err != nil {
		return 0, err
	}
	if err := upload.Complete(); err != nil {
		return 0, err
	}
	tx, err := s.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		return 0, err
	}
	defer tx.Abort()
	record := []byte("\x80\x03cZODB.blob\nBlob\n.\x80\x03N.") // what Python writes
	if err := tx.StoreBlob(ctx, oid, zeolite.ZeroTID, record, upload); err != nil {
		return 0, err
	}
	if err := tx.Vote(ctx); err != nil {
		return 0, err
	}
	return tx.Finish(ctx, nil)
}

// temporaryDir makes a directory for an example.
func temporaryDir() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

func ExampleStorage_CreateBlob() {
	addr, stop := startServer()
	defer stop()
	dir, remove := temporaryDir()
	defer remove()
	s := connect(client.Options{Addresses: []string{addr}, BlobDir: dir})
	defer s.Close()
	ctx := context.Background()

	upload, err := s.CreateBlob(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer upload.Discard() // does nothing after a commit
	fmt.Fprint(upload, "as many bytes as you like")
	if err := upload.Complete(); err != nil {
		log.Fatal(err)
	}
	tx, err := s.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		log.Fatal(err)
	}
	defer tx.Abort()
	record := []byte("\x80\x03cZODB.blob\nBlob\n.\x80\x03N.") // what Python writes
	if err := tx.StoreBlob(ctx, 1, zeolite.ZeroTID, record, upload); err != nil {
		log.Fatal(err)
	}
	if err := tx.Vote(ctx); err != nil {
		log.Fatal(err)
	}
	tid, err := tx.Finish(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}

	blob, err := s.OpenBlob(ctx, 1, tid)
	if err != nil {
		log.Fatal(err)
	}
	defer blob.Close()
	text, err := io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
	fmt.Println(string(text), err)
	// Output: as many bytes as you like <nil>
}

// A file that exists becomes a blob without being copied, if it is in the same
// file system as the blob cache.
func ExampleStorage_AdoptFile() {
	addr, stop := startServer()
	defer stop()
	dir, remove := temporaryDir()
	defer remove()
	s := connect(client.Options{Addresses: []string{addr}, BlobDir: filepath.Join(dir, "cache")})
	defer s.Close()
	ctx := context.Background()

	path := filepath.Join(dir, "film")
	if err := os.WriteFile(path, []byte("frames"), 0o666); err != nil {
		log.Fatal(err)
	}
	upload, err := s.AdoptFile(ctx, path)
	if err != nil {
		log.Fatal(err)
	}
	defer upload.Discard()
	_, err = os.Stat(path)
	fmt.Println(upload.Size(), "bytes; the file has moved:", errors.Is(err, os.ErrNotExist))
	// Txn.StoreBlob takes it from here.

	// Output: 6 bytes; the file has moved: true
}

// OpenBlob downloads a blob into the cache, unless it is there already, and
// says how it gets on.
func ExampleStorage_OpenBlob() {
	addr, stop := startServer()
	defer stop()
	dir, remove := temporaryDir()
	defer remove()
	ctx := context.Background()
	writer := connect(client.Options{Addresses: []string{addr}, BlobDir: filepath.Join(dir, "writer")})
	defer writer.Close()
	tid, err := storeBlob(ctx, writer, 1, strings.NewReader("a picture"))
	if err != nil {
		log.Fatal(err)
	}

	s := connect(client.Options{
		Addresses:     []string{addr},
		BlobDir:       filepath.Join(dir, "cache"), // any number of processes share it
		BlobCacheSize: 10 << 30,
		Progress: func(p client.BlobProgress) {
			if p.Done == p.Total {
				fmt.Printf("downloaded the blob of %v, %d bytes\n", p.OID, p.Total)
			}
		},
	})
	defer s.Close()
	for range 2 {
		blob, err := s.OpenBlob(ctx, 1, tid)
		if err != nil {
			log.Fatal(err)
		}
		text, err := io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
		fmt.Println(string(text), err)
		blob.Close()
	}
	// Output:
	// downloaded the blob of 0x01, 9 bytes
	// a picture <nil>
	// a picture <nil>
}
