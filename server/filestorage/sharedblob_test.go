package filestorage

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/zeolite-go/zeolite"
)

// Who may write to a shared blob directory can replace a file there by a link to
// another one of the server's. That is neither committed nor shown, and its mode
// stays.
func TestSharedBlobBecomesLink(t *testing.T) {
	db := newBlobDB(t)
	secret := filepath.Join(t.TempDir(), "secret")
	db.must(os.WriteFile(secret, []byte("secret"), 0o600))
	link := func(name string) {
		db.must(os.Remove(name))
		db.must(os.Symlink(secret, name))
	}
	share := func(oid zeolite.OID, linkAt string) (zeolite.TID, error) {
		dir := db.s.blobs.oidDir(oid)
		db.must(os.MkdirAll(dir, 0o777))
		name := filepath.Join(dir, "shared.tmp")
		db.must(os.WriteFile(name, []byte("shared"), 0o600))
		u, err := db.s.AdoptBlob(ctx, oid, filepath.Base(name))
		db.must(err)
		defer u.Discard()
		db.must(u.Complete())
		tx, err := db.s.Begin(ctx, zeolite.TxnMeta{})
		db.must(err)
		defer tx.Abort()
		db.must(tx.StoreBlob(ctx, oid, 0, []byte(blobRecord), u))
		if linkAt == "vote" {
			link(name)
		}
		if err := tx.Vote(ctx); err != nil {
			return 0, err
		}
		if linkAt == "finish" {
			link(name)
		}
		return tx.Finish(ctx, nil)
	}
	for i, at := range []string{"vote", "finish"} {
		if _, err := share(zeolite.OID(10+i), at); err == nil {
			t.Errorf("a link before the %s: no error", at)
		}
	}
	tid, err := share(1, "")
	db.must(err)
	db.wantBlob(1, tid, "shared")
	link(db.s.blobs.file(1, tid))
	if b, err := db.s.OpenBlob(ctx, 1, tid); err == nil {
		b.Close()
		t.Error("the target of a link is shown as a blob")
	}
	db.close() // for the check, what is in its log counts
	findings := 0
	_, err = Check(ctx, db.path, CheckOptions{BlobDir: db.opts.BlobDir, Found: func(f Finding) {
		if f.File == db.s.blobs.file(1, tid) && f.Severity == Damage {
			findings++
		}
	}})
	db.must(err)
	if findings != 1 {
		t.Errorf("the check finds the link %d times", findings)
	}
	st, err := os.Stat(secret)
	db.must(err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v", st.Mode())
	}
}
