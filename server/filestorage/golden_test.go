package filestorage

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Written by Python's FileStorage; the extension is {'k': 'v'}.
const goldenFile = `46533330
	040d2c8a1219b277 0000000000000060 20 0001 0002 0017 55 4444 80037d710058010000006b71015801000000767102732e
	0000000000000001 040d2c8a1219b277 0000000000000000 0000000000000004 0000 0000000000000005 4441544131
	0000000000000060`

func TestGoldenFile(t *testing.T) {
	for name, opts := range map[string]Options{"with a log": {}, "without": {WithoutLog: true}} {
		t.Run(name, func(t *testing.T) {
			db := newDB(t, opts)
			meta := zeolite.TxnMeta{
				TID: 0x040d2c8a1219b277, User: []byte("U"), Description: []byte("DD"),
				Extension: unhex(t, "80037d710058010000006b71015801000000767102732e"),
			}
			db.commit(meta, func(tx zeolite.Txn) error { return tx.Store(ctx, 1, 0, []byte("DATA1")) })
			want, open := unhex(t, goldenFile), unhex(t, goldenFile)
			if opts.WithoutLog {
				open = appendGuard(open, meta.TID)
			}
			if got := db.bytes(); string(got) != string(open) {
				t.Errorf("open file:\n got %x\nwant %x", got, open)
			}
			db.close()
			if got := db.bytes(); string(got) != string(want) {
				t.Errorf("closed file:\n got %x\nwant %x", got, want)
			}
		})
	}
}

// What undo writes, with its pointers: to the previous record of the object,
// to its transaction, to the data.
func TestGoldenUndo(t *testing.T) {
	db := newDB(t, Options{})
	first := db.commit(zeolite.TxnMeta{TID: 0x040d2c8a1219b277}, func(tx zeolite.Txn) error { return tx.Store(ctx, 1, 0, []byte("DATA1")) })
	second := db.commit(zeolite.TxnMeta{TID: first + 1}, func(tx zeolite.Txn) error { return tx.Store(ctx, 1, first, []byte("D2")) })
	db.commit(zeolite.TxnMeta{TID: first + 2}, func(tx zeolite.Txn) error {
		_, err := tx.Undo(ctx, second)
		return err
	})
	db.close()
	// The first record is at 0x1b, the second at 0x69, transactions at 4,
	// 0x52 and 0x9d.
	want := unhex(t, `46533330
		040d2c8a1219b277 0000000000000046 20 0000 0000 0000
		0000000000000001 040d2c8a1219b277 0000000000000000 0000000000000004 0000 0000000000000005 4441544131
		0000000000000046
		040d2c8a1219b278 0000000000000043 20 0000 0000 0000
		0000000000000001 040d2c8a1219b278 000000000000001b 0000000000000052 0000 0000000000000002 4432
		0000000000000043
		040d2c8a1219b279 0000000000000049 20 0000 0000 0000
		0000000000000001 040d2c8a1219b279 0000000000000069 000000000000009d 0000 0000000000000000 000000000000001b
		0000000000000049`)
	if got := db.bytes(); string(got) != string(want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

func TestTrap31_LockIsFlockWithPID(t *testing.T) {
	db := newDB(t, Options{})
	b, err := os.ReadFile(db.path + ".lock")
	db.must(err)
	if s := string(b); len(s) < 3 || s[0] != ' ' || s[len(s)-1] != '\n' {
		t.Errorf("lock file has %q", s)
	}
	if _, err := Open(db.path, db.opts); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("opening again: got error %v", err)
	}
	db.close()
	db.open()
}

func TestForeignFiles(t *testing.T) {
	for content, want := range map[string]string{
		"FS21...":    "Python 2",
		"PK\x03\x04": "not a FileStorage",
		"F":          "not a FileStorage",
	} {
		path := t.TempDir() + "/Data.fs"
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v", content, err)
		}
		if b, _ := os.ReadFile(path); string(b) != content {
			t.Errorf("%q was changed to %q", content, b)
		}
	}
}
