package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/tests/peers"
)

// A cutPoint is a place in what passes over a connection: so many bytes of one
// frame, counted in one direction, have passed, and nothing more will. Offset 0
// is the boundary before the frame, an offset of its length the one behind it.
type cutPoint struct {
	in     bool // from the server
	frame  int
	offset int
}

func (p cutPoint) String() string {
	dir := "out"
	if p.in {
		dir = "in"
	}
	return fmt.Sprintf("frame %d %s, byte %d", p.frame, dir, p.offset)
}

// breaker makes connections that take down which frames pass, and of which one
// breaks at a cutPoint. It is safe for concurrent use.
type breaker struct {
	mu    sync.Mutex
	at    *cutPoint // nil: none, or it has been
	sizes [2][]int  // of the frames since watch, out and in
}

// watch forgets the frames that have passed, and breaks the connection at a
// point among those to come, if there is one.
func (b *breaker) watch(at *cutPoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at, b.sizes = at, [2][]int{}
}

// seen returns the sizes of the frames that have passed out and in.
func (b *breaker) seen() (sizes [2][]int, cut bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sizes, b.at == nil
}

func (b *breaker) dial(ctx context.Context, network, address string) (net.Conn, error) {
	nc, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &breakingConn{Conn: nc, b: b}, nil
}

// breakingConn is a connection that may break in the middle of a message.
type breakingConn struct {
	net.Conn
	b      *breaker
	dirs   [2]passing // out and in; guarded by b.mu
	broken bool       // guarded by b.mu
}

// passing is the frame that is passing in one direction, if there is one.
type passing struct {
	some   bool
	number int    // among the frames since watch
	head   []byte // its length, as far as it has passed
	size   int    // with the length; 0 if not known yet
	done   int    // bytes that have passed
}

// pass takes down that bytes are about to pass, and returns how many may.
func (c *breakingConn) pass(dir int, p []byte) int {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	d := &c.dirs[dir]
	for i := range p {
		if !d.some {
			*d = passing{some: true, number: len(c.b.sizes[dir])}
		}
		if c.breaks(dir) {
			return i
		}
		d.done++
		if len(d.head) < 4 {
			if d.head = append(d.head, p[i]); len(d.head) == 4 {
				d.size = 4 + int(binary.BigEndian.Uint32(d.head))
			}
		}
		if d.done == d.size {
			c.b.sizes[dir] = append(c.b.sizes[dir], d.size)
			c.breaks(dir)
			d.some = false
		}
	}
	return len(p)
}

// breaks tells whether nothing more may pass.
func (c *breakingConn) breaks(dir int) bool {
	d := &c.dirs[dir]
	if at := c.b.at; at != nil && at.in == (dir == 1) && at.frame == d.number && at.offset == d.done {
		c.b.at, c.broken = nil, true
	}
	return c.broken
}

// end ends a connection that is broken: what was sent arrives, and then the
// end; what was not received never will be.
func (c *breakingConn) end() {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if c.broken {
		_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

func (c *breakingConn) Write(p []byte) (int, error) {
	n := c.pass(0, p)
	k, err := c.Conn.Write(p[:n])
	c.end()
	if err == nil && k < len(p) {
		err = net.ErrClosed
	}
	return k, err
}

func (c *breakingConn) Read(p []byte) (int, error) {
	k, err := c.Conn.Read(p)
	n := c.pass(1, p[:k])
	c.end()
	if n < k {
		err = nil // the next one fails
	}
	return n, err
}

// cutPoints are all boundaries of messages, and bytes within them: all of
// those that say something, if ZEOLITE_TEST_LONG is set, else a few.
func cutPoints(sizes [2][]int) (points []cutPoint) {
	for dir, frames := range sizes {
		for frame, size := range frames {
			edge, step := 6, size/2
			if peers.Long() {
				edge, step = 1000, 509
			}
			for offset := 0; offset <= size; offset++ {
				if offset < edge && (peers.Long() || offset != 2 && offset != 3) || offset >= size-1 || offset%step == 0 {
					points = append(points, cutPoint{dir == 1, frame, offset})
				}
			}
		}
	}
	return points
}

// TestCutAtAnyByte breaks the connection at every boundary of messages of a
// transaction with a blob, and of loading it, in both directions, and within
// them. The caller gets an error of the right type, and can tell what happened;
// nothing is left, lost or doubled; and the next call works.
func TestCutAtAnyByte(t *testing.T) {
	for _, enc := range encodings {
		t.Run(enc.String(), func(t *testing.T) {
			noLeaks(t)
			dir := t.TempDir()
			back := memory.New(memory.Options{BlobDir: dir})
			t.Cleanup(func() { back.Close() })
			srv := serve(t, back, server.Options{Encoding: enc}, "tcp")
			c := &byteCutter{back: back, opt: testOptions(t, srv.addr)}
			c.run(t)
			until(t, "the server has no more blobs than were committed", func() bool {
				return countFiles(t, dir) == int(c.oid-1)/2
			})
		})
	}
}

// The same over Python's server.
func TestCutAtAnyBytePython(t *testing.T) {
	eachEncoding(t, 1, func(t *testing.T, srv *pythonServer) {
		c := &byteCutter{opt: srv.options(t)}
		c.run(t)
	})
}

// byteCutter commits and downloads through connections that break.
type byteCutter struct {
	breaker breaker
	opt     Options
	s       *Storage
	back    zeolite.Storage // the server's, if it is in this process
	blob    []byte

	oid zeolite.OID // the next new one
	tid zeolite.TID // of the last commit
	// How often Finish was in doubt, and was committed all the same.
	doubts, committed int
}

// run breaks connections at all the places that cutPoints chooses.
func (c *byteCutter) run(t *testing.T) {
	c.opt.Dial = c.breaker.dial
	c.opt.Heartbeat = -1 // no other messages
	c.opt.BlobDir = filepath.Join(t.TempDir(), "cache")
	c.blob, c.oid = randomBytes(100_000), 1
	c.s = open(t, c.opt)

	sizes := c.commit(t, nil)
	points := cutPoints(sizes)
	for _, p := range points {
		c.commit(t, &p)
	}
	t.Logf("a commit of %d messages out, %d in, cut at %d places: %d in doubt, of which %d committed",
		len(sizes[0]), len(sizes[1]), len(points), c.doubts, c.committed)
	if c.doubts == 0 || c.committed == 0 || c.committed == c.doubts {
		t.Error("doubts should have gone both ways")
	}

	sizes = c.download(t, nil)
	points = cutPoints(sizes)
	for _, p := range points {
		c.download(t, &p)
	}
	t.Logf("a download of %d messages out, %d in, cut at %d places", len(sizes[0]), len(sizes[1]), len(points))
}

// commit commits an object, and another one with a blob, while the connection
// breaks. It returns which frames passed.
func (c *byteCutter) commit(t *testing.T, at *cutPoint) (sizes [2][]int) {
	t.Helper()
	text := fmt.Sprintf("cut at %v", at)
	c.breaker.watch(at)
	tid, err := commitBoth(t, c.s, c.oid, text, c.blob)
	sizes, cut := c.breaker.seen()
	if !cut {
		t.Fatalf("%s: it did not come to that", text)
	}
	switch {
	case errors.Is(err, zeolite.ErrInDoubt):
		c.doubts++
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		tid, err = c.s.Outcome(ctx, err)
		cancel()
		must(t, err)
		if tid != 0 {
			c.committed++
		}
	case err != nil && !SafeToRepeat(err):
		t.Fatalf("%s: got error %v, want one that says whether to repeat", text, err)
	}
	noTemporaryFiles(t, c.opt.BlobDir)
	if tid == 0 {
		for _, oid := range []zeolite.OID{c.oid, c.oid + 1} {
			if rev, err := c.s.LoadBefore(t.Context(), oid, zeolite.MaxTID); !isAbsent(err) {
				t.Fatalf("%s: not committed, but %v is there: %v, %v", text, oid, rev.TID, err)
			}
		}
		tid, err = commitBoth(t, c.s, c.oid, text, c.blob)
		must(t, err)
	}
	// Both objects are there, once, for the client and at the server.
	for _, s := range []zeolite.Storage{c.s, c.back} {
		if s == nil {
			continue
		}
		for _, oid := range []zeolite.OID{c.oid, c.oid + 1} {
			h, err := s.History(t.Context(), oid, 10)
			if err != nil || len(h) != 1 || h[0].TID != tid || string(h[0].Description) != text {
				t.Fatalf("%s: history of %v: %v, %v; want one revision %v", text, oid, h, err, tid)
			}
		}
		wantBlob(t, s.(zeolite.BlobStorage), c.oid+1, tid, c.blob)
	}
	if last := c.s.LastTID(); last < tid {
		t.Errorf("%s: LastTID is %v, committed was %v", text, last, tid)
	}
	c.oid, c.tid = c.oid+2, tid
	return sizes
}

// download loads the blob of the last commit by a new client, whose connection
// breaks at any time from connecting on. It returns which frames passed.
func (c *byteCutter) download(t *testing.T, at *cutPoint) (sizes [2][]int) {
	t.Helper()
	c.breaker.watch(at)
	o := c.opt
	o.BlobDir = filepath.Join(t.TempDir(), "other")
	other, err := Open(t.Context(), o)
	must(t, err)
	wantBlob(t, other, c.oid-1, c.tid, c.blob)
	noTemporaryFiles(t, o.BlobDir)
	must(t, other.Close())
	sizes, cut := c.breaker.seen()
	if !cut {
		t.Fatalf("download cut at %v: it did not come to that", at)
	}
	must(t, os.RemoveAll(o.BlobDir))
	return sizes
}

// countFiles counts the files below a directory.
func countFiles(t *testing.T, dir string) (n int) {
	must(t, filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
		}
		if os.IsNotExist(err) {
			err = nil // removed meanwhile
		}
		return err
	}))
	return n
}

// commitBoth commits an object and one with a blob.
func commitBoth(t *testing.T, s *Storage, oid zeolite.OID, text string, blob []byte) (zeolite.TID, error) {
	t.Helper()
	ctx := t.Context()
	up, err := s.CreateBlob(ctx)
	must(t, err)
	defer up.Discard()
	_, err = bytes.NewReader(blob).WriteTo(up)
	must(t, err)
	must(t, up.Complete())
	tx, err := s.Begin(ctx, zeolite.TxnMeta{Description: []byte(text)})
	must(t, err)
	defer tx.Abort()
	must(t, tx.Store(ctx, oid, 0, []byte(text)))
	must(t, tx.StoreBlob(ctx, oid+1, 0, []byte("record of "+text), up))
	if err := tx.Vote(ctx); err != nil {
		return 0, err
	}
	return tx.Finish(ctx, nil)
}
