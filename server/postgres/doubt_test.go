package postgres

import (
	"bytes"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// proxy stands between a storage and its database. Its methods may be called
// from any goroutine.
type proxy struct {
	t        *testing.T
	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex // guards what follows
	conns map[net.Conn]struct{}
	// cut says at which bytes of an answer to break a connection for commits,
	// instead of handing it on; it is used once.
	cut []byte
	// down refuses new connections, and breaks all there are.
	down   bool
	wasCut chan struct{}
	goDown bool // with the cut
	// silence, until it is closed, keeps back all that the database says.
	silence   chan struct{}
	forgotten []chan struct{} // of which nobody is to speak again
	muted     int             // how often something was kept back
}

// newProxy returns a proxy for the database of a DSN of pgtest, and the DSN that
// leads through it.
func newProxy(t *testing.T, dsn string) (*proxy, string) {
	t.Helper()
	dir := t.TempDir()
	host := strings.TrimPrefix(strings.Fields(dsn)[0], "host=")
	listener, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, target: filepath.Join(host, ".s.PGSQL.5432"), listener: listener,
		conns: map[net.Conn]struct{}{}, wasCut: make(chan struct{}, 1)}
	p.wg.Go(p.serve)
	t.Cleanup(func() {
		listener.Close()
		p.setSilent(false)
		for _, silence := range p.forgotten {
			close(silence)
		}
		p.setDown(true)
		p.wg.Wait()
	})
	return p, strings.Replace(dsn, "host="+host, "host="+dir, 1)
}

func (p *proxy) serve() {
	for {
		front, err := p.listener.Accept()
		if err != nil {
			return
		}
		back, err := net.Dial("unix", p.target)
		if err != nil {
			front.Close()
			continue
		}
		p.mu.Lock()
		p.conns[front], p.conns[back] = struct{}{}, struct{}{}
		if p.down {
			front.Close()
			back.Close()
		}
		p.mu.Unlock()
		var commits atomic.Bool
		p.wg.Go(func() {
			p.carry(back, front, func(asked []byte) bool {
				if bytes.Contains(asked, []byte(appCommits)) { // when it introduces itself
					commits.Store(true)
				}
				return true
			})
		})
		p.wg.Go(func() {
			p.carry(front, back, func(answer []byte) bool {
				p.waitForWords(len(answer) > 0)
				return !commits.Load() || p.mayPass(answer)
			})
		})
	}
}

// carry hands on bytes until either side breaks.
func (p *proxy) carry(to, from net.Conn, mayPass func([]byte) bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if !mayPass(buf[:n]) {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) mayPass(answer []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut == nil || !bytes.Contains(answer, p.cut) {
		return true
	}
	p.cut = nil
	if p.goDown {
		p.shut()
	}
	p.wasCut <- struct{}{}
	return false
}

// shut is called with mu held.
func (p *proxy) shut() {
	p.down = true
	for conn := range p.conns {
		conn.Close()
	}
	clear(p.conns)
}

func (p *proxy) setDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down = down; down {
		p.shut()
	}
}

// setSilent lets the database fall silent, or speak again.
func (p *proxy) setSilent(silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silence != nil {
		close(p.silence)
		p.silence = nil
	}
	if silent {
		p.silence = make(chan struct{})
	}
}

// forget leaves those silent for good, until the test ends, who are, but not those
// who come.
func (p *proxy) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	silence := p.silence
	p.silence = nil
	p.forgotten = append(p.forgotten, silence)
}

func (p *proxy) waitForWords(words bool) {
	p.mu.Lock()
	silence := p.silence
	if silence != nil && words {
		p.muted++
	}
	p.mu.Unlock()
	if silence != nil {
		<-silence
	}
}

// cutAt arms the cut.
func (p *proxy) cutAt(answer string, andGoDown bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.goDown = []byte(answer), andGoDown
}

// answerToCommit is the CommandComplete message of COMMIT.
const answerToCommit = "COMMIT\x00"

// The answer to a commit is lost: Finish finds out that it was committed.
func TestLostAnswerToCommit(t *testing.T) {
	direct := pgtest.Database(t)
	p, dsn := newProxy(t, direct)
	s := watch(t, storage(t, Options{DSN: dsn}))
	serial := put(t, s.Storage, store(t.Context(), 1, 0, "first"))
	published := s.count()
	p.cutAt(answerToCommit, false)
	tid, err := tryPut(t.Context(), s, s.publish, store(t.Context(), 1, serial, "second"))
	if err != nil {
		t.Fatal(err)
	}
	<-p.wasCut
	if rev, err := s.LoadBefore(t.Context(), 1, zeolite.MaxTID); err != nil || rev.TID != tid {
		t.Errorf("loaded %v, %v", rev.TID, err)
	}
	if n := s.count() - published; n != 1 {
		t.Errorf("published %d times", n)
	}
}

// The connection breaks before the commit reaches the database.
func TestLostCommit(t *testing.T) {
	direct := pgtest.Database(t)
	s, a := watch(t, storage(t, Options{DSN: direct})), newAdmin(t, direct)
	serial := put(t, s.Storage, store(t.Context(), 1, 0, "first"))
	// The database ends the connection at the moment of the commit.
	a.exec(`CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); RETURN NULL; END'`)
	a.exec("CREATE CONSTRAINT TRIGGER die AFTER INSERT ON object_state DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()")
	_, err := tryPut(t.Context(), s, s.publish, store(t.Context(), 1, serial, "second"))
	if !errors.As(err, new(*zeolite.StorageError)) || errors.Is(err, zeolite.ErrInDoubt) {
		t.Errorf("Finish: %v, want an error that is certain", err)
	}
	a.exec("DROP TRIGGER die ON object_state")
	if last := s.LastTID(); last != serial {
		t.Errorf("LastTID is %v, want %v", last, serial)
	}
	put(t, s.Storage, store(t.Context(), 1, serial, "again"))
}

// The database cannot be asked what became of a commit: that is what Finish
// says. When it can be reached again, the transaction is published.
func TestCommitInDoubt(t *testing.T) {
	direct := pgtest.Database(t)
	p, dsn := newProxy(t, direct)
	s := watch(t, storage(t, Options{DSN: dsn, DoubtTimeout: 50 * time.Millisecond}))
	serial := put(t, s.Storage, store(t.Context(), 1, 0, "first"))
	published := s.count()
	p.cutAt(answerToCommit, true)
	_, err := tryPut(t.Context(), s, func(tid zeolite.TID, oids []zeolite.OID, visible func()) {
		t.Errorf("%v was published as if its outcome were known", tid)
		visible()
	}, store(t.Context(), 1, serial, "second"))
	if !errors.Is(err, zeolite.ErrInDoubt) {
		t.Fatalf("Finish: %v, want ErrInDoubt", err)
	}
	if last := s.LastTID(); last != serial {
		t.Errorf("LastTID is %v, want %v", last, serial)
	}
	p.setDown(false)
	eventually(t, "the transaction is published", func() bool { return s.count() == published+1 })
	rev, err := s.LoadBefore(t.Context(), 1, zeolite.MaxTID)
	if err != nil || rev.TID != s.LastTID() || rev.TID == serial {
		t.Errorf("loaded %v, %v; LastTID is %v", rev.TID, err, s.LastTID())
	}
}

// A server that goes without a word in the middle of a commit leaves nothing,
// and holds up nobody.
func TestServerDiesInCommit(t *testing.T) {
	direct := pgtest.Database(t)
	p, dsn := newProxy(t, direct)
	dying, living, a := storage(t, Options{DSN: dsn}), storage(t, Options{DSN: direct}), newAdmin(t, direct)
	serial := put(t, living, store(t.Context(), 1, 0, "first"))
	if err := dying.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	tx, err := dying.Begin(t.Context(), zeolite.TxnMeta{})
	if err != nil {
		t.Fatal(err)
	}
	if err := store(t.Context(), 1, serial, "dying")(tx); err != nil {
		t.Fatal(err)
	}
	if err := tx.Vote(t.Context()); err != nil {
		t.Fatal(err)
	}
	// It has its TID and the lock of all commits.
	c, err := tx.(*txn).renumber(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.setDown(true)
	second := put(t, living, store(t.Context(), 1, serial, "second"))
	if second < c.tid {
		t.Errorf("tid %v, the dying server had %v", second, c.tid)
	}
	if n := a.number("SELECT count(*) FROM transaction WHERE tid > 0"); n != 2 {
		t.Errorf("%d transactions, want 2", n)
	}
	tx.Abort()
}
