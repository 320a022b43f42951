package client

import (
	"slices"
	"sync"

	"github.com/zeolite-go/zeolite"
)

// cache keeps revisions by object and by the range of tids in which they were
// current. What arrives from the server is put into it in the order of
// arrival: revisions that were loaded, and transactions, which end revisions.
// So at any time a revision without an end is current as of cache.tid, and
// whoever asks for a moment up to that gets the right one. It is safe for
// concurrent use.
type cache struct {
	mu    sync.Mutex
	tid   zeolite.TID // the last transaction that was applied
	limit int64       // of size, in bytes
	size  int64
	// newest and oldest end the list of all entries by last use.
	newest, oldest *entry
	objects        map[zeolite.OID][]*entry // by tid
	journal        *journal                 // nil if the cache is in memory only
}

// entry is a cached revision. Its data never changes; the rest is guarded by
// the cache.
type entry struct {
	oid          zeolite.OID
	tid, end     zeolite.TID // end 0: current
	data         []byte
	newer, older *entry
}

// entryOverhead is what an entry costs beside its data, about.
const entryOverhead = 128

func (e *entry) cost() int64 { return int64(len(e.data)) + entryOverhead }

func newCache(limit int64) *cache {
	return &cache{limit: limit, objects: map[zeolite.OID][]*entry{}}
}

// get returns the revision that was current just before a tid, which must not
// be later than the one after cache.tid. The data must not be changed.
func (c *cache) get(oid zeolite.OID, before zeolite.TID) (zeolite.Revision, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range slices.Backward(c.objects[oid]) {
		if e.tid >= before {
			continue
		}
		if e.end != 0 && e.end < before {
			break
		}
		c.used(e)
		return zeolite.Revision{Data: e.data, TID: e.tid, End: e.end}, true
	}
	return zeolite.Revision{}, false
}

// insertLocked adds a revision that the server just sent. The cache keeps data.
func (c *cache) insertLocked(oid zeolite.OID, rev zeolite.Revision) {
	e := &entry{oid: oid, tid: rev.TID, end: rev.End, data: rev.Data}
	// One record that pushes everything else out is not worth it.
	if e.cost() > c.limit/2 {
		return
	}
	list := c.objects[oid]
	i, found := slices.BinarySearchFunc(list, rev.TID, func(e *entry, tid zeolite.TID) int {
		switch {
		case e.tid < tid:
			return -1
		case e.tid > tid:
			return 1
		}
		return 0
	})
	if found {
		old := list[i]
		if old.end == 0 && rev.End != 0 {
			// The server does not tell of deletions in its invalidations.
			c.removeLocked(old)
			c.insertLocked(oid, rev)
		}
		return
	}
	if i > 0 && list[i-1].end == 0 {
		// Its end was never told: it is not known.
		c.removeLocked(list[i-1])
		list = c.objects[oid]
		i--
	}
	if rev.End == 0 && i < len(list) {
		return // a newer one is known
	}
	c.objects[oid] = slices.Insert(list, i, e)
	c.size += e.cost()
	c.pushLocked(e)
	if c.journal != nil {
		c.journal.insert(e)
	}
	for c.size > c.limit {
		c.removeLocked(c.oldest)
	}
}

// applyLocked ends the current revisions of objects that a transaction changed.
func (c *cache) applyLocked(tid zeolite.TID, oids []zeolite.OID) {
	for _, oid := range oids {
		if e := c.currentLocked(oid); e != nil && e.tid < tid {
			if tid > c.tid {
				e.end = tid
			} else {
				c.removeLocked(e) // out of order: no telling
			}
		}
	}
	c.tid = max(c.tid, tid)
	if c.journal != nil {
		c.journal.apply(tid, oids)
	}
}

// forgetLocked removes the current revisions of objects that changed at an
// unknown moment up to tid.
func (c *cache) forgetLocked(tid zeolite.TID, oids []zeolite.OID) {
	for _, oid := range oids {
		if e := c.currentLocked(oid); e != nil {
			c.removeLocked(e)
		}
	}
	c.tid = max(c.tid, tid)
	if c.journal != nil {
		c.journal.forget(tid, oids)
	}
}

// clearLocked empties the cache, which is as of tid then.
func (c *cache) clearLocked(tid zeolite.TID) {
	clear(c.objects)
	c.newest, c.oldest, c.size = nil, nil, 0
	c.tid = max(c.tid, tid)
	if c.journal != nil {
		c.journal.clear(tid)
	}
}

func (c *cache) currentLocked(oid zeolite.OID) *entry {
	if list := c.objects[oid]; len(list) > 0 && list[len(list)-1].end == 0 {
		return list[len(list)-1]
	}
	return nil
}

func (c *cache) removeLocked(e *entry) {
	list := c.objects[e.oid]
	if i := slices.Index(list, e); len(list) > 1 {
		c.objects[e.oid] = slices.Delete(list, i, i+1)
	} else {
		delete(c.objects, e.oid)
	}
	c.unlinkLocked(e)
	c.size -= e.cost()
}

func (c *cache) used(e *entry) {
	if c.newest != e {
		c.unlinkLocked(e)
		c.pushLocked(e)
	}
}

func (c *cache) pushLocked(e *entry) {
	e.older, e.newer = c.newest, nil
	if c.newest != nil {
		c.newest.newer = e
	} else {
		c.oldest = e
	}
	c.newest = e
}

func (c *cache) unlinkLocked(e *entry) {
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		c.newest = e.older
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		c.oldest = e.newer
	}
}

// entriesLocked returns all entries, least recently used first.
func (c *cache) entriesLocked() []*entry {
	var all []*entry
	for e := c.oldest; e != nil; e = e.newer {
		all = append(all, e)
	}
	return all
}
