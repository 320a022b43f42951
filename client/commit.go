package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/stubs/spool"
	"github.com/zeolite-go/zeolite/zrpc"
)

// maxRounds is how often a transaction is voted on, as conflicts are resolved.
const maxRounds = 9

// queueLimit is how many bytes of a transaction may wait to be sent before
// more are added.
const queueLimit = 4 << 20

// Vote implements zeolite.Txn: it waits for its turn, sends the transaction,
// and has the server check it. Conflicts are resolved if there is
// Options.Resolve; if several are left over, the error has them all (see
// errors.Join).
//
// If it fails nothing is left at the server, and the transaction is as before,
// with what Options.Resolve made of some of its records. If the connection is
// lost it is tried once more on the next one; it is always safe to repeat.
func (t *Txn) Vote(ctx context.Context) error {
	if err := t.open("vote"); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.s.ctx, cancel)()
	if err := t.s.turn.Acquire(ctx, 1); err != nil {
		return t.s.ctxErr(ctx)
	}
	err := t.s.asError(t.vote(ctx), true)
	if SafeToRepeat(err) && t.link != nil && t.link.lost() {
		// Nothing of it is left at the server: once more, on the next one.
		t.stopUploads()
		err = t.s.asError(t.vote(ctx), true)
	}
	if err == nil {
		t.state = txnVoted
		return nil
	}
	t.withdraw()
	if t.s.ctx.Err() != nil && !errors.Is(err, zeolite.ErrClosed) {
		return fmt.Errorf("%w: %w", zeolite.ErrClosed, err)
	}
	return err
}

func (t *Txn) vote(ctx context.Context) error {
	l, err := t.s.connection(ctx)
	if err != nil {
		return err
	}
	if l.readOnly {
		return zeolite.ErrReadOnly
	}
	if err := zeolite.CheckTID(t.meta.TID, t.s.LastTID()); err != nil {
		return err
	}
	t.link = l
	t.basis = t.s.LastTID()
	if err := t.send(ctx); err != nil {
		return err
	}
	for round := 1; ; round++ {
		result, err := l.stub.Vote(ctx, t.id)
		if len(result.Conflicts) > 0 || len(zeolite.Conflicts(err)) > 0 {
			// Whoever is told of it may want to load what was committed.
			if err := t.s.shown(ctx); err != nil {
				return err
			}
		}
		if err != nil {
			t.forget(err)
			return err
		}
		if len(result.Conflicts) == 0 {
			t.rewrote = result.Changed
			return nil
		}
		if err := t.resolve(ctx, result.Conflicts, round); err != nil {
			return err
		}
	}
}

// send sends all operations. Blobs follow as streams; what is sent to end the
// vote goes behind them by itself.
func (t *Txn) send(ctx context.Context) error {
	t.id = stubs.TxnID(t.s.lastID.Add(1))
	var ext zrpc.Value = zrpc.NewDict()
	if len(t.meta.Extension) > 0 {
		ext = t.meta.Extension
	}
	status := " "
	if t.meta.Status != 0 {
		status = string(rune(t.meta.Status))
	}
	tid := stubs.OptionalTID{TID: t.meta.TID, Set: t.meta.TID != 0}
	if err := t.link.stub.TpcBegin(ctx, t.id, notNil(t.meta.User), notNil(t.meta.Description), ext, tid, status); err != nil {
		return lostBefore(err)
	}
	return t.each(func(o *op) error {
		if err := t.link.conn.WaitRoom(ctx, queueLimit); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return lostBefore(err)
		}
		return t.sendOne(ctx, o)
	})
}

func (t *Txn) sendOne(ctx context.Context, o *op) error {
	stub := t.link.stub
	data, err := t.record(o)
	if err != nil {
		return err
	}
	kind, serial := o.Kind, o.Serial
	if kind == spool.Restore && (o.blob != nil || t.meta.TID == 0) {
		if serial, err = t.currentSerial(ctx, o.OID); err != nil {
			return err
		}
		kind = spool.Store
		if data == nil {
			kind = spool.Delete
		}
	}
	if o.blob != nil {
		return t.sendBlob(o, serial, data)
	}
	switch kind {
	case spool.Store:
		err = stub.Storea(ctx, o.OID, serial, data, t.id)
	case spool.Delete:
		err = stub.DeleteObject(ctx, o.OID, serial, t.id)
	case spool.Check:
		err = stub.CheckCurrentSerialInTransaction(ctx, o.OID, serial, t.id)
	case spool.Restore:
		prev := stubs.OptionalTID{TID: serial, Set: serial != 0}
		err = stub.Restorea(ctx, o.OID, t.meta.TID, data, prev, t.id)
	case spool.Undo:
		err = stub.Undoa(ctx, undoID(serial), t.id)
	}
	return lostBefore(err)
}

// currentSerial returns the serial on which a record is to be stored that is
// restored without a tid, or with a blob. That of a deletion shows in the history
// only.
func (t *Txn) currentSerial(ctx context.Context, oid zeolite.OID) (zeolite.TID, error) {
	var notFound *zeolite.NotFoundError
	tid, err := t.link.stub.GetTid(ctx, oid)
	if !errors.As(err, &notFound) {
		return tid, err
	}
	v, err := t.link.stub.History(ctx, oid, 1)
	if errors.As(err, &notFound) {
		return zeolite.ZeroTID, nil
	}
	if err != nil {
		return 0, err
	}
	if entries, _ := zrpc.Sequence(v); len(entries) > 0 {
		info, err := infoFrom(entries[0])
		if err != nil {
			return 0, err
		}
		return info.TID, nil
	}
	return zeolite.ZeroTID, nil
}

// resolve asks for merged records and stores them in place of those that met a
// conflict.
func (t *Txn) resolve(ctx context.Context, conflicts []stubs.StoreConflict, round int) error {
	var refused []error
	again := false
	for _, c := range conflicts {
		refusal := &zeolite.ConflictError{OID: c.OID, Committed: c.Committed, Seen: c.Seen}
		i, stored := t.last[c.OID]
		if !stored {
			refusal.Data = c.Data // an undo met it
		}
		if t.s.opt.Resolve == nil || round >= maxRounds || stored && t.blobs[i] != nil {
			refused = append(refused, refusal)
			continue
		}
		data, err := t.s.opt.Resolve(ctx, Conflict{OID: c.OID, Committed: c.Committed, Seen: c.Seen, Data: c.Data})
		if err == nil && len(data) == 0 {
			err = errors.New("the resolved record is empty")
		}
		if err != nil {
			refused = append(refused, errors.Join(refusal, err))
			continue
		}
		o := op{Op: spool.Op{Kind: spool.Store, OID: c.OID, Serial: c.Committed}}
		if err := t.add(&o, data); err != nil {
			return err
		}
		if err := t.sendOne(ctx, &o); err != nil {
			return err
		}
		again = true
	}
	if len(refused) > 0 {
		t.forget(refused...)
		if len(refused) == 1 {
			return refused[0]
		}
		return errors.Join(refused...)
	}
	if again && len(t.uploads)+len(t.shared) > 0 {
		// Python's server has used up the blobs by now, and would commit the
		// records without them: everything has to be sent anew.
		if err := t.link.stub.TpcAbort(ctx, t.id); err != nil {
			return err
		}
		unshare(t.shared)
		t.uploads, t.shared = nil, nil
		return t.send(ctx)
	}
	return nil
}

// forget removes objects from the cache whose current revision must be another
// one, by what a vote said.
func (t *Txn) forget(errs ...error) {
	var conflict *zeolite.ConflictError
	for _, err := range errs {
		if errors.As(err, &conflict) && conflict.OID != 0 {
			t.s.cache.mu.Lock()
			t.s.cache.forgetLocked(t.s.cache.tid, []zeolite.OID{conflict.OID})
			t.s.cache.mu.Unlock()
		}
	}
}

// withdraw takes back what was sent, and gives the turn to the next
// transaction as soon as the server has answered, or the connection has ended:
// a transaction must not begin before.
func (t *Txn) withdraw() {
	l, id, uploads, shared := t.link, t.id, t.uploads, t.shared
	t.link, t.rewrote = nil, nil
	if l == nil || l.lost() {
		t.stopUploads()
		t.s.turn.Release(1)
		return
	}
	t.uploads, t.shared = nil, nil
	for _, o := range uploads {
		o.cut()
	}
	t.s.spawn(func() {
		defer t.s.turn.Release(1)
		l.abort(id)
		unshare(shared)
		waitFor(uploads)
	})
}

// abort has the server forget a transaction, or else ends the connection.
func (l *link) abort(id stubs.TxnID) {
	// An answer other than None: the server is confused about us.
	if err := l.stub.TpcAbort(l.s.ctx, id); err != nil && !errors.Is(err, zeolite.ErrReadOnly) {
		l.conn.End(fmt.Errorf("tpc_abort: %w", err))
	}
}

// stopUploads ends the uploads to a connection that was lost.
func (t *Txn) stopUploads() {
	for _, o := range t.uploads {
		o.cut()
	}
	waitFor(t.uploads)
	unshare(t.shared)
	t.uploads, t.shared = nil, nil
}

// Abort implements zeolite.Txn. It does not wait for the server. Uploads stay
// with whoever made them.
func (t *Txn) Abort() {
	if t.state == txnVoted {
		t.withdraw()
	}
	if t.state != txnEnded {
		t.state = txnEnded
		t.staging.close()
	}
}

// Finish implements zeolite.Txn. If the connection is lost, or the context
// ends, after the server was asked to commit and before it answered, the error
// is an *InDoubtError; Storage.Outcome then finds out what happened. Blobs that
// cannot be put into the cache are downloaded when they are wanted: a commit
// does not fail with that, and does not wait long for it.
//
// publish is called by a goroutine of the Storage, in the order in which the
// server told of all transactions, those of other clients included.
func (t *Txn) Finish(ctx context.Context, publish zeolite.Publish) (zeolite.TID, error) {
	if t.state != txnVoted {
		if err := t.open("finish"); err != nil {
			return 0, err
		}
		return 0, &zeolite.TransactionError{Message: "finish: the transaction is not voted"}
	}
	if err := ctx.Err(); err != nil {
		t.Abort()
		return 0, err
	}
	c := t.detach(publish)
	t.state = txnEnded
	l, id := t.link, t.id
	// The call outlives ctx: the next transaction gets its turn when the answer
	// is there, or when the connection ends without it.
	settled := make(chan struct{})
	blobs := len(c.staging.blobs) > 0
	c.s.spawn(func() {
		err := l.stub.TpcFinishHook(context.Background(), id, c.answered)
		refused := err != nil && c.wasAnswered()
		if err != nil && !refused {
			c.lost(err)
		}
		c.settle()
		close(settled)
		if refused {
			// Python's server still has the transaction, and the commit lock.
			l.abort(id)
			c.s.turn.Release(1)
		}
	})
	c.wait(ctx, settled, blobs)
	if !c.wasAnswered() {
		return 0, &InDoubtError{err: ctx.Err(), c: c}
	}
	if c.unanswered {
		return 0, &InDoubtError{err: t.s.asError(c.failure, false), c: c}
	}
	if err := c.failure; err != nil {
		return 0, t.s.asError(err, false)
	}
	<-c.visible
	return c.tid, nil
}

// commit is a transaction from tpc_finish on. It outlives its Txn if the
// outcome is in doubt. The fields below ended may be read when it is closed.
type commit struct {
	s       *Storage
	meta    zeolite.TxnMeta
	basis   zeolite.TID
	staging staging
	rewrote []zeolite.OID
	shared  []string // the names of uploads in the server's directory
	publish zeolite.Publish

	ended   chan struct{} // the answer is there, or will not come
	visible chan struct{} // and it is visible, if it is committed
	tid     zeolite.TID   // not zero if committed
	failure error         // if it is not
	// unanswered says that the connection ended before it could be known.
	unanswered bool
}

// detach moves all that the transaction has to what remains of it.
func (t *Txn) detach(publish zeolite.Publish) *commit {
	c := &commit{
		s: t.s, meta: t.meta, basis: t.basis, staging: t.staging, rewrote: t.rewrote, shared: t.shared, publish: publish,
		ended: make(chan struct{}), visible: make(chan struct{}),
	}
	t.staging = staging{}
	return c
}

// wait waits until a commit is settled or the context ends. It does not wait long
// for blobs once the commit is visible: another process may have the directory of
// one for as long as it downloads.
func (c *commit) wait(ctx context.Context, settled <-chan struct{}, blobs bool) {
	visible := c.visible
	if !blobs {
		visible = nil // it is settled at once
	}
	select {
	case <-settled:
		return
	case <-ctx.Done():
		return
	case <-visible:
	}
	timer := time.NewTimer(c.s.settleTime)
	defer timer.Stop()
	select {
	case <-settled:
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (c *commit) wasAnswered() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// answered is called by the goroutine that reads the connection, in the order
// of messages: what others committed before is in the cache already, and what
// they commit next is not. After an exception the turn is kept.
func (c *commit) answered(tid stubs.OptionalTID, err error) {
	switch {
	case err != nil:
		c.failure = err
	case !tid.Set:
		c.failure = &zeolite.TransactionError{Message: "finish: the server does not know the transaction any more"}
	default:
		c.tid = tid.TID
		c.applied()
	}
	close(c.ended)
	if err == nil {
		c.s.turn.Release(1)
	}
	if c.tid == 0 {
		close(c.visible)
	}
}

// lost says that the answer will not come.
func (c *commit) lost(err error) {
	var lost *zrpc.ConnError
	c.failure, c.unanswered = err, errors.As(err, &lost) && lost.MaybeSent
	close(c.ended)
	c.s.turn.Release(1)
}

// applied does what a commit does at this end.
func (c *commit) applied() {
	oids := c.staging.changed()
	rewrote := map[zeolite.OID]bool{}
	for _, oid := range c.rewrote {
		if _, ok := c.staging.last[oid]; !ok && !rewrote[oid] {
			oids = append(oids, oid)
		}
		rewrote[oid] = true
	}
	for _, blob := range c.staging.blobs {
		blob.consume()
	}
	k := c.s.cache
	k.mu.Lock()
	k.applyLocked(c.tid, oids)
	c.s.oids.taken(oids)
	_ = c.staging.each(func(o *op) error {
		// What was spilled is not worth reading again.
		if (o.Kind == spool.Store || o.Kind == spool.Restore) && o.Size > 0 && c.staging.log.InMemory(&o.Op) && !rewrote[o.OID] {
			record, _ := c.staging.record(o) // in memory nothing fails
			k.insertLocked(o.OID, zeolite.Revision{Data: bytes.Clone(record), TID: c.tid})
		}
		return nil
	})
	c.s.pub.add(publication{tid: c.tid, oids: oids, publish: c.publish, own: true, done: c.visible})
	k.mu.Unlock()
}

// settle puts the blobs of a commit into the cache, and lets go of what else
// there is, unless Outcome needs it. It may wait for other processes, so the
// goroutine that reads the connection does not do it.
func (c *commit) settle() {
	if c.unanswered {
		return
	}
	if c.tid != 0 && len(c.staging.blobs) > 0 {
		err := c.staging.each(func(o *op) error {
			if o.blob != nil {
				c.s.blobs.keep(o.blob, blobKey{o.OID, c.tid})
			}
			return nil
		})
		if err != nil {
			for _, blob := range c.staging.blobs {
				err = errors.Join(err, blob.discard(true)) // those that have no place
			}
			c.s.log.Warn("the blobs of a commit are not all put into the cache", "tid", c.tid, "error", err)
		}
	}
	c.letGo()
}

// letGo frees what is only needed while the outcome is not known.
func (c *commit) letGo() {
	c.staging.close()
	unshare(c.shared) // the server has taken over what it has committed
}

// lostBefore marks the failure to queue a one-way message as that of a
// connection; the message was not sent.
func lostBefore(err error) error {
	if err == nil || errors.As(err, new(*zrpc.ConnError)) {
		return err
	}
	return &zrpc.ConnError{Err: err}
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
