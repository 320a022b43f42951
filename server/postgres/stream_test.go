package postgres

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// streaming opens a storage with one blob in it, and waits until no connection
// of the blobs' pool is left from writing it.
func streaming(t *testing.T, opts Options, size int) (s *Storage, a *admin, data []byte, tid zeolite.TID) {
	t.Helper()
	opts.DSN = pgtest.Database(t)
	if opts.StreamIdle == 0 {
		opts.StreamIdle = 50 * time.Millisecond
	}
	s = storage(t, opts)
	a = newAdmin(t, opts.DSN)
	data = noise(size)
	tid = putBlob(t, s, 1, data)
	s.streams.Reset()
	a.noStreams()
	return s, a, data, tid
}

func (a *admin) noStreams() {
	a.Helper()
	eventually(a, "the connections for blobs are closed", func() bool { return len(a.pids(appStreams)) == 0 })
}

// A stream has a connection only from its first byte on, one that serves
// nothing else.
func TestStreamIsLazyAndAlone(t *testing.T) {
	s, a, data, tid := streaming(t, Options{StreamIdle: time.Minute}, 9<<20)
	b := openBlob(t, s, 1, tid)
	defer b.Close()
	if pids := a.pids(appStreams); len(pids) != 0 {
		t.Errorf("an unread blob has connections: %v", pids)
	}
	if _, err := b.ReadAt(make([]byte, 1), 0); err != nil {
		t.Fatal(err)
	}
	pids := a.pids(appStreams)
	if len(pids) != 1 {
		t.Fatalf("a stream has %d connections", len(pids))
	}
	for _, app := range []string{appLoads, appCommits, appFollow} {
		for _, pid := range a.pids(app) {
			if pid == pids[0] {
				t.Errorf("the stream's connection is one for %q", app)
			}
		}
	}
	if got, err := readAll(b, 64<<10); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the blob differs: %v", err)
	}
}

// However a reader ends, its connection comes back, outside of a transaction.
func TestStreamsGiveConnectionsBack(t *testing.T) {
	s, a, data, tid := streaming(t, Options{StreamConns: 4, StreamPatience: 4 * time.Millisecond, SpoolLimit: 2 << 20, SpoolDir: t.TempDir()}, 2<<20+17)
	rounds := 1000
	if testing.Short() {
		rounds = 100
	}
	seeds := make(chan uint64, rounds)
	for i := range rounds {
		seeds <- uint64(i)
	}
	close(seeds)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for seed := range seeds {
				readSomehow(t, s, tid, data, rand.New(rand.NewPCG(seed, 1)))
			}
		})
	}
	wg.Wait()
	if n := s.streams.Stat().AcquiredConns(); n != 0 {
		eventually(t, "all connections are given back", func() bool { return s.streams.Stat().AcquiredConns() == 0 })
	}
	a.noStreams()
	if used := s.spools.used.Load(); used != 0 {
		t.Errorf("%d bytes of spool are still taken", used)
	}
}

// readSomehow reads the blob of object 1 as a client might.
func readSomehow(t *testing.T, s *Storage, tid zeolite.TID, data []byte, random *rand.Rand) {
	b, err := s.OpenBlob(t.Context(), 1, tid)
	if err != nil {
		t.Error(err)
		return
	}
	defer b.Close()
	switch random.IntN(6) {
	case 0: // vanish before the first byte
		return
	case 5: // one whose large object is not there any more
		missing := &blob{s: s, loid: 1, size: int64(len(data))}
		defer missing.Close()
		if n, err := missing.ReadAt(make([]byte, 100), int64(random.IntN(2)*500)); n != 0 || !errors.As(err, new(*zeolite.StorageError)) {
			t.Errorf("a missing large object: %d bytes, %v", n, err)
		}
		return
	case 1: // all of it
		if got, err := readAll(b, 64<<10); err != nil || !bytes.Equal(got, data) {
			t.Errorf("the whole blob differs: %v", err)
		}
		return
	case 2: // all but the last bytes, or nothing behind the first
		n := random.IntN(len(data)) + 1
		p := make([]byte, n)
		if _, err := b.ReadAt(p, 0); err != nil || !bytes.Equal(p, data[:n]) {
			t.Errorf("the first %d bytes differ: %v", n, err)
		}
		return
	case 3: // here and there
		for range random.IntN(6) {
			off := random.IntN(len(data))
			p := make([]byte, 1+random.IntN(len(data)-off))
			if _, err := b.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, data[off:off+len(p)]) {
				t.Errorf("%d bytes at %d differ: %v", len(p), off, err)
			}
		}
		return
	}
	// Slowly: longer than a stream waits.
	p := make([]byte, 100<<10)
	for off := 0; off < len(data); off += len(p) {
		p = p[:min(len(p), len(data)-off)]
		if _, err := b.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, data[off:off+len(p)]) {
			t.Errorf("%d bytes at %d differ: %v", len(p), off, err)
			return
		}
		if random.IntN(20) == 0 {
			eventually(t, "the stream gives up its connection", func() bool {
				st := b.(*blob).stream
				st.mu.Lock()
				defer st.mu.Unlock()
				return !st.running
			})
		}
	}
}

// Readers that stop in the middle keep neither connections nor transactions, and
// no more room than they may; later they go on.
func TestStalledReaders(t *testing.T) {
	const readers, limit = 20, 24 << 20
	dir := t.TempDir()
	s, a, data, tid := streaming(t, Options{StreamConns: 5, StreamPatience: 30 * time.Millisecond, SpoolLimit: limit, SpoolDir: dir}, 12<<20)
	blobs := make([]zeolite.Blob, readers)
	for i := range blobs {
		blobs[i] = openBlob(t, s, 1, tid)
		defer blobs[i].Close()
		if _, err := blobs[i].ReadAt(make([]byte, 1<<20), 0); err != nil {
			t.Fatal(err)
		}
	}
	a.noStreams()
	used := s.spools.used.Load()
	if used == 0 || used > limit {
		t.Errorf("%d bytes are spooled, the limit is %d", used, limit)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("the spool has files with names: %v, %v", files, err)
	}
	memory := 0
	for _, b := range blobs {
		st := b.(*blob).stream
		st.mu.Lock()
		memory += (len(st.pieces) + len(st.spare)) * streamPiece
		st.mu.Unlock()
	}
	if most := readers * 2 * (streamAhead + 1) * streamPiece; memory > most {
		t.Errorf("%d bytes are kept in memory, at most %d may be", memory, most)
	}
	// Others are served as ever.
	if _, err := s.LoadBefore(t.Context(), 1, zeolite.MaxTID); err != nil {
		t.Error(err)
	}
	put(t, s, store(t.Context(), 2, 0, "others go on"))
	for i, b := range blobs {
		rest := make([]byte, len(data)-1<<20)
		if _, err := b.ReadAt(rest, 1<<20); err != nil || !bytes.Equal(rest, data[1<<20:]) {
			t.Fatalf("the rest of blob %d differs: %v", i, err)
		}
	}
	if used := s.spools.used.Load(); used != 0 {
		t.Errorf("%d bytes are still spooled", used)
	}
}

// A reader that is slower than the database, but reads on, needs no spool.
func TestSteadyReader(t *testing.T) {
	const pieces = 20
	s, _, data, tid := streaming(t, Options{StreamPatience: time.Hour, SpoolDir: t.TempDir()}, pieces*streamPiece)
	b := openBlob(t, s, 1, tid)
	defer b.Close()
	p := make([]byte, streamPiece)
	for off := 0; off < len(data); off += len(p) {
		if _, err := b.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, data[off:off+len(p)]) {
			t.Fatalf("at %d: %v, or wrong bytes", off, err)
		}
		st := b.(*blob).stream
		eventually(t, "all is read ahead that may be", func() bool {
			st.mu.Lock()
			defer st.mu.Unlock()
			return len(st.pieces) == streamAhead || st.fetched == st.size
		})
		if used := s.spools.used.Load(); used != 0 {
			t.Fatalf("at %d: %d bytes are spooled", off, used)
		}
	}
}

// Without room for a spool, nothing changes but that more is read again.
func TestStreamWithoutSpool(t *testing.T) {
	s, a, data, tid := streaming(t, Options{StreamPatience: time.Millisecond, SpoolDir: "/nonexistent"}, 5<<20)
	b := openBlob(t, s, 1, tid)
	defer b.Close()
	if _, err := b.ReadAt(make([]byte, 100), 0); err != nil {
		t.Fatal(err)
	}
	a.noStreams()
	rest := make([]byte, len(data)-100)
	if _, err := b.ReadAt(rest, 100); err != nil || !bytes.Equal(rest, data[100:]) {
		t.Errorf("the rest differs: %v", err)
	}
}

// A stream survives the end of its connections.
func TestStreamsSurviveTerminate(t *testing.T) {
	s, a, data, tid := streaming(t, Options{}, 20<<20)
	b := openBlob(t, s, 1, tid)
	defer b.Close()
	p := make([]byte, 1<<20)
	killed := 0
	for off := 0; off < len(data); off += len(p) {
		if _, err := b.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, data[off:off+len(p)]) {
			t.Fatalf("at %d: %v, or wrong bytes", off, err)
		}
		killed += a.kill(appStreams)
	}
	if killed == 0 {
		t.Error("there was never a connection to end")
	}
	t.Logf("ended %d connections", killed)
}

// The same for uploads.
func TestUploadsSurviveTerminate(t *testing.T) {
	s, a, _, _ := streaming(t, Options{StreamIdle: time.Minute}, 1)
	data := noise(5<<20 + 3)
	up, err := s.CreateBlob(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	killed := 0
	for off := 0; off < len(data); off += 64 << 10 {
		if _, err := up.Write(data[off:min(off+64<<10, len(data))]); err != nil {
			t.Fatal(err)
		}
		killed += a.kill(appStreams)
	}
	if err := up.Complete(); err != nil {
		t.Fatal(err)
	}
	tid := put(t, s, func(tx zeolite.Txn) error { return tx.StoreBlob(t.Context(), 7, 0, []byte("record"), up) })
	b := openBlob(t, s, 7, tid)
	defer b.Close()
	if got, err := readAll(b, 1<<20); err != nil || !bytes.Equal(got, data) || killed == 0 {
		t.Errorf("the blob differs after %d connections ended: %v", killed, err)
	}
}

// What is discarded, or left by a server that died, is removed from the
// database.
func TestUploadsThatComeToNothing(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := storage(t, Options{DSN: dsn}), newAdmin(t, dsn)
	objects := func() int {
		t.Helper()
		return a.number("SELECT count(*) FROM pg_largeobject_metadata")
	}
	up := uploaded(t, s, noise(3<<20))
	if n := objects(); n != 1 {
		t.Errorf("an upload has %d large objects", n)
	}
	if err := up.Discard(); err != nil {
		t.Fatal(err)
	}
	if n := objects(); n != 0 {
		t.Errorf("a discarded upload leaves %d large objects", n)
	}
	kept := putBlob(t, s, 1, []byte("kept"))
	mine := uploaded(t, s, noise(10))

	dead := opened(t, Options{DSN: dsn})
	for i := range 3 {
		uploaded(t, dead, noise(i))
	}
	a.exec("UPDATE zeolite_upload SET started = started - interval '1 day'")
	living := opened(t, Options{DSN: dsn})
	defer living.Close()
	// living may have looked while dead lived, and then not found anything.
	if n := objects(); n != 5 {
		t.Fatalf("%d large objects, want 5", n)
	}
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the dead server's lock is gone", func() bool {
		if _, err := living.removeOrphans(t.Context(), a.conn); err != nil {
			t.Fatal(err)
		}
		return objects() == 2
	})
	put(t, s, func(tx zeolite.Txn) error { return tx.StoreBlob(t.Context(), 2, 0, []byte("record"), mine) })
	if n := a.number("SELECT count(*) FROM zeolite_upload"); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
	b := openBlob(t, s, 1, kept)
	defer b.Close()
	if got, err := readAll(b, 10); err != nil || string(got) != "kept" {
		t.Errorf("the blob that was committed: %q, %v", got, err)
	}
	// An upload that was taken for an orphan is refused, not lost silently.
	lost := uploaded(t, s, noise(10))
	a.exec("SELECT lo_unlink(loid) FROM zeolite_upload")
	a.exec("DELETE FROM zeolite_upload")
	if _, err := tryPut(t.Context(), s, nil, func(tx zeolite.Txn) error {
		return tx.StoreBlob(t.Context(), 3, 0, []byte("record"), lost)
	}); err == nil {
		t.Error("a blob that is gone was committed")
	}
}

// A crash of the database takes the last pieces that it had acknowledged. An
// upload that lacks some is refused: neither a hole nor a truncated blob is
// committed.
func TestUploadsTornByCrash(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := storage(t, Options{DSN: dsn}), newAdmin(t, dsn)
	// crash leaves what it would of the upload under way.
	crash := func(size int) {
		t.Helper()
		const mode = 0x60000 // to read and write
		a.exec("SELECT lo_truncate64(lo_open(loid, $1), $2) FROM zeolite_upload", mode, size)
	}
	data := noise(4*uploadPiece - 1)
	for _, missing := range []int{1, uploadPiece} {
		up, err := s.CreateBlob(t.Context())
		if err == nil {
			_, err = up.Write(data[:2*uploadPiece])
		}
		if err != nil {
			t.Fatal(err)
		}
		crash(2*uploadPiece - missing)
		if _, err = up.Write(data[2*uploadPiece:]); err == nil {
			err = up.Complete()
		}
		if !errors.Is(err, errUploadTorn) {
			t.Errorf("a piece behind %d missing bytes: %v", missing, err)
		}
		if err := up.Discard(); err != nil {
			t.Error(err)
		}
	}
	for _, missing := range []int{0, 1, uploadPiece, len(data)} {
		up := uploaded(t, s, data)
		crash(len(data) - missing)
		_, err := tryPut(t.Context(), s, nil, func(tx zeolite.Txn) error {
			return tx.StoreBlob(t.Context(), zeolite.OID(1+missing), 0, []byte("record"), up)
		})
		if want := missing > 0; errors.Is(err, errUploadTorn) != want || (err != nil) != want {
			t.Errorf("a blob with %d missing bytes was committed: %v", missing, err)
		}
		if err := up.Discard(); err != nil {
			t.Error(err)
		}
	}
}
