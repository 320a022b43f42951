package suite

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/tests/bench/load"
	"github.com/zeolite-go/zeolite/tests/bench/process"
)

//go:embed open.py
var openScript string

// opening measures how long it takes to open a Data.fs from its index, and how
// much memory the index takes. Each opening is a process of its own.
func (s *Suite) opening() error {
	return each(quickOr(s, []int{1}, []int{1, 10, 50}), func(millions int) error {
		name := fmt.Sprintf("%dm", millions)
		if !s.wants("opening", name) {
			return nil
		}
		dir, err := os.MkdirTemp(s.dir, "opening-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "Data.fs")
		if err := MakeObjects(path, millions*1_000_000); err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		contenders := []Contender{{"zeolite", func() (Measurement, error) { return opened(self, "open", path) }}}
		if s.has("python") {
			contenders = append(contenders, Contender{"python", func() (Measurement, error) {
				return opened(s.Python, "-c", openScript, path)
			}})
		}
		return s.run(Case{
			Scenario: "opening", Name: name, Title: fmt.Sprintf("opening %d million objects from the index", millions),
			Params: map[string]float64{"objects": float64(millions) * 1e6}, Contenders: contenders,
		})
	})
}

// opened runs a program that opens the file and prints three numbers.
func opened(program string, args ...string) (m Measurement, err error) {
	var seconds, objects, memory float64
	out, err := exec.Command(program, args...).Output()
	if err == nil {
		_, err = fmt.Sscan(string(out), &seconds, &objects, &memory)
	}
	m.Extra = map[string]float64{"seconds": seconds, "MiB": memory / (1 << 20), "bytes for each": memory / objects}
	return m, err
}

// Open opens a Data.fs and prints what open.py prints. The memory is that of an
// index which is in use: what is mapped counts when it was looked at.
func Open(path string) error {
	before, err := resident()
	if err != nil {
		return err
	}
	start := time.Now()
	storage, err := filestorage.Open(path, filestorage.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	if err := lookEverywhere(storage); err != nil {
		return err
	}
	after, err := resident()
	fmt.Println(seconds, storage.Info().Objects, after-before)
	return errors.Join(err, storage.Close())
}

// lookEverywhere looks up so many objects that each page of the index is looked
// at: a page has some 500 objects.
func lookEverywhere(storage *filestorage.Storage) error {
	for oid := range zeolite.OID(storage.Info().Objects) {
		if oid%256 != 0 {
			continue
		}
		if _, err := storage.CurrentTID(context.Background(), oid); err != nil {
			return err
		}
	}
	return nil
}

// resident is the memory of this process, without what the garbage collector
// has left over.
func resident() (int64, error) {
	debug.FreeOSMemory()
	m, err := process.MemoryOf(os.Getpid())
	return m.Resident, err
}

// MakeObjects makes a Data.fs of so many small objects, with its index.
func MakeObjects(path string, objects int) error {
	const batch = 10_000
	storage, err := filestorage.Open(path, filestorage.Options{IndexSaveBytes: 1 << 40})
	if err != nil {
		return err
	}
	for first := 0; first < objects && err == nil; first += batch {
		err = commitObjects(storage, first, min(first+batch, objects))
	}
	return errors.Join(err, storage.Close())
}

func commitObjects(storage *filestorage.Storage, from, to int) error {
	ctx := context.Background()
	txn, err := storage.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		return err
	}
	var record []byte
	for oid := uint64(from); oid < uint64(to); oid++ {
		record = load.Record(record[:0], load.MinRecord, oid, 1)
		if err := txn.Store(ctx, zeolite.OID(oid), 0, record); err != nil {
			return err
		}
	}
	if err := txn.Vote(ctx); err != nil {
		return err
	}
	_, err = txn.Finish(ctx, nil)
	return err
}
