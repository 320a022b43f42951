package demostorage

import (
	"context"
	"errors"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// Objects of the changes that are reached by way of the base only stay, and the
// base never shines through what was packed.
func TestPackOverBase(t *testing.T) {
	for name, openChanges := range map[string]func(t *testing.T) zeolite.Storage{
		"memory": openMemory,
		"file":   func(t *testing.T) zeolite.Storage { return openFile(t, t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) { testPackOverBase(t, openChanges(t)) })
	}
}

func testPackOverBase(t *testing.T, changes zeolite.Storage) {
	base := openMemory(t)
	commit(t, base, at(1), func(tx zeolite.Txn) error {
		return errors.Join(
			tx.Store(t.Context(), zeolite.RootOID, 0, storagetest.Record("root", 1, 2)),
			tx.Store(t.Context(), 1, 0, storagetest.Record("base")),
			tx.Store(t.Context(), 2, 0, storagetest.Record("base")),
			tx.Store(t.Context(), 4, 0, storagetest.Record("base")))
	})
	s := open(t, base, changes)
	commit(t, s, at(2), func(tx zeolite.Txn) error { // only the base leads here
		return errors.Join(
			tx.Store(t.Context(), 1, at(1), storagetest.Record("2", 3)),
			tx.Store(t.Context(), 3, 0, storagetest.Record("2")))
	})
	put(t, s, at(3), 1, at(2), "3")
	put(t, s, at(4), 1, at(3), "4")
	put(t, s, at(5), 4, at(1), "5")

	yes := true
	if err := s.Pack(t.Context(), at(4), zeolite.PackOptions{GC: &yes}); !errors.Is(err, zeolite.ErrUnsupported) {
		t.Errorf("garbage collection over a base: %v", err)
	}
	pack := func(tid zeolite.TID) {
		t.Helper()
		if err := s.Pack(t.Context(), tid, zeolite.PackOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	pack(at(3))
	if _, err := s.LoadSerial(t.Context(), 1, at(2)); !isNotFound(err) {
		t.Errorf("a superseded revision: %v", err)
	}
	wantLoad(t, s, 3, zeolite.MaxTID, "2", at(2), 0)
	wantLoad(t, s, 1, zeolite.MaxTID, "4", at(4), 0)
	wantLoad(t, s, 1, at(4), "3", at(3), at(4))
	wantLoad(t, s, 2, zeolite.MaxTID, "base", at(1), 0)
	wantLoad(t, s, 4, at(5), "base", at(1), at(5)) // not packed

	// The state of the base ended before what is left began: it must not be
	// taken for the one that was packed away.
	if _, err := s.LoadBefore(t.Context(), 1, at(3)); !errors.Is(err, zeolite.ErrNotYet) {
		t.Errorf("a revision that was packed away: %v", err)
	}
	rev, err := s.LoadBefore(t.Context(), 1, at(1)+1)
	if err != nil || rev.TID != at(1) || rev.End <= at(1) || rev.End > at(2) {
		t.Errorf("the revision of the base: %v until %v, %v", rev.TID, rev.End, err)
	}
}

// Packing forgets at once that an object is gone; that of the base must not
// come back.
func TestPackKeepsDeletions(t *testing.T) {
	base := openMemory(t)
	put(t, base, at(1), 1, 0, "base")
	s := open(t, base, openMemory(t))
	put(t, s, at(2), 2, 0, "2")
	put(t, s, at(3), 2, at(2), "3")
	commit(t, s, at(4), func(tx zeolite.Txn) error { return tx.Delete(t.Context(), 2, at(3)) })
	put(t, s, at(5), 3, 0, "5")
	put(t, s, at(6), 3, at(5), "6")
	commit(t, s, at(7), func(tx zeolite.Txn) error { return tx.Delete(t.Context(), 1, at(1)) })
	put(t, s, at(8), 3, at(6), "8")
	put(t, s, at(9), 3, at(8), "9")
	if err := s.Pack(t.Context(), zeolite.MaxTID, zeolite.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	wantGone(t, s, 1, zeolite.MaxTID)
	wantLoad(t, s, 1, at(7), "base", at(1), at(7))
	wantGone(t, s, 2, zeolite.MaxTID)
	if _, err := s.LoadSerial(t.Context(), 3, at(5)); !isNotFound(err) {
		t.Errorf("superseded before the deletion: %v", err)
	}
	wantLoad(t, s, 3, at(9), "8", at(8), at(9))
}

// unheard are changes whose object 1 others have committed only just: it is not
// shown yet.
type unheard struct{ zeolite.Storage }

func (unheard) LoadBefore(_ context.Context, oid zeolite.OID, before zeolite.TID) (zeolite.Revision, error) {
	if oid == 1 && before > zeolite.ZeroTID {
		return zeolite.Revision{}, zeolite.ErrNotYet
	}
	return zeolite.Revision{}, &zeolite.NotFoundError{OID: oid}
}

func (unheard) History(_ context.Context, oid zeolite.OID, _ int) ([]zeolite.TransactionInfo, error) {
	return nil, &zeolite.NotFoundError{OID: oid}
}

// The base shows through until the changes show what others have committed; a
// load does not wait for that.
func TestChangesOfOthers(t *testing.T) {
	base := openMemory(t)
	put(t, base, at(1), 1, 0, "base")
	s := open(t, base, unheard{openMemory(t)})
	wantLoad(t, s, 1, zeolite.MaxTID, "base", at(1), 0)
}
