package postgres

import (
	"sync"

	"github.com/zeolite-go/zeolite"
)

// maxSerials is how many serials are remembered.
const maxSerials = 200_000

// serials remembers which revisions are current as of the horizon, so that a
// store need not ask the database: whether they are current still is asked by
// Vote, under locks. It is safe for concurrent use.
type serials struct {
	mu    sync.Mutex
	known map[zeolite.OID]known
}

// known is the serial of an object, zero if it has no revision yet.
type known struct {
	tid  zeolite.TID
	live bool // the object is known not to be gone
}

func (k *serials) set(oid zeolite.OID, what known) {
	if k.known == nil || len(k.known) >= maxSerials {
		k.known = map[zeolite.OID]known{} // those in use come back soon
	}
	k.known[oid] = what
}

// get returns what is known of an object.
func (k *serials) get(oid zeolite.OID) (known, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	what, ok := k.known[oid]
	return what, ok
}

// loaded takes note of a revision that is current as of a horizon, unless that
// has moved since.
func (k *serials) loaded(oid zeolite.OID, tid, horizon zeolite.TID, p *publisher) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p.horizon() == horizon {
		k.set(oid, known{tid, true})
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

// published takes note of a transaction that the horizon has just reached.
func (k *serials) published(tid zeolite.TID, oids []zeolite.OID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, oid := range oids {
		k.set(oid, known{tid: tid})
	}
}

// forget forgets everything: a pack has removed objects.
func (k *serials) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.known = nil
}
