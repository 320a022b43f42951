package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
)

const maxTID = 1<<63 - 1

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }

// Pings measures calls that do nothing.
func Pings(o Options) (*Result, error) {
	o.setDefaults()
	workers := make([]worker, o.Conns)
	for i := range workers {
		workers[i] = func(c *Conn, m *meter) error {
			requests := make([]request, o.Depth)
			for slot := range requests {
				requests[slot].frame = appendCall(nil, c.enc, slot+1, false, "ping")
			}
			return pipeline(c, m, 0, requests, func(r message) (int, int64, error) {
				result, _, err := c.enc.next(r.args)
				if err == nil && result.kind != null {
					err = errors.New("ping answers something")
				}
				return int(r.id) - 1, 0, err
			})
		}
	}
	return o.run(workers)
}

// Loads measures loads of current revisions, of objects that Prepare has made.
func Loads(o Options) (*Result, error) {
	o.setDefaults()
	serials, err := Prepare(o)
	if err != nil {
		return nil, err
	}
	workers := make([]worker, o.Conns)
	for i := range workers {
		workers[i] = loader(o, serials, i)
	}
	return o.run(workers)
}

// loader returns the work of connection i: each of its slots walks over objects
// of its own, so the oid in the id of a reply says which slot it is for.
func loader(o Options, serials []uint64, i int) worker {
	return func(c *Conn, m *meter) error {
		l := &loading{enc: c.enc, size: int(o.Size), first: o.FirstOID, serials: serials, depth: o.Depth}
		each := len(serials) / o.Depth
		var requests []request
		for slot := range o.Depth {
			// Connections start at different objects.
			at := i * each / o.Conns
			l.next = append(l.next, at)
			l.calls = append(l.calls, newLoadCall(c.enc, l.oid(slot, at)))
			requests = append(requests, request{frame: l.calls[slot].frame})
		}
		return pipeline(c, m, o.Pace, requests, l.reply)
	}
}

// loading is the state of one connection that loads.
type loading struct {
	enc     encoding
	size    int
	first   uint64   // oid of the first object
	serials []uint64 // by oid - first; zero if it may have changed
	depth   int
	next    []int // which of its objects a slot is loading
	calls   []loadCall
}

// oid returns the n-th object of a slot.
func (l *loading) oid(slot, n int) uint64 { return l.first + uint64(n*l.depth+slot) }

// reply checks the answer to a load, and makes the call of its slot one
// for the next object.
func (l *loading) reply(m message) (slot int, size int64, err error) {
	oid := m.pair[0]
	index := int(oid - l.first)
	if oid < l.first || index >= len(l.serials) {
		return 0, 0, fmt.Errorf("a reply for object %d", oid)
	}
	slot = index % l.depth
	if l.oid(slot, l.next[slot]) != oid {
		return 0, 0, fmt.Errorf("an unexpected reply for object %d", oid)
	}
	if err := checkLoad(l.enc, m.args, l.size, oid, l.serials[index]); err != nil {
		return 0, 0, err
	}
	if l.next[slot]++; l.oid(slot, l.next[slot])-l.first >= uint64(len(l.serials)) {
		l.next[slot] = 0
	}
	l.calls[slot].set(l.oid(slot, l.next[slot]))
	return slot, int64(l.size), nil
}

// A loadCall is the prepared request for the current revision of an object.
type loadCall struct {
	frame []byte
	at    [2]int // where the oid is: in the id, and in the arguments
}

func newLoadCall(e encoding, oid uint64) loadCall {
	const marker = 0x0123456789abcdef
	l := loadCall{frame: appendCall(nil, e, pair{marker, maxTID}, false, "loadBefore", uint64(marker), uint64(maxTID))}
	mark := binary.BigEndian.AppendUint64(nil, marker)
	l.at = [2]int{bytes.Index(l.frame, mark), bytes.LastIndex(l.frame, mark)}
	l.set(oid)
	return l
}

// set changes the object the call is for.
func (l loadCall) set(oid uint64) {
	for _, at := range l.at {
		binary.BigEndian.PutUint64(l.frame[at:], oid)
	}
}

// checkLoad checks the result of a load of a current revision: the whole
// record, its serial unless that is given as zero, and that nothing is newer.
func checkLoad(e encoding, result []byte, size int, oid, serial uint64) error {
	data, result, err := e.next(result)
	if err != nil {
		return err
	}
	start, result, err := e.next(result)
	if err != nil {
		return err
	}
	newer, _, err := e.next(result)
	if err != nil {
		return err
	}
	tid, ok := start.name()
	if data.kind != bytesKind || !ok || newer.kind != null {
		return fmt.Errorf("the answer to a load of object %d is not a current revision", oid)
	}
	if serial != 0 && tid != serial {
		return fmt.Errorf("object %d has the serial %x, not %x", oid, tid, serial)
	}
	_, err = checkRecord(data.b, size, oid)
	return err
}

// A request is a prepared call, and when it was sent last.
type request struct {
	frame []byte
	sent  time.Time
}

// pipeline keeps all requests under way until the window is over: each is sent
// again when its reply is there, or after a pace. reply says whose it is.
func pipeline(c *Conn, m *meter, pace time.Duration, requests []request, reply func(message) (slot int, size int64, err error)) error {
	b := beat{pace: pace}
	fresh := make([]int, 0, len(requests)) // slots to be sent with the next flush
	for slot := range requests {
		c.out = append(c.out, requests[slot].frame...)
		fresh = append(fresh, slot)
	}
	for {
		if !c.buffered() {
			b.wait()
			now := time.Now()
			for _, slot := range fresh {
				requests[slot].sent = now
			}
			fresh = fresh[:0]
			if err := c.flush(); err != nil {
				return err
			}
		}
		r, err := c.reply()
		if err != nil {
			return err
		}
		slot, size, err := reply(r)
		if err != nil {
			return err
		}
		if slot < 0 || slot >= len(requests) {
			return fmt.Errorf("a reply to a call %d that was not made", slot)
		}
		m.done(requests[slot].sent, c.now, size)
		if m.window.over(c.now) {
			return nil
		}
		c.out = append(c.out, requests[slot].frame...)
		fresh = append(fresh, slot)
	}
}

// LoadFrames returns the sizes of the frames of a load of a record of size
// bytes and of its reply, in msgpack.
func LoadFrames(size int) (request, reply int) {
	result := msgpack{}.appendValue(nil, make([]byte, size))
	return len(newLoadCall(msgpack{}, 1).frame), 4 + 1 + 21 + 1 + 7 + 1 + len(result) + 10 + 1
}
