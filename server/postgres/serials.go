package postgres

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/zeolite-go/zeolite"
)

// maxSerials is how many serials are remembered.
const maxSerials = 200_000

// serials remembers which revisions are current as of the horizon, and, as far
// as there is room, their data. So a store need not ask the database (whether
// they are current still is asked by Vote, under locks), and neither need a load
// of what somebody has loaded before. It is safe for concurrent use.
//
// The horizon moves under mu, together with what it ends: at any time, all that
// is known here is current as of the horizon of that time.
//
// There are two generations: what is used moves to the young one, and when that
// is full the old one is dropped in its place.
type serials struct {
	mu         sync.Mutex
	young, old map[zeolite.OID]known
	size       int64 // of data in young
	limit      int64 // of data in both

	hits, misses atomic.Int64 // of loads, as their callers count them
}

// known is the serial of an object, zero if it has no revision yet.
type known struct {
	tid  zeolite.TID
	live bool   // the object is known not to be gone
	data []byte // if known; nobody changes it
}

// set is called with mu held.
func (k *serials) set(oid zeolite.OID, what known) {
	if k.young == nil || len(k.young) >= maxSerials/2 || k.size > k.limit/2 {
		k.young, k.old, k.size = map[zeolite.OID]known{}, k.young, 0
	}
	if int64(len(what.data)) > k.limit/8 {
		what.data = nil
	}
	k.size += int64(len(what.data)) - int64(len(k.young[oid].data))
	k.young[oid] = what
	delete(k.old, oid)
}

// look is called with mu held.
func (k *serials) look(oid zeolite.OID) (known, bool) {
	if what, ok := k.young[oid]; ok {
		return what, true
	}
	what, ok := k.old[oid]
	if ok {
		k.set(oid, what)
	}
	return what, ok
}

// get returns what is known of an object.
func (k *serials) get(oid zeolite.OID) (known, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.look(oid)
}

// load returns the current revision of an object, if it is known and was written
// before a TID. The data is not the caller's to change.
func (k *serials) load(oid zeolite.OID, before zeolite.TID) (rev zeolite.Revision, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	what, ok := k.look(oid)
	if !ok || what.data == nil || what.tid >= before {
		return zeolite.Revision{}, false
	}
	return zeolite.Revision{Data: what.data, TID: what.tid}, true
}

// loaded takes note of a revision that is current as of a horizon, unless that
// has moved since.
func (k *serials) loaded(oid zeolite.OID, rev zeolite.Revision, horizon zeolite.TID, p *publisher) {
	data := bytes.Clone(rev.Data)
	k.mu.Lock()
	defer k.mu.Unlock()
	if p.horizon() == horizon {
		k.set(oid, known{rev.TID, true, data})
	}
}

// fresh takes note of oids that were just made.
func (k *serials) fresh(oids []zeolite.OID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, oid := range oids {
		k.set(oid, known{})
	}
}

// published takes note of a transaction while show moves the horizon to it.
func (k *serials) published(tid zeolite.TID, oids []zeolite.OID, show func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	show()
	for _, oid := range oids {
		k.set(oid, known{tid: tid})
	}
}

// forget forgets everything: a pack has removed objects.
func (k *serials) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.young, k.old, k.size = nil, nil, 0
}
