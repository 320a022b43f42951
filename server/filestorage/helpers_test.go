package filestorage

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/zeolite-go/zeolite"
)

var ctx = context.Background()

// Small databases, too, look up their objects in the index file.
func init() { minMapped = 2 * fileEntryLen }

// testDB is a database in a directory of its own. It is used by the goroutine
// of its test.
type testDB struct {
	testing.TB
	path string
	opts Options
	s    *Storage
	log  *logBuffer
}

func newDB(t testing.TB, opts Options) *testDB {
	t.Helper()
	db := &testDB{TB: t, path: filepath.Join(t.TempDir(), "Data.fs"), log: &logBuffer{}}
	opts.Logger = textLogger(db.log)
	db.opts = opts
	db.open()
	t.Cleanup(func() { db.s.Close() })
	return db
}

func (db *testDB) open() {
	db.Helper()
	s, err := Open(db.path, db.opts)
	if err != nil {
		db.Fatal(err)
	}
	db.s = s
}

func (db *testDB) close() {
	db.Helper()
	if err := db.s.Close(); err != nil {
		db.Fatal(err)
	}
}

func (db *testDB) reopen() {
	db.Helper()
	db.close()
	db.open()
}

func (db *testDB) must(err error) {
	db.Helper()
	if err != nil {
		db.Fatal(err)
	}
}

// commit commits what fill does.
func (db *testDB) commit(meta zeolite.TxnMeta, fill func(tx zeolite.Txn) error) zeolite.TID {
	db.Helper()
	tx, err := db.s.Begin(ctx, meta)
	db.must(err)
	defer tx.Abort()
	db.must(fill(tx))
	db.must(tx.Vote(ctx))
	tid, err := tx.Finish(ctx, nil)
	db.must(err)
	return tid
}

func (db *testDB) store(oid zeolite.OID, serial zeolite.TID, data string) zeolite.TID {
	db.Helper()
	return db.commit(zeolite.TxnMeta{}, func(tx zeolite.Txn) error { return tx.Store(ctx, oid, serial, []byte(data)) })
}

func (db *testDB) wantLoad(oid zeolite.OID, before zeolite.TID, want string) {
	db.Helper()
	rev, err := db.s.LoadBefore(ctx, oid, before)
	if err != nil || string(rev.Data) != want {
		db.Errorf("LoadBefore(%v, %v): got %q, %v, want %q", oid, before, rev.Data, err, want)
	}
}

func (db *testDB) bytes() []byte {
	db.Helper()
	b, err := os.ReadFile(db.path)
	db.must(err)
	return b
}

// tids are those of all transactions.
func tids(t testing.TB, s *Storage) (all []zeolite.TID) {
	t.Helper()
	for tr, err := range s.Transactions(ctx, 0, zeolite.MaxTID) {
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range tr.Records {
			if err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, tr.TID)
	}
	return all
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) contains(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), s)
}

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
