package filestorage

import (
	"time"

	"github.com/zeolite-go/zeolite"
)

// VoteNow implements zeolite.QuickCommitter: disk space is allocated already, and
// the headers of the records that are current are in the operating system's
// cache of the file.
func (s *Storage) VoteNow(oids []zeolite.OID, size int) bool {
	g, err := s.acquire()
	if err != nil {
		return false
	}
	defer g.release()
	file, can := g.file.(nowReader)
	if !can || !s.space.hasRoom(int64(size+len(oids)*recHdrLen)+maxTexts) {
		return false
	}
	buf := guessPool.Get().(*[readGuess]byte)
	defer guessPool.Put(buf)
	for _, oid := range oids {
		pos, known := g.index.get(oid)
		if !known {
			continue
		}
		head := buf[:recHdrLen+backLen]
		if file.ReadNow(head, pos) < len(head) {
			return false
		}
		if parseRecHeader(head, pos).dataLen == 0 {
			return false // a reference to another record, which may be anywhere
		}
	}
	return true
}

// quickWrite is how long it may take to write a transaction if the next one is to
// be written by who has other things to do.
const quickWrite = time.Millisecond

// FinishNow implements zeolite.QuickCommitter: nobody else commits, the last
// transaction was written quickly, and blobs go into the log.
func (s *Storage) FinishNow(blobs map[zeolite.OID]zeolite.BlobUpload) bool {
	for _, b := range blobs {
		if u, ok := b.(*upload); !ok || !u.loose {
			return false
		}
	}
	took := s.committer.took.Load()
	return took > 0 && took <= int64(quickWrite) && len(s.committer.lock) == 0
}

// maxTexts is more than a transaction has besides its records: a header, and up
// to three texts of 64 KiB.
const maxTexts = 4 << 16

// hasRoom says whether reserve would find n bytes allocated, without waiting for
// somebody who allocates.
func (sp *space) hasRoom(n int64) bool {
	if !sp.mu.TryLock() {
		return false
	}
	defer sp.mu.Unlock()
	return sp.end+sp.reserved+n+guardLen <= sp.allocated
}
