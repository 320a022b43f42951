package postgres

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/zeolite-go/zeolite"
)

// txn gathers revisions until Vote, which writes them on a connection that the
// transaction keeps. It is used by one goroutine at a time, and by Close of its
// storage.
type txn struct {
	s    *Storage
	meta zeolite.TxnMeta

	mu      sync.Mutex // guards what follows
	state   state
	records []*pending
	index   map[zeolite.OID]int // into records
	reads   map[zeolite.OID]zeolite.TID
	undone  map[zeolite.TID]struct{}
	conn    *pgxpool.Conn // from Vote on, or Hold
	commit  *commit       // what is written there
}

// pending is a revision without its TID.
type pending struct {
	oid zeolite.OID
	// serial is what must be current still when the transaction commits,
	// unless unchecked is set.
	serial    zeolite.TID
	unchecked bool
	data      []byte  // nil: the object is gone
	sum       *string // of data, in hexadecimal
	// upload is a new blob. Else shared, if not zero, is the large object
	// that the revision has in common with an earlier one.
	upload *upload
	shared uint32
}

// blob is the large object of a revision, zero if it has none.
func (p *pending) blob() uint32 {
	if p.upload != nil {
		return p.upload.loid
	}
	return p.shared
}

type state string

const (
	open     state = "open"
	voted    state = "voted"
	finished state = "finished"
	aborted  state = "aborted"
)

// Begin implements zeolite.Storage.
func (s *Storage) Begin(ctx context.Context, meta zeolite.TxnMeta) (zeolite.Txn, error) {
	if s.opts.ReadOnly {
		return nil, zeolite.ErrReadOnly
	}
	_, leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	leave()
	if err := meta.Check(); err != nil {
		return nil, err
	}
	if err := zeolite.CheckTID(meta.TID, s.publisher.horizon()); err != nil {
		return nil, err
	}
	return &txn{s: s, meta: meta.Clone(), state: open, index: map[zeolite.OID]int{}, reads: map[zeolite.OID]zeolite.TID{}}, nil
}

// expect checks that the transaction is in the state want. It is called with mu
// held.
func (t *txn) expect(call string, want state) error {
	if t.state != want {
		return &zeolite.TransactionError{Message: fmt.Sprintf("%s: the transaction is %s, not %s", call, t.state, want)}
	}
	return nil
}

// put adds a revision to the transaction, in place of one it has already. It is
// called with mu held.
func (t *txn) put(p *pending) {
	if p.data != nil && p.sum == nil {
		sum := md5.Sum(p.data)
		text := hex.EncodeToString(sum[:])
		p.sum = &text
	}
	if i, again := t.index[p.oid]; again {
		t.records[i] = p
		return
	}
	t.index[p.oid] = len(t.records)
	t.records = append(t.records, p)
}

// currentObject reads the serial of an object, as the database has it now, and
// whether the object is gone. A zero serial says that there are no revisions.
func (s *Storage) currentObject(ctx context.Context, oid zeolite.OID) (serial zeolite.TID, gone bool, err error) {
	err = s.read(ctx, "cannot read a serial", func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT c.tid, o.state IS NULL FROM current_object c JOIN object_state o USING (zoid, tid)
			WHERE c.zoid = $1`, int64(oid)).Scan(&serial, &gone)
		if errors.Is(err, pgx.ErrNoRows) {
			serial, gone, err = zeolite.ZeroTID, false, nil
		}
		return err
	})
	return serial, gone, err
}

// conflict makes conflicts known. If one is with a transaction of another
// server that is not published here yet, that is done first: whoever resolves
// the conflict wants to load what was committed.
func (s *Storage) conflict(ctx context.Context, conflicts []*zeolite.ConflictError) error {
	var all []error
	last := zeolite.ZeroTID
	for _, c := range conflicts {
		all, last = append(all, c), max(last, c.Committed)
	}
	if last > s.publisher.horizon() {
		if err := s.CatchUp(ctx); err != nil {
			return err
		}
	}
	if len(all) == 1 {
		return all[0]
	}
	return errors.Join(all...)
}

// Store implements zeolite.Txn. The serial of an object that has no record is
// not checked, as in FileStorage: a writer may still know an object that a
// pack has collected.
func (t *txn) Store(ctx context.Context, oid zeolite.OID, serial zeolite.TID, data []byte) error {
	return t.store(ctx, "Store", oid, serial, data, nil)
}

// StoreBlob implements zeolite.Txn.
func (t *txn) StoreBlob(ctx context.Context, oid zeolite.OID, serial zeolite.TID, data []byte, blob zeolite.BlobUpload) error {
	u, err := t.s.ownUpload(blob)
	if err != nil {
		return err
	}
	return t.store(ctx, "StoreBlob", oid, serial, data, u)
}

func (t *txn) store(ctx context.Context, call string, oid zeolite.OID, serial zeolite.TID, data []byte, u *upload) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.expect(call, open); err != nil {
		return err
	}
	if len(data) == 0 {
		return errEmptyRecord
	}
	if err := t.s.checkOID(ctx, oid); err != nil {
		return err
	}
	var current zeolite.TID
	if k, ok := t.s.serials.get(oid); ok && k.tid == serial {
		current = serial // Vote asks the database
	} else {
		var err error
		if current, _, err = t.s.currentObject(ctx, oid); err != nil {
			return err
		}
	}
	if current != zeolite.ZeroTID && current != serial {
		return t.s.conflict(ctx, []*zeolite.ConflictError{{OID: oid, Committed: current, Seen: serial}})
	}
	t.put(&pending{oid: oid, serial: current, data: data, upload: u})
	return nil
}

// Delete implements zeolite.Txn.
func (t *txn) Delete(ctx context.Context, oid zeolite.OID, serial zeolite.TID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(ctx, "Delete", oid, serial, false); err != nil {
		return err
	}
	t.put(&pending{oid: oid, serial: serial})
	return nil
}

// CheckCurrent implements zeolite.Txn. Vote asks again, under a lock.
func (t *txn) CheckCurrent(ctx context.Context, oid zeolite.OID, serial zeolite.TID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(ctx, "CheckCurrent", oid, serial, true); err != nil {
		return err
	}
	t.reads[oid] = serial
	return nil
}

func (t *txn) check(ctx context.Context, call string, oid zeolite.OID, serial zeolite.TID, read bool) error {
	if err := t.expect(call, open); err != nil {
		return err
	}
	if oid > maxOID {
		return &zeolite.NotFoundError{OID: oid}
	}
	if k, ok := t.s.serials.get(oid); ok && k.live && k.tid == serial {
		return nil // Vote asks the database
	}
	current, gone, err := t.s.currentObject(ctx, oid)
	switch {
	case err != nil:
		return err
	case current == zeolite.ZeroTID || (gone && current == serial):
		return &zeolite.NotFoundError{OID: oid}
	case current != serial:
		return t.s.conflict(ctx, []*zeolite.ConflictError{{OID: oid, Committed: current, Seen: serial, Read: read}})
	}
	return nil
}

// Restore implements zeolite.Txn. The tables cannot share the data of another
// revision, so prev is not used.
func (t *txn) Restore(ctx context.Context, oid zeolite.OID, data []byte, prev zeolite.TID) error {
	return t.restore(ctx, "Restore", oid, data, nil)
}

// RestoreBlob implements zeolite.Txn.
func (t *txn) RestoreBlob(ctx context.Context, oid zeolite.OID, data []byte, prev zeolite.TID, blob zeolite.BlobUpload) error {
	u, err := t.s.ownUpload(blob)
	if err != nil {
		return err
	}
	return t.restore(ctx, "RestoreBlob", oid, data, u)
}

func (t *txn) restore(ctx context.Context, call string, oid zeolite.OID, data []byte, u *upload) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.expect(call, open); err != nil {
		return err
	}
	if data != nil && len(data) == 0 {
		return errEmptyRecord
	}
	if err := t.s.checkOID(ctx, oid); err != nil {
		return err
	}
	t.put(&pending{oid: oid, unchecked: true, data: data, upload: u})
	return nil
}

// Abort implements zeolite.Txn.
func (t *txn) Abort() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != finished {
		t.end(aborted)
	}
}

// end ends the transaction and gives its connection back. It is called with mu
// held.
func (t *txn) end(last state) {
	t.state = last
	t.records, t.index, t.reads = nil, nil, nil
	t.disconnect()
}

// disconnect rolls back what is open in the database.
func (t *txn) disconnect() {
	conn := t.conn
	if conn == nil {
		return
	}
	t.conn, t.commit = nil, nil
	rollBack(conn)
	t.s.mu.Lock()
	delete(t.s.open, t)
	t.s.mu.Unlock()
	t.s.working.Done()
}

// rollBack ends whatever transaction the connection is in, and gives it back to
// its pool, which throws it away if that failed.
func rollBack(conn *pgxpool.Conn) {
	if c := conn.Conn(); !c.IsClosed() && c.PgConn().TxStatus() != 'I' {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		_, _ = c.Exec(ctx, "ROLLBACK")
		cancel()
	}
	conn.Release()
}
