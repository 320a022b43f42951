package filestorage

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// A commit that fails and cannot be undone is in doubt only if some of it may count:
// before a status is set, none does.
func TestDoubtBeginsWithStatuses(t *testing.T) {
	for what, doubt := range map[string]bool{"sync": false, "write": true} {
		t.Run(what, func(t *testing.T) {
			s, w := newCrashDB(t, Options{BlobDir: "blobs", SyncInterval: neverSyncs.SyncInterval})
			if _, err := w.commit(s, map[zeolite.OID]string{1: "first"}, nil, nil); err != nil {
				t.Fatal(err)
			}
			uploads := map[int]bool{}
			failed := false
			w.fs.fail = func(op fsOp) error {
				database := op.inode == w.fs.inodes["Data.fs"]
				switch {
				case op.kind == "create":
					uploads[op.inode] = true
				case op.kind == what && (what == "sync" && uploads[op.inode] || what == "write" && database && len(op.data) == 1):
					failed = true
					return errors.New("the disk is on fire")
				case op.kind == "truncate" && database && failed:
					return errors.New("the disk is still on fire")
				}
				return nil
			}
			_, err := w.commit(s, map[zeolite.OID]string{2: strings.Repeat("x", walGroupMax)}, map[zeolite.OID]string{3: "a small blob"}, nil)
			if err == nil || !failed || errors.Is(err, zeolite.ErrInDoubt) != doubt {
				t.Errorf("got error %v", err)
			}
			if !s.Info().ReadOnly {
				t.Error("the storage is not read-only")
			}
			s.Close()
			n := w.fs.count()
			for seed := range uint64(4) {
				w.check(t, n, w.fs.crash(n, rand.New(rand.NewPCG(seed, 1))), true)
			}
		})
	}
}
