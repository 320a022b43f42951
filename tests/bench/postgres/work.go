package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/client"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// work does with the Go client what bench.py does with Python's, and prints the
// same.
func work(what string, args []string) error {
	ctx := context.Background()
	if what == "http" {
		return print(what, func() (int, error) { return 1, get(args[0], args[1]) })
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := client.Open(ctx, client.Options{Addresses: args[:1], BlobDir: dir, WaitTimeout: time.Minute,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer s.Close()
	switch what {
	case "upload":
		size, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		oid, err := upload(ctx, s, size)
		fmt.Printf("0x%x\n", uint64(oid))
		return err
	case "blob":
		oid, err := zeolite.ParseOID(args[1])
		if err != nil {
			return err
		}
		tid, err := s.CurrentTID(ctx, oid)
		if err != nil {
			return err
		}
		return print(what, func() (int, error) {
			b, err := s.OpenBlob(ctx, oid, tid) // which downloads it into the cache, a file
			if err != nil {
				return 0, err
			}
			return 1, b.Close()
		})
	}
	oids, err := partOf(args[1], args[2], args[3])
	if err != nil {
		return err
	}
	if what == "load" {
		rand.Shuffle(len(oids), func(i, j int) { oids[i], oids[j] = oids[j], oids[i] })
		return print(what, func() (int, error) {
			for _, oid := range oids {
				if _, err := s.LoadBefore(ctx, oid, zeolite.MaxTID); err != nil {
					return 0, err
				}
			}
			return len(oids), nil
		})
	}
	count, err1 := strconv.Atoi(args[4])
	objects, err2 := strconv.Atoi(args[5])
	if err1 != nil || err2 != nil {
		return fmt.Errorf("commit %q objects %q", args[4], args[5])
	}
	serials := map[zeolite.OID]zeolite.TID{}
	for _, oid := range oids[:objects] {
		if serials[oid], err = s.CurrentTID(ctx, oid); err != nil {
			return err
		}
	}
	if err := commit(ctx, s, serials); err != nil {
		return err
	}
	return print(what, func() (int, error) {
		for range count {
			if err := commit(ctx, s, serials); err != nil {
				return 0, err
			}
		}
		return count, nil
	})
}

// print does the work and prints when it began and ended.
func print(what string, do func() (n int, err error)) error {
	began := time.Now()
	n, err := do()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	seconds := func(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMicro())/1e6, 'f', 6, 64) }
	fmt.Println(seconds(began), seconds(time.Now()), n)
	return nil
}

func record() []byte {
	data := make([]byte, 500)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	return storagetest.Record(fmt.Sprintf("%x", data))
}

// commit commits a new state of some objects, and brings serials up to date.
func commit(ctx context.Context, s *client.Storage, serials map[zeolite.OID]zeolite.TID) error {
	t, err := s.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		return err
	}
	defer t.Abort()
	for oid, serial := range serials {
		if err := t.Store(ctx, oid, serial, record()); err != nil {
			return err
		}
	}
	if err := t.Vote(ctx); err != nil {
		return err
	}
	tid, err := t.Finish(ctx, nil)
	for oid := range serials {
		serials[oid] = tid
	}
	return err
}

// partOf reads the oids that are for this process.
func partOf(name, part, parts string) (oids []zeolite.OID, err error) {
	i, err1 := strconv.Atoi(part)
	n, err2 := strconv.Atoi(parts)
	f, err := os.Open(name)
	if err != nil || err1 != nil || err2 != nil {
		return nil, fmt.Errorf("part %s of %s of %s: %v", part, parts, name, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for k := 0; lines.Scan(); k++ {
		oid, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			return nil, err
		}
		if k%n == i {
			oids = append(oids, zeolite.OID(oid))
		}
	}
	return oids, lines.Err()
}

// upload commits a blob of random bytes.
func upload(ctx context.Context, s *client.Storage, size int) (zeolite.OID, error) {
	oids, err := s.NewOIDs(ctx, 1)
	if err != nil {
		return 0, err
	}
	up, err := s.CreateBlob(ctx)
	if err != nil {
		return 0, err
	}
	defer up.Discard()
	if _, err := io.CopyN(up, rand.NewChaCha8([32]byte{1}), int64(size)); err != nil {
		return 0, err
	}
	if err := up.Complete(); err != nil {
		return 0, err
	}
	t, err := s.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		return 0, err
	}
	defer t.Abort()
	if err := t.StoreBlob(ctx, oids[0], zeolite.ZeroTID, storagetest.BlobRecord(), up); err != nil {
		return 0, err
	}
	if err := t.Vote(ctx); err != nil {
		return 0, err
	}
	_, err = t.Finish(ctx, nil)
	return oids[0], err
}

// get downloads a URL to a file.
func get(url, name string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if _, err = io.Copy(f, resp.Body); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
