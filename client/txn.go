package client

import (
	"context"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/stubs/spool"
)

// Txn is a transaction: a zeolite.Txn over the network. It is used by one
// goroutine at a time.
//
// Until Vote nothing is sent, so that a transaction may stay open for long,
// survives a lost connection, and keeps nobody waiting. What is wrong with a
// call is told by Vote. A Vote that failed may be made again, if its error
// says that the connection was lost. From a Vote that succeeded until Finish
// or Abort the transaction has the connection for itself, and other
// transactions of this Storage wait in their Vote, in the order in which they
// came.
type Txn struct {
	s     *Storage
	meta  zeolite.TxnMeta
	state txnState
	staging

	// From Vote to the end:
	id      stubs.TxnID
	link    *link
	basis   zeolite.TID // the last transaction known when it voted
	uploads []*outgoing
	shared  []string      // the names of uploads in the server's directory
	rewrote []zeolite.OID // by the server, which knows their new state alone
}

type txnState uint8

const (
	txnOpen txnState = iota
	txnVoted
	txnEnded
)

// Begin implements zeolite.Storage. It does not need a connection. The
// transaction is a *Txn.
func (s *Storage) Begin(ctx context.Context, meta zeolite.TxnMeta) (zeolite.Txn, error) {
	switch {
	case s.ctx.Err() != nil:
		return nil, zeolite.ErrClosed
	case s.opt.ReadOnly || s.opt.ReadOnlyFallback && s.Info().ReadOnly:
		return nil, zeolite.ErrReadOnly
	}
	if err := meta.Check(); err != nil {
		return nil, err
	}
	// Python's server would take any TID.
	if err := zeolite.CheckTID(meta.TID, s.LastTID()); err != nil {
		return nil, err
	}
	return &Txn{s: s, meta: meta, staging: newStaging(s.opt.TransactionMemory)}, nil
}

// open checks that the transaction can still take operations.
func (t *Txn) open(what string) error {
	switch {
	case t.s.ctx.Err() != nil:
		return zeolite.ErrClosed
	case t.state == txnVoted:
		return &zeolite.TransactionError{Message: what + ": the transaction is voted"}
	case t.state == txnEnded:
		return &zeolite.TransactionError{Message: what + ": the transaction has ended"}
	}
	return nil
}

// checkRecord checks a record to store.
func (t *Txn) checkRecord(what string, data []byte) error {
	if err := t.open(what); err != nil {
		return err
	}
	if len(data) == 0 {
		return &zeolite.StorageError{Message: what + ": a record cannot be empty"}
	}
	return nil
}

// Store implements zeolite.Txn. A conflict is told by Vote.
func (t *Txn) Store(_ context.Context, oid zeolite.OID, serial zeolite.TID, data []byte) error {
	if err := t.checkRecord("store", data); err != nil {
		return err
	}
	return t.add(&op{Op: spool.Op{Kind: spool.Store, OID: oid, Serial: serial}}, data)
}

// StoreBlob implements zeolite.Txn. The upload must be one that CreateBlob or
// AdoptFile of the same Storage made. It is sent by Vote.
func (t *Txn) StoreBlob(_ context.Context, oid zeolite.OID, serial zeolite.TID, data []byte, blob zeolite.BlobUpload) error {
	if err := t.checkRecord("store", data); err != nil {
		return err
	}
	up, err := t.s.ownUpload(blob)
	if err != nil {
		return err
	}
	return t.add(&op{Op: spool.Op{Kind: spool.Store, OID: oid, Serial: serial}, blob: up}, data)
}

// Delete implements zeolite.Txn.
func (t *Txn) Delete(_ context.Context, oid zeolite.OID, serial zeolite.TID) error {
	if err := t.open("delete"); err != nil {
		return err
	}
	return t.add(&op{Op: spool.Op{Kind: spool.Delete, OID: oid, Serial: serial}}, nil)
}

// CheckCurrent implements zeolite.Txn.
func (t *Txn) CheckCurrent(_ context.Context, oid zeolite.OID, serial zeolite.TID) error {
	if err := t.open("check"); err != nil {
		return err
	}
	return t.add(&op{Op: spool.Op{Kind: spool.Check, OID: oid, Serial: serial}}, nil)
}

// Restore implements zeolite.Txn. If the transaction has no TID of its own the
// record is stored on top of whatever revision is current when Vote is called:
// servers would write it with a serial of zero.
func (t *Txn) Restore(_ context.Context, oid zeolite.OID, data []byte, prev zeolite.TID) error {
	if err := t.open("restore"); err != nil {
		return err
	}
	if data != nil && len(data) == 0 {
		return &zeolite.StorageError{Message: "restore: a record cannot be empty"}
	}
	return t.add(&op{Op: spool.Op{Kind: spool.Restore, OID: oid, Serial: prev}}, data)
}

// RestoreBlob implements zeolite.Txn. The protocol has no such method: the
// blob is stored on top of the revision that is current when Vote is called.
func (t *Txn) RestoreBlob(_ context.Context, oid zeolite.OID, data []byte, prev zeolite.TID, blob zeolite.BlobUpload) error {
	if err := t.checkRecord("restore", data); err != nil {
		return err
	}
	up, err := t.s.ownUpload(blob)
	if err != nil {
		return err
	}
	return t.add(&op{Op: spool.Op{Kind: spool.Restore, OID: oid, Serial: prev}, blob: up}, data)
}

// Undo implements zeolite.Txn, except that it returns no oids: which objects
// are changed, and whether it can be done, is known after Vote only. Before the
// first connection it waits for that: a server may not know how to undo.
func (t *Txn) Undo(ctx context.Context, tid zeolite.TID) ([]zeolite.OID, error) {
	if err := t.open("undo"); err != nil {
		return nil, err
	}
	if err := t.s.canUndo(ctx); err != nil {
		return nil, err
	}
	return nil, t.add(&op{Op: spool.Op{Kind: spool.Undo, Serial: tid}}, nil)
}

// Rewritten returns, after Vote, the objects whose new state is not what the
// transaction stored, because the server resolved a conflict or undid
// something. They have to be loaded after Finish.
func (t *Txn) Rewritten() []zeolite.OID { return t.rewrote }
