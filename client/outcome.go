package client

import (
	"bytes"
	"context"
	"errors"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs/spool"
)

// InDoubtError says that the server was asked to commit a transaction and that
// its answer did not come, or not in time. It wraps zeolite.ErrInDoubt. Pass it
// to Storage.Outcome to find out.
type InDoubtError struct {
	err error
	c   *commit
}

func (e *InDoubtError) Error() string { return zeolite.ErrInDoubt.Error() + ": " + e.err.Error() }

// Unwrap returns zeolite.ErrInDoubt and the failure that caused the doubt.
func (e *InDoubtError) Unwrap() []error { return []error{zeolite.ErrInDoubt, e.err} }

// Outcome finds out what became of a transaction whose Finish failed with an
// *InDoubtError, which may be wrapped: it returns its TID if it was committed,
// and zero if it was not, and never will be.
//
// If the connection is still the same one Outcome waits for the answer. If not,
// it makes sure that the server has ended the transaction, by voting on the
// same objects in another one, and then looks for it among the transactions
// since: one with the same user, description and objects, each with the same
// data. Only if somebody else committed exactly that meanwhile would Outcome
// take it for this one; a description that is unique excludes it.
//
// After Outcome the error holds no data any more, and must not be asked again.
func (s *Storage) Outcome(ctx context.Context, inDoubt error) (zeolite.TID, error) {
	var e *InDoubtError
	if !errors.As(inDoubt, &e) || e.c.s != s {
		return 0, errors.New("client: the error is not an *InDoubtError of this storage")
	}
	c := e.c
	select {
	case <-c.ended:
	case <-ctx.Done():
		return 0, s.ctxErr(ctx)
	case <-s.ctx.Done():
		return 0, zeolite.ErrClosed
	}
	switch {
	case c.tid != 0:
		<-c.visible
		return c.tid, nil
	case !c.unanswered:
		return 0, nil
	}
	tid, err := c.search(ctx)
	if err == nil {
		c.letGo()
	}
	return tid, err
}

// search finds the transaction at the server.
func (c *commit) search(ctx context.Context) (zeolite.TID, error) {
	if err := c.barrier(ctx); err != nil {
		return 0, err
	}
	if err := c.s.Sync(ctx); err != nil {
		return 0, err
	}
	for txn, err := range c.s.Transactions(ctx, c.basis+1, zeolite.MaxTID) {
		if err != nil {
			return 0, err
		}
		same, err := c.is(txn)
		if err != nil {
			return 0, err
		}
		if same {
			return txn.TID, nil
		}
	}
	return 0, nil
}

// barrier waits until the server has ended the transaction. It held the commit
// lock of its objects, or of the whole storage, from its vote on; so whoever
// gets through a vote on the same objects comes after it. Whether that vote
// succeeds does not matter.
func (c *commit) barrier(ctx context.Context) error {
	begun, err := c.s.Begin(ctx, zeolite.TxnMeta{})
	if err != nil {
		return err
	}
	tx := begun.(*Txn)
	defer tx.Abort()
	// An undo needs the lock of the whole storage, and this one fails.
	probe := op{Op: spool.Op{Kind: spool.Undo, Serial: zeolite.MaxTID}}
	if c.meta.TID == 0 {
		err := c.staging.each(func(o *op) error {
			if o.Kind != spool.Undo && o.Kind != spool.Restore {
				// One object is enough: it had the locks of all of them.
				probe = op{Op: spool.Op{Kind: spool.Check, OID: o.OID, Serial: o.Serial}}
			}
			return errStop
		})
		if err != nil && err != errStop {
			return err
		}
	}
	if err := tx.add(&probe, nil); err != nil {
		return err
	}
	if err := tx.Vote(ctx); SafeToRepeat(err) || ctx.Err() != nil || errors.Is(err, zeolite.ErrClosed) || errors.Is(err, zeolite.ErrReadOnly) {
		return err
	}
	return nil
}

var errStop = errors.New("stop")

// is tells whether txn is what was committed here.
func (c *commit) is(txn *zeolite.TransactionRecord) (bool, error) {
	if c.meta.TID != 0 && txn.TID != c.meta.TID ||
		!bytes.Equal(txn.User, c.meta.User) || !bytes.Equal(txn.Description, c.meta.Description) {
		return false, nil
	}
	want := map[zeolite.OID]*op{}
	undoes := false
	err := c.staging.each(func(o *op) error {
		if o.writes() {
			want[o.OID] = o
		}
		undoes = undoes || o.Kind == spool.Undo
		return nil
	})
	if err != nil {
		return false, err
	}
	rewrote := map[zeolite.OID]bool{}
	for _, oid := range c.rewrote {
		rewrote[oid] = true
	}
	found := map[zeolite.OID]bool{}
	for rec, err := range txn.Records {
		if err != nil {
			return false, err
		}
		found[rec.OID] = true
		o := want[rec.OID]
		switch {
		case rewrote[rec.OID]:
			continue
		case o == nil:
			return false, nil
		}
		data, err := c.staging.record(o)
		if err != nil {
			return false, err
		}
		if !bytes.Equal(rec.Data, data) {
			return false, nil
		}
	}
	if undoes && len(want) == 0 {
		return len(found) == len(rewrote), nil
	}
	for oid := range want {
		if !found[oid] {
			return false, nil
		}
	}
	return true, nil
}
