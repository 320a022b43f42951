package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/zeolite-go/zeolite"
)

const (
	// streamPiece is how much of a large object is read at once.
	streamPiece = 256 << 10
	// streamAhead is how many pieces a stream keeps ready in memory.
	streamAhead = 4
	// streamTime is how long a transaction may be open, however fast the
	// reader is: an old one keeps the database from cleaning up.
	streamTime = 3 * time.Second
	// streamTries is how often a broken connection is replaced without any
	// byte being read between.
	streamTries = 10

	modeRead = 0x40000 // INV_READ
)

// stream reads a large object from some offset to its end. A goroutine, the
// fetcher, has a connection and reads ahead into memory; it starts when the
// reader wants something that is not there, and never lasts long. If the reader
// leaves the memory full, the fetcher puts the rest into the spool at the speed
// of the database and goes; what finds no room there is left for the next
// fetcher, which goes on at the same place, since a committed large object never
// changes.
//
// The reader's methods, next and close, are used by one goroutine.
type stream struct {
	s    *Storage
	loid uint32
	size int64

	// What the fetcher waits for ends with waiting; what it does, with
	// working, which comes somewhat later.
	waiting, working         context.Context
	stopWaiting, stopWorking context.CancelFunc
	room                     chan struct{} // told when a piece was taken

	mu      sync.Mutex // guards what follows
	ready   sync.Cond  // told when there is something for the reader
	pieces  [][]byte   // come before what is in the spool
	spare   [][]byte   // for more pieces
	spool   spool
	fetched int64 // the offset up to which was fetched
	running bool  // the fetcher is
	closed  bool
	err     error
}

func (s *Storage) newStream(loid uint32, off, size int64) *stream {
	st := &stream{s: s, loid: loid, size: size, fetched: off, room: make(chan struct{}, 1)}
	st.ready.L = &st.mu
	st.spool.all = &s.spools
	st.working, st.stopWorking = context.WithCancel(s.ctx)
	st.waiting, st.stopWaiting = context.WithCancel(st.working)
	return st
}

// next returns the next bytes, at least one, or io.EOF. They are the caller's
// until it gives them back with recycle.
func (st *stream) next() ([]byte, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for {
		switch {
		case len(st.pieces) > 0:
			piece := st.pieces[0]
			st.pieces = append(st.pieces[:0], st.pieces[1:]...)
			select {
			case st.room <- struct{}{}:
			default:
			}
			return piece, nil
		case !st.spool.empty():
			buf := st.buffer()
			n, err := st.spool.take(buf)
			return buf[:n], err
		case st.err != nil:
			return nil, st.err
		case st.running:
			st.ready.Wait()
		case st.fetched == st.size:
			return nil, io.EOF
		default:
			if err := st.start(); err != nil {
				return nil, err
			}
		}
	}
}

// buffer returns room for a piece. It is called with mu held.
func (st *stream) buffer() []byte {
	if n := len(st.spare); n > 0 {
		buf := st.spare[n-1]
		st.spare = st.spare[:n-1]
		return buf[:cap(buf)]
	}
	return make([]byte, min(streamPiece, st.size))
}

// recycle takes back bytes that next returned.
func (st *stream) recycle(piece []byte) {
	st.mu.Lock()
	if len(st.spare) < streamAhead && !st.closed {
		st.spare = append(st.spare, piece)
	}
	st.mu.Unlock()
}

// close ends the stream. A fetcher under way gives its connection back when the
// database has answered; if that takes long, the connection is cut.
func (st *stream) close() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.closed = true
	st.pieces, st.spare = nil, nil
	st.spool.close()
	st.stopWaiting()
	if !st.running {
		st.stopWorking()
		return
	}
	time.AfterFunc(closeTime, st.stopWorking)
}

// start starts the fetcher. It is called with mu held.
func (st *stream) start() error {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return zeolite.ErrClosed
	}
	st.running = true
	s.working.Go(st.fetch)
	return nil
}

// fetch is the fetcher.
func (st *stream) fetch() {
	var err error
	for tries := 0; tries < streamTries; {
		before := st.fetched // which only the fetcher changes
		var more bool
		more, err = st.session()
		if st.fetched > before {
			tries = 0
		}
		if err == nil && !more {
			break
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, errBroken) || st.waiting.Err() != nil {
			break
		}
		tries++
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.running = false
	st.spare = nil // a reader that stalls keeps what it is to read, and no more
	if err != nil {
		st.err = st.s.fault(st.working, "cannot read a blob", err)
	}
	if st.closed {
		st.stopWorking()
	}
	st.ready.Signal()
}

var errBroken = errors.New("the connection broke")

// session reads with one connection and one transaction, for a limited time. It
// says whether to go on with another.
func (st *stream) session() (more bool, err error) {
	conn, err := st.s.streams.Acquire(st.waiting)
	if err != nil {
		return false, err
	}
	// This ends the transaction and frees the connection however it ends.
	defer func() {
		if err != nil && conn.Conn().IsClosed() {
			err = fmt.Errorf("%w: %w", errBroken, err)
		}
		st.commit(conn)
	}()
	until := time.Now().Add(streamTime)
	fd, err := st.open(conn.Conn())
	if err != nil {
		return false, err
	}
	for {
		st.mu.Lock()
		buf := st.buffer()
		closed := st.closed
		st.mu.Unlock()
		if closed {
			return false, nil
		}
		piece := pgtype.PreallocBytes(buf)
		want := min(int64(len(buf)), st.size-st.fetched)
		if err := conn.QueryRow(st.working, "SELECT loread($1, $2)", fd, int32(want)).Scan(&piece); err != nil {
			return false, err
		}
		if int64(len(piece)) != want {
			return false, io.ErrUnexpectedEOF
		}
		goOn := st.put(piece)
		if !goOn || st.fetched == st.size {
			return false, nil
		}
		if time.Now().After(until) {
			return true, nil
		}
	}
}

// open begins the transaction and opens the large object at the place to go on.
func (st *stream) open(conn *pgx.Conn) (fd int32, err error) {
	b := &pgx.Batch{}
	b.Queue("BEGIN READ ONLY")
	b.Queue("SELECT fd, lo_lseek64(fd, $2, 0) FROM (SELECT lo_open($1, $3) AS fd OFFSET 0) o", st.loid, st.fetched, modeRead).
		QueryRow(func(row pgx.Row) error {
			var at int64
			return row.Scan(&fd, &at)
		})
	err = conn.SendBatch(st.working, b).Close()
	if sqlState(err) == codeNoObject {
		err = &zeolite.StorageError{Message: "postgres: the blob was removed by a pack while it was read", Err: err}
	}
	return fd, err
}

// commit ends the transaction, which closes the large object, and gives the
// connection back.
func (st *stream) commit(conn *pgxpool.Conn) {
	if c := conn.Conn(); !c.IsClosed() && c.PgConn().TxStatus() != 'I' {
		_, _ = c.Exec(st.working, "COMMIT") // nothing was changed
	}
	conn.Release()
}

// put hands a piece to the reader, in memory or in the spool. False says that
// there is room for no more.
func (st *stream) put(piece []byte) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	full := func() bool { return st.spool.empty() && len(st.pieces) >= streamAhead }
	if full() {
		patience := time.NewTimer(st.s.opts.StreamPatience)
		defer patience.Stop()
		// What room tells may be about a piece that was taken before.
		for waiting := true; waiting && !st.closed && full(); {
			st.mu.Unlock()
			select {
			case <-st.room:
			case <-patience.C:
				waiting = false
			case <-st.waiting.Done():
				waiting = false
			}
			st.mu.Lock()
		}
	}
	if st.closed {
		return false
	}
	st.fetched += int64(len(piece))
	defer st.ready.Signal()
	goOn := true
	if !st.spool.empty() || len(st.pieces) >= streamAhead {
		if st.spool.add(piece) {
			st.spare = append(st.spare, piece)
			return true
		}
		if !st.spool.empty() {
			return st.leave(piece)
		}
		goOn = false
	}
	st.pieces = append(st.pieces, piece)
	return goOn
}

// leave gives up a piece for which the spool has no room: it is fetched again.
// It is called with mu held.
func (st *stream) leave(piece []byte) bool {
	st.fetched -= int64(len(piece))
	st.spare = append(st.spare, piece)
	return false
}
