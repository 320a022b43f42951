package load

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// blobRecordSize is the size of the records of objects with a blob.
const blobRecordSize = 128

// BlobPuts measures transactions with one new revision of a blob of Size bytes
// each; every connection has a blob of its own.
func BlobPuts(o Options) (*Result, error) {
	o.setDefaults()
	workers := make([]worker, o.Conns)
	for i := range workers {
		oid := o.FirstOID + uint64(i)
		workers[i] = func(c *Conn, m *meter) error {
			p := &putter{options: o, oid: oid}
			var err error
			if p.serial, _, err = c.look(blobRecordSize, oid); err != nil {
				return err
			}
			return o.repeat(m, func() error { return p.put(c, m) })
		}
	}
	return o.run(workers)
}

// A putter is the state of one connection that uploads.
type putter struct {
	options     Options
	oid, serial uint64
	version     uint64
	record      []byte
}

// put commits one revision.
func (p *putter) put(c *Conn, m *meter) error {
	start := time.Now()
	t, err := c.begin()
	if err != nil {
		return err
	}
	if err := c.send(0, true, "storeBlobStart"); err != nil {
		return err
	}
	for sent := int64(0); sent < p.options.Size; {
		n := int(min(int64(p.options.Piece), p.options.Size-sent))
		if err := c.send(0, true, "storeBlobChunk", BlobPiece(sent, n)); err != nil {
			return err
		}
		if sent += int64(n); m.window.includes(time.Now()) {
			m.bytes += int64(n)
		}
	}
	p.version++
	p.record = Record(p.record[:0], blobRecordSize, p.oid, p.version)
	if err := c.send(0, true, "storeBlobEnd", p.oid, p.serial, p.record, t.id); err != nil {
		return err
	}
	if ok, err := t.vote(); err != nil {
		return err
	} else if !ok {
		return errConflict
	}
	p.serial, err = t.finish()
	m.done(start, c.now, 0)
	return err
}

// prepareBlobs makes sure that the objects have blobs of Size bytes, and
// returns their serials.
func prepareBlobs(o Options, n int) ([]uint64, error) {
	c, err := Dial(o.Target)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.enlarge()
	m := &meter{window: &window{}}
	serials := make([]uint64, n)
	for i := range serials {
		p := &putter{options: o, oid: o.FirstOID + uint64(i)}
		var ok bool
		if p.serial, ok, err = c.look(blobRecordSize, p.oid); err != nil {
			return nil, err
		}
		if ok {
			d := &download{enc: c.enc, oid: p.oid, tid: p.serial, size: o.Size}
			ok = d.get(c, m) == nil // another size, most likely
		}
		if !ok {
			if err := p.put(c, m); err != nil {
				return nil, fmt.Errorf("preparing blobs: %w", err)
			}
		}
		serials[i] = p.serial
	}
	return serials, nil
}

// BlobGets measures downloads of blobs of Size bytes; every connection has a
// blob of its own.
func BlobGets(o Options) (*Result, error) {
	o.setDefaults()
	serials, err := prepareBlobs(o, o.Conns)
	if err != nil {
		return nil, err
	}
	workers := make([]worker, o.Conns)
	for i := range workers {
		oid := o.FirstOID + uint64(i)
		workers[i] = func(c *Conn, m *meter) error {
			return o.repeat(m, func() error {
				d := &download{enc: c.enc, oid: oid, tid: serials[i], size: o.Size}
				start := time.Now()
				if err := d.get(c, m); err != nil {
					return err
				}
				m.done(start, c.now, 0)
				return nil
			})
		}
	}
	return o.run(workers)
}

// A download is one blob on its way. It belongs to the goroutine of its
// connection.
type download struct {
	enc      encoding
	oid, tid uint64
	size     int64
	received int64
	state    byte // 0 before Start, 1 after it, 2 after Stop
}

// get fetches the blob and compares it with what was put.
func (d *download) get(c *Conn, m *meter) error {
	c.onBlob = d.counted(c, m)
	defer func() { c.onBlob = nil }()
	if _, err := c.Call("sendBlob", d.oid, d.tid); err != nil {
		return err
	}
	return d.complete()
}

// counted takes the messages of a download, and lets a meter count the bytes.
func (d *download) counted(c *Conn, m *meter) func(message) error {
	return func(msg message) error {
		before := d.received
		err := d.message(msg)
		if d.received > before && m.window.includes(c.now) {
			m.bytes += d.received - before
		}
		return err
	}
}

// complete tells why the download, which the server has answered, is not whole.
func (d *download) complete() error {
	if d.state != 2 || d.received != d.size {
		return fmt.Errorf("%d bytes of blob %d came, of %d", d.received, d.oid, d.size)
	}
	return nil
}

// message takes one of the messages the blob comes in.
func (d *download) message(m message) error {
	oid, rest, err := d.enc.next(m.args)
	if err != nil {
		return err
	}
	tid, rest, err := d.enc.next(rest)
	if err != nil {
		return err
	}
	if o, _ := oid.name(); o != d.oid {
		return fmt.Errorf("%s of another blob", m.method)
	}
	if t, _ := tid.name(); t != d.tid {
		return fmt.Errorf("%s of another revision", m.method)
	}
	switch string(m.method) {
	case "receiveBlobStart":
		d.state, d.received = 1, 0
		return nil
	case "receiveBlobStop":
		d.state = 2
		return nil
	}
	if m.piece != nil {
		return d.take(m.piece)
	}
	data, _, err := d.enc.next(rest)
	if err != nil {
		return err
	}
	return d.take(data.b)
}

// take compares the next bytes with those that were put.
func (d *download) take(b []byte) error {
	if d.state != 1 {
		return errors.New("a piece of a blob before its start, or after its stop")
	}
	for len(b) > 0 {
		n := min(len(b), maxPiece)
		if d.received+int64(n) > d.size || !bytes.Equal(b[:n], BlobPiece(d.received, n)) {
			return fmt.Errorf("blob %d differs from what was put, after byte %d", d.oid, d.received)
		}
		b, d.received = b[n:], d.received+int64(n)
	}
	return nil
}
