package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// TestTerminatedInThePhaseOf ends the connection that a call uses while it is in
// the middle of each of its statements: the statement is made to wait, and then
// the process that waits is ended. The call recovers, and what it does is done
// once.
func TestTerminatedInThePhaseOf(t *testing.T) {
	dsn := pgtest.Database(t)
	// Looking now and then is not what this is about.
	opts := Options{DSN: dsn, PollInterval: time.Hour, DoubtTimeout: time.Minute}
	s, other := watch(t, storage(t, opts)), storage(t, opts)
	a, killer, blocker := newAdmin(t, dsn), newAdmin(t, dsn), newAdmin(t, dsn)
	ctx := t.Context()
	serial := put(t, s.Storage, store(ctx, 1, 0, "first"))
	data := noise(3<<20 + 5)
	blobTID := putBlob(t, s.Storage, 2, data)
	stored, published := a.number("SELECT count(*) FROM transaction"), s.count()
	number := 0
	// tx is a transaction that has done what a phase needs.
	tx := func(fill func(tx zeolite.Txn) error) zeolite.Txn { return begun(t, s, fill) }
	overwrite := func(tx zeolite.Txn) error {
		number++
		return store(ctx, 1, serial, fmt.Sprint("number ", number))(tx)
	}
	finished := func(tx zeolite.Txn) (err error) {
		var tid zeolite.TID
		if tid, err = tx.Finish(ctx, s.publish); err == nil {
			serial = tid
		}
		return err
	}
	commit := func(tx zeolite.Txn) error {
		if err := tx.Vote(ctx); err != nil {
			return err
		}
		return finished(tx)
	}
	const tableLock, commitTurn, objectLock = "LOCK TABLE %s IN ACCESS EXCLUSIVE MODE", "SELECT pg_advisory_xact_lock(-1)", "SELECT pg_advisory_xact_lock(1)"
	lock := func(table string) string { return fmt.Sprintf(tableLock, table) }

	for _, phase := range []struct {
		name, block string
		// prepare comes before the block, and returns what is done under it.
		prepare func() func() error
	}{
		{"load", lock("object_state"), func() func() error {
			return func() error {
				_, err := s.LoadBefore(ctx, 1, zeolite.MaxTID)
				return err
			}
		}},
		{"history", lock("transaction"), func() func() error {
			return func() error {
				_, err := s.History(ctx, 1, 10)
				return err
			}
		}},
		{"iteration", lock("transaction"), func() func() error {
			return func() error {
				for _, err := range s.Transactions(ctx, 0, zeolite.MaxTID) {
					if err != nil {
						return err
					}
				}
				return nil
			}
		}},
		{"vote, waiting for an object", objectLock, func() func() error {
			tx := tx(overwrite)
			return func() error { return commit(tx) }
		}},
		{"vote, looking for conflicts", lock("current_object"), func() func() error {
			tx := tx(overwrite)
			return func() error { return commit(tx) }
		}},
		{"vote, choosing a tid", lock("transaction"), func() func() error {
			tx := tx(overwrite)
			return func() error { return commit(tx) }
		}},
		{"vote, writing", lock("object_state"), func() func() error {
			tx := tx(overwrite)
			return func() error { return commit(tx) }
		}},
		{"vote, taking over a blob", lock("zeolite_upload"), func() func() error {
			up := uploaded(t, s.Storage, []byte("a blob"))
			tx := tx(func(tx zeolite.Txn) error {
				number++
				return errors.Join(overwrite(tx), tx.StoreBlob(ctx, zeolite.OID(100+number), 0, storagetest.BlobRecord(), up))
			})
			return func() error { return commit(tx) }
		}},
		{"hold", objectLock, func() func() error {
			tx := tx(func(zeolite.Txn) error { return nil })
			return func() error {
				// It is not worth a second try: the transaction can be aborted.
				err := tx.(zeolite.Holder).Hold(ctx, []zeolite.OID{1})
				if !errors.As(err, new(*zeolite.StorageError)) {
					return fmt.Errorf("Hold: %v", err)
				}
				tx.Abort()
				return nil
			}
		}},
		{"finish, waiting for its turn", commitTurn, func() func() error {
			tx := votedOn(t, s, overwrite)
			return func() error { return finished(tx) }
		}},
		{"finish, to be renumbered", commitTurn, func() func() error {
			tx := votedOn(t, s, overwrite)
			number++
			if _, err := tryPut(ctx, s, s.publish, store(ctx, zeolite.OID(200+number), 0, "overtakes")); err != nil {
				t.Fatal(err)
			}
			return func() error { return finished(tx) }
		}},
		{"upload, first piece", lock("zeolite_upload"), func() func() error {
			return func() error {
				up, err := s.CreateBlob(ctx)
				if err == nil {
					_, err = up.Write(data[:uploadPiece])
				}
				if err == nil {
					err = up.Discard()
				}
				return err
			}
		}},
		{"upload, next piece", lock("pg_largeobject"), func() func() error {
			up, err := s.CreateBlob(ctx)
			if err == nil {
				_, err = up.Write(data[:uploadPiece])
			}
			if err != nil {
				t.Fatal(err)
			}
			return func() error {
				if _, err := up.Write(data[uploadPiece:]); err != nil {
					return err
				}
				if err := up.Complete(); err != nil {
					return err
				}
				number++
				tid, err := tryPut(ctx, s, s.publish, func(tx zeolite.Txn) error {
					return tx.StoreBlob(ctx, zeolite.OID(300+number), 0, storagetest.BlobRecord(), up)
				})
				if err != nil {
					return err
				}
				b := openBlob(t, s.Storage, zeolite.OID(300+number), tid)
				defer b.Close()
				got, err := readAll(b, 1<<20)
				if err == nil && !bytes.Equal(got, data) {
					err = errors.New("the upload was damaged")
				}
				return err
			}
		}},
		{"upload, discarding", lock("zeolite_upload"), func() func() error {
			up := uploaded(t, s.Storage, []byte("nobody wants it"))
			return up.Discard
		}},
		{"download, opening", lock("blob_chunk"), func() func() error {
			return func() error {
				b, err := s.OpenBlob(ctx, 2, blobTID)
				if err == nil {
					err = b.Close()
				}
				return err
			}
		}},
		{"download, reading", lock("pg_largeobject"), func() func() error {
			b := openBlob(t, s.Storage, 2, blobTID)
			return func() error {
				defer b.Close()
				got, err := readAll(b, 100_000)
				if err == nil && !bytes.Equal(got, data) {
					err = errors.New("the blob differs")
				}
				return err
			}
		}},
		{"listening", lock("transaction"), func() func() error {
			return func() error {
				// Whoever listens looks what there is.
				a.exec("SELECT pg_notify($1, $2)", channel, fmt.Sprint(uint64(zeolite.MaxTID-1)))
				return nil
			}
		}},
	} {
		t.Run(phase.name, func(t *testing.T) {
			do := phase.prepare()
			blocker.exec("BEGIN")
			blocker.exec(phase.block)
			answer := make(chan error, 1)
			go func() { answer <- do() }()
			eventually(t, "it waits, and is ended", func() bool {
				return killer.number(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
					WHERE datname = current_database() AND application_name LIKE 'zeolite: %' AND wait_event_type = 'Lock'`) > 0
			})
			// It may wait again, on another connection; now it need not.
			blocker.exec("ROLLBACK")
			if err := <-answer; err != nil {
				t.Error(err)
			}
			if err := s.CatchUp(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	// Nothing is lost or doubled, and all of it was published, also what others
	// commit from now on.
	if rev, err := s.LoadBefore(ctx, 1, zeolite.MaxTID); err != nil || rev.TID != serial {
		t.Errorf("the object was committed last by %v, %v, not %v", rev.TID, err, serial)
	}
	last := put(t, other, store(ctx, 1, serial, "the last"))
	eventually(t, "commits of others are heard of", func() bool { return s.LastTID() == last })
	stored, published = a.number("SELECT count(*) FROM transaction")-stored, s.count()-published
	if stored != published || stored < 10 {
		t.Errorf("there are %d transactions, and %d were published", stored, published)
	}
	if n := a.number("SELECT count(*) FROM zeolite_upload"); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
	if n := s.Stats().Voted; n != 0 {
		t.Errorf("%d transactions keep connections", n)
	}
}
