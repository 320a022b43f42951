package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// work does one thing with our FileStorage and prints the seconds it took.
func work(what, path string) error {
	ctx := context.Background()
	start := time.Now()
	s, err := filestorage.Open(path, filestorage.Options{ReadOnly: what != "pack"})
	if err != nil {
		return err
	}
	defer s.Close()
	var answer int64
	switch what {
	case "open":
		answer = s.Info().Objects
	case "iterate":
		start = time.Now()
		for txn, err := range s.Transactions(ctx, 0, zeolite.MaxTID) {
			if err != nil {
				return err
			}
			for rec, err := range txn.Each() {
				if err != nil {
					return err
				}
				answer += int64(len(rec.Data))
			}
		}
	case "pack":
		start = time.Now()
		if err := s.Pack(ctx, zeolite.TIDFromTime(start), zeolite.PackOptions{}); err != nil {
			return err
		}
		answer = s.Info().Size
	default:
		return fmt.Errorf("there is nothing called %q to do", what)
	}
	fmt.Println(time.Since(start).Seconds(), answer)
	return nil
}

// generate makes a Data.fs of about size bytes, and says what is in it: first
// half of it objects, in a tree but for a tenth that is garbage; then new
// revisions of them, at random. Records have 100 to 2000 bytes, a few 20000;
// transactions have up to 100 of them.
func generate(path string, size int64) (string, error) {
	s, err := filestorage.Open(path, filestorage.Options{FileSystem: unsynced{}, IndexSaveBytes: size * 2})
	if err != nil {
		return "", err
	}
	const recordSize = 1400 // about
	g := &generator{s: s, rnd: rand.New(rand.NewPCG(1, 1)), serials: make([]zeolite.TID, max(10, size/2/recordSize))}
	for oid := 0; oid < len(g.serials); {
		var oids []int
		for range min(1+g.rnd.IntN(100), len(g.serials)-oid) {
			oids = append(oids, oid)
			oid++
		}
		if err := g.commit(oids); err != nil {
			return "", err
		}
	}
	for s.Info().Size < size {
		var oids []int
		for range 1 + g.rnd.IntN(100) {
			oids = append(oids, g.rnd.IntN(len(g.serials)))
		}
		slices.Sort(oids)
		if err := g.commit(slices.Compact(oids)); err != nil {
			return "", err
		}
	}
	if err := s.Close(); err != nil {
		return "", err
	}
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d MiB, %d transactions, %d records, %d objects", st.Size()>>20, g.txns, g.records, len(g.serials)),
		os.Rename(path+".index", path+".saved")
}

type generator struct {
	s             *filestorage.Storage
	rnd           *rand.Rand
	serials       []zeolite.TID
	txns, records int
}

var text = strings.Repeat("some text that is in an object. ", 1000)

func (g *generator) commit(oids []int) error {
	ctx := context.Background()
	tx, err := g.s.Begin(ctx, zeolite.TxnMeta{User: []byte(" admin"), Description: []byte("/site/page edited")})
	if err != nil {
		return err
	}
	for _, oid := range oids {
		n := 100 + g.rnd.IntN(1900)
		if g.rnd.IntN(200) == 0 {
			n = 20000
		}
		if err := tx.Store(ctx, zeolite.OID(oid), g.serials[oid], storagetest.Record(text[:n], g.references(oid)...)); err != nil {
			return err
		}
	}
	if err := tx.Vote(ctx); err != nil {
		return err
	}
	tid, err := tx.Finish(ctx, nil)
	for _, oid := range oids {
		g.serials[oid] = tid
	}
	g.txns, g.records = g.txns+1, g.records+len(oids)
	return err
}

// references returns the children of an object in the tree; garbage refers to
// the root.
func (g *generator) references(oid int) (refs []zeolite.OID) {
	live := len(g.serials) * 9 / 10
	if oid >= live {
		return []zeolite.OID{zeolite.RootOID}
	}
	for child := 2*oid + 1; child <= 2*oid+2 && child < live; child++ {
		refs = append(refs, zeolite.OID(child))
	}
	return refs
}

// unsynced is a file system that does not sync: the files here need not
// survive a crash.
type unsynced struct{ filestorage.OSFileSystem }

func (u unsynced) OpenFile(name string, flag int, perm os.FileMode) (filestorage.File, error) {
	f, err := u.OSFileSystem.OpenFile(name, flag, perm)
	return unsyncedFile{f}, err
}

func (unsynced) SyncDir(string) error { return nil }

type unsyncedFile struct{ filestorage.File }

func (unsyncedFile) Sync() error { return nil }
