package client

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"github.com/gofrs/flock"

	"github.com/zeolite-go/zeolite"
)

// journal is the file in which the object cache survives a restart. It holds,
// in order, what was done to the cache: so every beginning of it is the cache
// as it was at some time, which is all that is needed after a crash, whatever
// was lost of its end. When it has grown too long it is written anew, as what
// the cache holds then, to another file that takes its place.
//
// The file starts with a line that names the format, and the name of the
// storage. Then follow records: length of the body (u32), CRC-32C of the body
// (u32), body; all numbers are big-endian. The first byte of a body is its
// kind:
//
//	'd' oid tid end data    a revision; end is 0 if it is current
//	't' tid oid...          a transaction, which ended the revisions of oids
//	'f' tid oid...          the current revisions of oids are not known any
//	                        more; the cache is as of tid
//	'c' tid                 nothing is known; the cache is as of tid
//
// Methods whose name is that of a record are called under the cache's lock;
// the rest is done by one goroutine.
type journal struct {
	cache *cache
	path  string
	name  string // of the storage
	log   *slog.Logger
	lock  *flock.Flock
	file  *os.File
	size  int64
	done  chan struct{}

	mu      sync.Mutex
	more    sync.Cond
	pending []byte
	closing bool
}

const journalMagic = "zeolite object cache 1\n"

// pendingLimit bounds what waits for the disk. Beyond it revisions are not
// written, which costs another load some day; transactions always are.
const pendingLimit = 32 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openJournal fills the cache from a file, and keeps the file up from then on.
// A file that is damaged, or that belongs to another storage, counts as far as
// it is right. It fails if another process uses the file.
func (c *cache) openJournal(path, name string, log *slog.Logger) error {
	lock := newFlock(path + ".lock")
	switch ok, err := lock.TryLock(); {
	case err != nil:
		return fmt.Errorf("client: cache file: %w", err)
	case !ok:
		return fmt.Errorf("client: cache file %s is used by another process", path)
	}
	writePID(lock.Path())
	j := &journal{cache: c, path: path, name: name, log: log, lock: lock, done: make(chan struct{})}
	j.more.L = &j.mu
	if err := j.load(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("the rest of the cache file cannot be used", "file", path, "error", err)
	}
	c.mu.Lock()
	c.journal = j
	c.mu.Unlock()
	if err := j.rewrite(); err != nil {
		lock.Unlock()
		return fmt.Errorf("client: cache file: %w", err)
	}
	go j.run()
	return nil
}

// closeJournal writes what is left.
func (c *cache) closeJournal() error {
	c.mu.Lock()
	j := c.journal
	c.journal = nil
	c.mu.Unlock()
	if j == nil {
		return nil
	}
	j.mu.Lock()
	j.closing = true
	j.more.Signal()
	j.mu.Unlock()
	<-j.done
	return errors.Join(j.file.Close(), j.lock.Unlock())
}

func (j *journal) insert(e *entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.pending) < pendingLimit {
		j.pending = appendRevision(j.pending, revisionOf(e))
		j.more.Signal()
	}
}

func (j *journal) apply(tid zeolite.TID, oids []zeolite.OID)  { j.note('t', tid, oids) }
func (j *journal) forget(tid zeolite.TID, oids []zeolite.OID) { j.note('f', tid, oids) }
func (j *journal) clear(tid zeolite.TID)                      { j.note('c', tid, nil) }

func (j *journal) note(kind byte, tid zeolite.TID, oids []zeolite.OID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pending = appendNote(j.pending, kind, tid, oids)
	j.more.Signal()
}

// revision is an entry as it is written.
type revision struct {
	oid      zeolite.OID
	tid, end zeolite.TID
	data     []byte
}

func revisionOf(e *entry) revision { return revision{e.oid, e.tid, e.end, e.data} }

func appendRevision(b []byte, r revision) []byte {
	start := len(b)
	b = append(b, make([]byte, 8)...)
	b = append(b, 'd')
	b = binary.BigEndian.AppendUint64(b, uint64(r.oid))
	b = binary.BigEndian.AppendUint64(b, uint64(r.tid))
	b = binary.BigEndian.AppendUint64(b, uint64(r.end))
	b = append(b, r.data...)
	return seal(b, start)
}

func appendNote(b []byte, kind byte, tid zeolite.TID, oids []zeolite.OID) []byte {
	start := len(b)
	b = append(b, make([]byte, 8)...)
	b = append(b, kind)
	b = binary.BigEndian.AppendUint64(b, uint64(tid))
	for _, oid := range oids {
		b = binary.BigEndian.AppendUint64(b, uint64(oid))
	}
	return seal(b, start)
}

// seal fills in the length and the checksum of a record.
func seal(b []byte, start int) []byte {
	body := b[start+8:]
	binary.BigEndian.PutUint32(b[start:], uint32(len(body)))
	binary.BigEndian.PutUint32(b[start+4:], crc32.Checksum(body, castagnoli))
	return b
}

// header is what a file for this storage starts with.
func (j *journal) header() []byte {
	b := append([]byte(journalMagic), 0, 0)
	binary.BigEndian.PutUint16(b[len(journalMagic):], uint16(len(j.name)))
	return append(b, j.name...)
}

// load does to the cache what the file says.
func (j *journal) load() error {
	file, err := os.Open(j.path)
	if err != nil {
		return err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return err
	}
	r := bufio.NewReaderSize(file, 1<<20)
	want := j.header()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != string(want) {
		return errors.New("it is not a cache file, or that of another storage")
	}
	left := st.Size() - int64(len(want))
	j.cache.mu.Lock()
	defer j.cache.mu.Unlock()
	for left > 0 {
		body, err := readRecord(r, left)
		if err != nil {
			return err
		}
		left -= int64(len(body)) + 8
		if err := j.cache.replayLocked(body); err != nil {
			return err
		}
	}
	return nil
}

// readRecord reads a record of which at most left bytes can be there.
func readRecord(r io.Reader, left int64) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > left-8 {
		return nil, io.ErrUnexpectedEOF
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, errors.New("a checksum is wrong")
	}
	return body, nil
}

// replayLocked does to the cache what one record says.
func (c *cache) replayLocked(body []byte) error {
	bad := errors.New("a record is malformed")
	if len(body) < 9 {
		return bad
	}
	kind, body := body[0], body[1:]
	if kind == 'd' {
		if len(body) < 24 {
			return bad
		}
		c.insertLocked(zeolite.OID(binary.BigEndian.Uint64(body)), zeolite.Revision{
			TID:  zeolite.TID(binary.BigEndian.Uint64(body[8:])),
			End:  zeolite.TID(binary.BigEndian.Uint64(body[16:])),
			Data: body[24:],
		})
		return nil
	}
	tid := zeolite.TID(binary.BigEndian.Uint64(body))
	body = body[8:]
	if len(body)%8 != 0 {
		return bad
	}
	oids := make([]zeolite.OID, len(body)/8)
	for i := range oids {
		oids[i] = zeolite.OID(binary.BigEndian.Uint64(body[8*i:]))
	}
	switch kind {
	case 't':
		c.applyLocked(tid, oids)
	case 'f':
		c.forgetLocked(tid, oids)
	case 'c':
		c.clearLocked(tid)
	default:
		return bad
	}
	return nil
}

// run writes what comes, until the journal is closed or the disk fails.
func (j *journal) run() {
	defer close(j.done)
	var b []byte
	for {
		j.mu.Lock()
		for len(j.pending) == 0 && !j.closing {
			j.more.Wait()
		}
		b, j.pending = j.pending, b[:0]
		closing := j.closing
		j.mu.Unlock()
		_, err := j.file.Write(b)
		j.size += int64(len(b))
		if err == nil && j.size > 2*j.cache.limit+(1<<20) && !closing {
			err = j.rewrite()
		}
		if err != nil {
			j.log.Error("the object cache is not written any more", "file", j.path, "error", err)
			j.giveUp()
			return
		}
		if closing {
			return
		}
		if cap(b) > 1<<20 {
			b = nil
		}
	}
}

// giveUp leaves the file as it is: it is right as of some time.
func (j *journal) giveUp() {
	j.cache.mu.Lock()
	defer j.cache.mu.Unlock()
	if j.cache.journal == j {
		j.cache.journal = nil
		j.file.Close()
		j.lock.Unlock()
	}
}

// rewrite replaces the file by one that holds what the cache holds now.
func (j *journal) rewrite() error {
	c := j.cache
	c.mu.Lock()
	tid := c.tid
	entries := c.entriesLocked()
	revisions := make([]revision, len(entries))
	for i, e := range entries {
		revisions[i] = revisionOf(e)
	}
	// What waits to be written is in there already.
	j.mu.Lock()
	j.pending = nil
	j.mu.Unlock()
	c.mu.Unlock()

	tmp := j.path + ".new"
	file, err := os.Create(tmp)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(file, 1<<20)
	size := int64(0)
	put := func(b []byte) {
		if err == nil {
			_, err = w.Write(b)
			size += int64(len(b))
		}
	}
	put(j.header())
	put(appendNote(nil, 'c', tid, nil))
	var b []byte
	for _, r := range revisions {
		b = appendRevision(b[:0], r)
		put(b)
	}
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = os.Rename(tmp, j.path)
	}
	if err != nil {
		file.Close()
		os.Remove(tmp)
		return err
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.size = file, size
	return nil
}
