package load

import (
	"errors"
	"fmt"
	"time"
)

// A transaction is one commit under way on a connection. It belongs to the
// connection's goroutine.
type transaction struct {
	c  *Conn
	id int
}

// begin queues the start of a transaction.
func (c *Conn) begin() (transaction, error) {
	c.nextID++
	t := transaction{c, c.nextID}
	return t, c.send(0, true, "tpc_begin", t.id, []byte("user"), []byte("benchmark"), emptyMap{}, nil, " ")
}

// store queues a record.
func (t transaction) store(oid, serial uint64, record []byte) error {
	return t.c.send(0, true, "storea", oid, serial, record, t.id)
}

// vote sends the transaction and waits until it is accepted, or not, because
// of a conflict.
func (t transaction) vote() (accepted bool, err error) {
	m, err := t.c.Call("vote", t.id)
	if answers(err, "ConflictError") {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s, _, err := t.c.enc.next(m.args)
	return s.kind == end, err // the entries of the reply are all conflicts
}

// finish commits, and returns the tid.
func (t transaction) finish() (uint64, error) {
	m, err := t.c.Call("tpc_finish", t.id)
	if err != nil {
		return 0, err
	}
	tid, err := t.c.tid(m)
	if err != nil {
		return 0, err
	}
	if tid <= t.c.told {
		t.c.disordered++
	}
	t.c.told = max(t.c.told, tid)
	return tid, nil
}

// abort forgets the transaction.
func (t transaction) abort() error {
	_, err := t.c.Call("tpc_abort", t.id)
	return err
}

// Prepare makes the objects that are there to be loaded, unless they are there
// already, and returns their serials, by oid.
func Prepare(o Options) ([]uint64, error) {
	o.setDefaults()
	c, err := Dial(o.Target)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.enlarge()
	serials := make([]uint64, o.Objects)
	for first := 0; first < o.Objects; first += prepareBatch {
		batch := serials[first:min(first+prepareBatch, o.Objects)]
		if err := prepare(c, int(o.Size), o.FirstOID+uint64(first), batch); err != nil {
			return nil, fmt.Errorf("preparing objects: %w", err)
		}
	}
	return serials, nil
}

// errConflict is a conflict where nobody else writes.
var errConflict = errors.New("a conflict, though nobody else writes these objects")

const prepareBatch = 500

// prepare sees to a few objects.
func prepare(c *Conn, size int, first uint64, serials []uint64) error {
	var missing []int
	for i := range serials {
		oid := first + uint64(i)
		serial, ok, err := c.look(size, oid)
		if err != nil {
			return err
		}
		if serials[i] = serial; !ok {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	t, err := c.begin()
	if err != nil {
		return err
	}
	var record []byte
	for _, i := range missing {
		oid := first + uint64(i)
		record = Record(record[:0], size, oid, 1)
		if err := t.store(oid, serials[i], record); err != nil {
			return err
		}
	}
	if ok, err := t.vote(); err != nil {
		return err
	} else if !ok {
		return errConflict
	}
	tid, err := t.finish()
	for _, i := range missing {
		serials[i] = tid
	}
	return err
}

// look returns the serial of an object, zero if there is none, and whether it
// is a record of ours of the size.
func (c *Conn) look(size int, oid uint64) (serial uint64, ok bool, err error) {
	if err := c.send(pair{oid, maxTID}, false, "loadBefore", oid, uint64(maxTID)); err != nil {
		return 0, false, err
	}
	if err := c.flush(); err != nil {
		return 0, false, err
	}
	m, err := c.reply()
	if err != nil {
		if answers(err, "POSKeyError") {
			return 0, false, nil
		}
		return 0, false, err
	}
	data, rest, err := c.enc.next(m.args)
	if err != nil || data.kind != bytesKind {
		return 0, false, err
	}
	start, _, err := c.enc.next(rest)
	if err != nil {
		return 0, false, err
	}
	serial, _ = start.name()
	_, damaged := checkRecord(data.b, size, oid)
	return serial, damaged == nil, nil
}

// Commits measures transactions of Records records of Size bytes each. Every
// connection changes objects of its own, or, with Overlap, all of them the same
// ones: then most transactions end in a conflict, which are counted apart.
func Commits(o Options) (*Result, error) {
	o.setDefaults()
	sets := o.Conns
	if o.Overlap {
		sets = 1
	}
	o.Objects = sets * o.Records
	serials, err := Prepare(o)
	if err != nil {
		return nil, err
	}
	workers := make([]worker, o.Conns)
	for i := range workers {
		set := i % sets * o.Records
		w := &committer{options: o, first: o.FirstOID + uint64(set)}
		w.serials = append(w.serials, serials[set:set+o.Records]...)
		workers[i] = w.work
	}
	return o.run(workers)
}

// A committer is the state of one connection that commits.
type committer struct {
	options Options
	first   uint64
	serials []uint64 // of its objects, from first
	version uint64
	record  []byte
}

func (w *committer) work(c *Conn, m *meter) error {
	for {
		start := time.Now()
		if m.window.over(start) {
			return nil
		}
		ok, err := w.commit(c)
		switch {
		case err != nil:
			return err
		case ok:
			m.done(start, c.now, int64(w.options.Records)*w.options.Size)
		default:
			if m.window.includes(c.now) {
				m.lost++
			}
			if err := w.reload(c); err != nil {
				return err
			}
		}
	}
}

// commit runs one transaction. It is not ok if it ended in a conflict.
func (w *committer) commit(c *Conn) (ok bool, err error) {
	t, err := w.store(c)
	if err != nil {
		return false, err
	}
	if ok, err = t.vote(); err != nil {
		return false, err
	}
	if !ok {
		if !w.options.Overlap {
			return false, errConflict
		}
		return false, t.abort()
	}
	tid, err := t.finish()
	for i := range w.serials {
		w.serials[i] = tid
	}
	return true, err
}

// store queues a whole transaction up to the vote.
func (w *committer) store(c *Conn) (transaction, error) {
	t, err := c.begin()
	w.version++
	for i, serial := range w.serials {
		if err != nil {
			break
		}
		oid := w.first + uint64(i)
		w.record = Record(w.record[:0], int(w.options.Size), oid, w.version)
		err = t.store(oid, serial, w.record)
	}
	return t, err
}

// reload fetches the serials after a conflict.
func (w *committer) reload(c *Conn) error {
	for i := range w.serials {
		oid := w.first + uint64(i)
		serial, ok, err := c.look(int(w.options.Size), oid)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("object %d is gone, or damaged", oid)
		}
		w.serials[i] = serial
	}
	return nil
}
