package server

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/stubs/spool"
	"github.com/zeolite-go/zeolite/zrpc"
)

// transaction is what a client has open between tpc_begin and tpc_finish. It
// belongs to the client's ordered lane.
type transaction struct {
	id    stubs.TxnID
	meta  zeolite.TxnMeta
	log   spool.Log
	blobs map[zeolite.OID]zeolite.BlobUpload

	// failed is why an operation could not be taken down; being one-way it
	// could not say so, and vote does. refused says that nobody but the client
	// is to blame.
	failed  error
	refused bool

	// Between vote and the end:
	conflict bool // the vote met one
	locks    *commitLock
	locked   time.Time
	voted    zeolite.Txn
	held     zeolite.Txn   // in place of voted, while the client resolves conflicts
	timer    *time.Timer   // the client's time runs
	since    time.Time     // it does
	taken    time.Duration // it ran before
}

// TpcBegin follows stubs.StorageServer.
func (s *session) TpcBegin(_ context.Context, id stubs.TxnID, user, desc []byte, ext zrpc.Value,
	tid stubs.OptionalTID, status string) error {
	if s.readOnly {
		return zeolite.ErrReadOnly
	}
	if s.txn != nil {
		if s.txn.id == id {
			return nil
		}
		return &zeolite.TransactionError{Message: "tpc_begin: another transaction of this client is open"}
	}
	t := &transaction{id: id, log: spool.NewLog(s.opt.Limits.TransactionMemory)}
	t.meta = zeolite.TxnMeta{User: clone(user), Description: clone(desc)}
	if tid.Set {
		t.meta.TID = tid.TID
		if status != "" {
			t.meta.Status = status[0]
		}
	}
	var err error
	if t.meta.Extension, err = pickledExtension(ext); err != nil {
		t.refuse(err)
	}
	if st := t.meta.Status; st != 0 && st != ' ' && st != 'p' {
		// Others mean that a transaction is not there, or not whole.
		t.refuse(stubs.Exception(stubs.ClassValueError, fmt.Sprintf("tpc_begin: status must be ' ' or 'p', not %q", st)))
	}
	s.txn = t
	s.counters.active.Add(1)
	return nil
}

// current returns the open transaction if it has this id.
func (s *session) current(id stubs.TxnID) (*transaction, error) {
	switch {
	case s.readOnly:
		return nil, zeolite.ErrReadOnly
	case s.txn == nil:
		return nil, wrongTransaction(nil, id)
	case s.txn.id != id:
		return nil, wrongTransaction(idValue(s.txn.id), id)
	}
	return s.txn, nil
}

// wrongTransaction is the error of a call for a transaction that is not the
// open one. As in ZEO its arguments are the ids of both.
func wrongTransaction(open zrpc.Value, given stubs.TxnID) error {
	return stubs.FromRemote(stubs.Exception(stubs.ClassTransaction, open, idValue(given)))
}

func idValue(id stubs.TxnID) zrpc.Value {
	if id > math.MaxInt64 {
		return uint64(id)
	}
	return int64(id)
}

// growing returns the open transaction if it has this id and is not voted.
func (s *session) growing(id stubs.TxnID) (*transaction, error) {
	t, err := s.current(id)
	if err == nil && t.voted != nil {
		err = &zeolite.TransactionError{Message: "the transaction is voted: nothing can be added to it"}
	}
	return t, err
}

// refuse makes the vote fail for what only the client did. The first reason counts:
// a client could send any number of them.
func (t *transaction) refuse(err error) {
	if t.failed == nil {
		t.failed, t.refused = err, true
	}
}

// add takes an operation down.
func (s *session) add(id stubs.TxnID, o spool.Op, data []byte) error {
	t, err := s.growing(id)
	if err != nil {
		return err
	}
	switch most := s.opt.Limits.Operations; {
	case t.failed != nil:
	case t.log.Len() >= most:
		t.refuse(&zeolite.StorageError{Message: fmt.Sprintf(
			"the transaction has more than %d operations (the server's --max-operations)", most)})
	default:
		t.failed = t.log.Add(&o, data)
	}
	return nil
}

// Storea follows stubs.StorageServer.
func (s *session) Storea(_ context.Context, oid zeolite.OID, serial zeolite.TID, data []byte, id stubs.TxnID) error {
	s.counters.stores.Add(1)
	s.counters.stored.Add(int64(len(data)))
	return s.add(id, spool.Op{Kind: spool.Store, OID: oid, Serial: serial}, data)
}

// Restorea follows stubs.StorageServer. The serial is the transaction's tid.
func (s *session) Restorea(_ context.Context, oid zeolite.OID, _ zeolite.TID, data stubs.OptionalBytes,
	prev stubs.OptionalTID, id stubs.TxnID) error {
	s.counters.stores.Add(1)
	s.counters.stored.Add(int64(len(data)))
	return s.add(id, spool.Op{Kind: spool.Restore, OID: oid, Serial: prev.TID, Gone: data == nil}, data)
}

// DeleteObject follows stubs.StorageServer.
func (s *session) DeleteObject(_ context.Context, oid zeolite.OID, serial zeolite.TID, id stubs.TxnID) error {
	return s.add(id, spool.Op{Kind: spool.Delete, OID: oid, Serial: serial}, nil)
}

// CheckCurrentSerialInTransaction follows stubs.StorageServer.
func (s *session) CheckCurrentSerialInTransaction(_ context.Context, oid zeolite.OID, serial zeolite.TID, id stubs.TxnID) error {
	return s.add(id, spool.Op{Kind: spool.Check, OID: oid, Serial: serial}, nil)
}

// Undoa follows stubs.StorageServer.
func (s *session) Undoa(_ context.Context, transID []byte, id stubs.TxnID) error {
	t, err := s.current(id)
	if err != nil {
		return err
	}
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(transID)))
	n, err := base64.StdEncoding.Decode(raw, transID)
	if err != nil {
		t.refuse(stubs.Exception("binascii.Error", "the id of the transaction to undo is not base64: "+err.Error()))
		return nil
	}
	tid, err := zeolite.TIDFromBytes(raw[:n])
	if err != nil {
		t.refuse(&zeolite.UndoError{Reason: "Invalid transaction id"})
		return nil
	}
	return s.add(id, spool.Op{Kind: spool.Undo, Serial: tid}, nil)
}

// Vote gets the commit locks and replays the transaction into the storage.
func (s *session) Vote(ctx context.Context, id stubs.TxnID) (stubs.VoteResult, error) {
	t, err := s.current(id)
	if err != nil {
		return stubs.VoteResult{}, err
	}
	if t.voted != nil {
		return stubs.VoteResult{}, &zeolite.TransactionError{Message: "Already voting (locked)"}
	}
	s.retry.comes()
	t.conflict = false
	t.stopTimer()
	result, err := s.vote(ctx, t)
	if err != nil {
		if errors.As(err, new(*zeolite.ConflictError)) {
			s.counters.conflicts.Add(1)
			t.conflict = true
		}
		if !everyday(err) {
			level := slog.LevelError
			if t.refused || t.meta.Check() != nil || zeolite.CheckTID(t.meta.TID, s.storage.LastTID()) != nil {
				level = firstAt(level, &s.refusedOnce)
			}
			s.log.Log(ctx, level, "vote failed", "error", brief(err))
		}
		s.clearTransaction()
		return result, err
	}
	if len(result.Conflicts) > 0 {
		// The client keeps the transaction: it resolves the conflicts and
		// votes again, or aborts. It also keeps its locks, so that what it
		// resolved cannot meet the next conflict.
		s.counters.conflicts.Add(1)
		t.conflict = true
		t.hold(ctx)
	}
	s.startTimer(t)
	return result, nil
}

func (s *session) vote(ctx context.Context, t *transaction) (result stubs.VoteResult, err error) {
	if t.failed != nil {
		return result, t.failed
	}
	if err := s.lock(ctx, t); err != nil {
		return result, err
	}
	if t.held != nil {
		t.voted, t.held = t.held, nil
	} else if t.voted, err = s.storage.Begin(ctx, t.meta); err != nil {
		return result, err
	}
	r := replay{s: s, t: t, conflicts: map[zeolite.OID]*zeolite.ConflictError{}, stores: map[zeolite.OID]int{}}
	if err := r.all(ctx); err != nil {
		return result, err
	}
	if len(r.conflicts) > 0 {
		return r.result, nil
	}
	if err := t.voted.Vote(ctx); err != nil {
		switch resolvable, lateErr := r.late(zeolite.Conflicts(err)); {
		case lateErr != nil:
			return r.result, lateErr
		case !resolvable:
			return r.result, err
		}
		return r.result, r.report()
	}
	if remote, ok := t.voted.(zeolite.Rewriter); ok {
		r.result.Changed = append(r.result.Changed, remote.Rewritten()...)
	}
	return r.result, nil
}

// lock gets the locks that a transaction needs, unless it has them since an
// earlier vote, or orderedNow does.
func (s *session) lock(ctx context.Context, t *transaction) error {
	start := time.Now()
	if s.early != nil {
		t.locks, s.early = s.early, nil
	} else {
		oids, whole, err := t.objects()
		if err != nil {
			return err
		}
		if t.locks != nil {
			if t.locks.covers(oids, whole) {
				return nil
			}
			t.release()
		}
		if t.locks = s.retry.take(oids, whole); t.locks == nil {
			if t.locks, err = s.locks.acquire(ctx, oids, whole); err != nil {
				s.counters.lockWaits.observe(time.Since(start))
				return err
			}
		}
	}
	t.locked = time.Now()
	s.counters.lockWaits.observe(t.locked.Sub(start))
	return nil
}

// objects returns the objects whose locks the transaction needs, or that it
// must be alone.
func (t *transaction) objects() (oids []zeolite.OID, whole bool, err error) {
	if t.meta.TID != 0 {
		return nil, true, nil
	}
	oids = make([]zeolite.OID, 0, t.log.Len())
	err = t.log.Each(func(_ int, o *spool.Op) error {
		whole = whole || o.Kind == spool.Undo || o.Kind == spool.Restore
		oids = append(oids, o.OID)
		return nil
	})
	if whole {
		oids = nil
	}
	return oids, whole, err
}

// TpcFinish follows stubs.StorageServer; RespondTpcFinish is what is called.
func (s *session) TpcFinish(context.Context, stubs.TxnID) (stubs.OptionalTID, error) {
	return stubs.OptionalTID{}, errors.New("tpc_finish needs its call")
}

// RespondTpcFinish commits the transaction. The reply is queued when the
// transaction is published; the lane sends it when all is done.
func (s *session) RespondTpcFinish(ctx context.Context, call *zrpc.Call, id stubs.TxnID) {
	t, err := s.current(id)
	switch {
	case errors.Is(err, zeolite.ErrReadOnly):
		stubs.ReplyError(call, err)
		return
	case err != nil:
		// As in ZEO, and harmless: there is nothing to finish.
		s.finished(call, stubs.OptionalTID{})
		return
	case t.voted == nil:
		stubs.ReplyError(call, stubs.Exception("builtins.AssertionError", "tpc_finish without a vote"))
		return
	}
	// The timeout must not strike while the storage commits, nor a
	// disconnect stop it.
	t.stopTimer()
	answered := false
	_, err = t.voted.Finish(context.WithoutCancel(ctx), func(tid zeolite.TID, oids []zeolite.OID, visible func()) {
		s.publish(s, tid, oids, visible, func() {
			answered = true
			s.counters.commits.Add(1)
			_ = stubs.QueueInfo(s.conn, s.size())
			s.finished(call, stubs.SomeTID(tid))
		})
	})
	if err != nil {
		s.log.Error("tpc_finish failed", "error", err)
		s.clearTransaction()
		switch {
		case answered:
			// What was published stays published: the error came too late.
		case errors.Is(err, zeolite.ErrInDoubt):
			// Any answer might be wrong. Without one the client knows that
			// it does not know.
			s.conn.End(err)
			call.Release()
		default:
			stubs.ReplyError(call, err)
		}
		return
	}
	t.voted = nil
	s.endTransaction()
}

// finished replies to tpc_finish.
func (s *session) finished(call *zrpc.Call, tid stubs.OptionalTID) {
	if call.Async {
		call.Release()
		return
	}
	m := call.BeginReply()
	stubs.PutTpcFinish(m, tid)
	call.QueueReply(m)
}

// TpcAbort follows stubs.StorageServer.
func (s *session) TpcAbort(_ context.Context, id stubs.TxnID) error {
	_, err := s.current(id)
	switch {
	case errors.Is(err, zeolite.ErrReadOnly):
		return err
	case err == nil:
		s.clearTransaction()
	}
	return nil
}

// clearTransaction aborts the open transaction, if there is one.
func (s *session) clearTransaction() {
	if s.txn != nil {
		s.counters.aborts.Add(1)
		s.endTransaction()
	}
}

// endTransaction releases all that the open transaction holds.
func (s *session) endTransaction() {
	t := s.txn
	s.txn = nil
	s.counters.active.Add(-1)
	if t.conflict {
		t.locks = s.retry.keep(t.locks, time.Since(t.locked))
	}
	t.release()
	t.log.Close()
	// An upload that was not ended belonged to this transaction.
	s.dropUpload()
	for _, blob := range t.blobs {
		if err := blob.Discard(); err != nil {
			s.log.Error("cannot remove an uploaded blob", "error", err)
		}
	}
}

// hold takes back what a vote did in the storage. If others commit to it, too,
// they are kept away like the other clients of this server.
func (t *transaction) hold(ctx context.Context) {
	if holder, ok := t.voted.(zeolite.Holder); ok {
		if oids, whole, err := t.objects(); err == nil && !whole && holder.Hold(ctx, oids) == nil {
			t.held, t.voted = t.voted, nil
			return
		}
	}
	t.abortVote()
}

// abortVote takes back what a vote did in the storage, and lets go of it.
func (t *transaction) abortVote() {
	for _, txn := range []*zeolite.Txn{&t.voted, &t.held} {
		if *txn != nil {
			(*txn).Abort()
			*txn = nil
		}
	}
}

// release ends what there is between vote and finish.
func (t *transaction) release() {
	t.stopTimer()
	t.abortVote()
	if t.locks != nil {
		t.locks.release()
		t.locks = nil
	}
}

// startTimer lets the time run that the client has until it finishes. Votes do
// not count: they may wait in the storage for others, whose time runs.
func (s *session) startTimer(t *transaction) {
	d := s.opt.TransactionTimeout
	if d <= 0 {
		return
	}
	conn := s.conn
	t.since = time.Now()
	t.timer = time.AfterFunc(d-t.taken, func() {
		conn.End(fmt.Errorf("transaction timeout: the client held the commit lock for %v", d))
	})
}

func (t *transaction) stopTimer() {
	if t.timer != nil && t.timer.Stop() {
		t.taken += time.Since(t.since)
	}
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }
