package load

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"time"
)

// Slow says what slow readers do.
type Slow struct {
	Readers int
	// Rate is how many bytes a second each of them reads.
	Rate int64
	// Loads is how many loads each of them asks for, at once.
	Loads int
	// BlobSize, if it is not zero, lets them download a blob of that size
	// instead.
	BlobSize int64
}

// smallBuffer is the receive buffer of a slow reader: what the kernel keeps is
// no matter of the server's.
const smallBuffer = 64 << 10

// SlowReaders lets clients read slowly. What counts as an operation is what one
// of them reads at once.
func SlowReaders(o Options, s Slow) (*Result, error) {
	o.setDefaults()
	serials, err := Prepare(o)
	if err != nil {
		return nil, err
	}
	var blob []uint64
	b := o
	if s.BlobSize > 0 {
		b.FirstOID, b.Size = o.FirstOID+uint64(o.Objects), s.BlobSize
		if blob, err = prepareBlobs(b, 1); err != nil {
			return nil, err
		}
	}
	var work []worker
	for range s.Readers {
		work = append(work, func(c *Conn, m *meter) error {
			if tcp, ok := c.net.(*net.TCPConn); ok {
				if err := tcp.SetReadBuffer(smallBuffer); err != nil {
					return err
				}
			}
			c.in = make([]byte, 0, 32<<10)
			slow := &slowConn{Conn: c, rate: s.Rate, start: time.Now()}
			if blob != nil {
				return slow.download(m, &download{enc: c.enc, oid: b.FirstOID, tid: blob[0], size: b.Size})
			}
			return slow.loads(o, m, s.Loads, serials)
		})
	}
	return o.run(work)
}

// loads asks for n loads and reads the answers slowly, until the window is
// over.
func (s *slowConn) loads(o Options, m *meter, n int, serials []uint64) error {
	requests := queuedLoads(s.enc, o, n)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		// The server may stop reading while it cannot write; at the end the
		// connection is closed under this.
		_, _ = s.net.Write(requests)
	})
	defer s.Close()
	for !m.window.over(time.Now()) {
		err := s.step(m, func(msg message) error {
			oid := msg.pair[0]
			if oid < o.FirstOID || oid-o.FirstOID >= uint64(len(serials)) {
				return errOtherRecord
			}
			return checkLoad(s.enc, msg.args, int(o.Size), oid, serials[oid-o.FirstOID])
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// download downloads a blob slowly, until the window is over.
func (s *slowConn) download(m *meter, d *download) error {
	if err := startDownload(s.Conn, d); err != nil {
		return err
	}
	for !m.window.over(time.Now()) {
		err := s.step(m, func(msg message) error {
			if !msg.oneWay {
				return startDownload(s.Conn, d)
			}
			return d.message(msg)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// A slowConn reads at a fixed rate: it allows so many bytes for the time since
// it began.
type slowConn struct {
	*Conn
	rate  int64 // bytes a second
	start time.Time
	read  int64
}

// step waits until the next bytes are due, reads them, and looks at the
// messages that are complete.
func (s *slowConn) step(m *meter, each func(message) error) error {
	due := s.start.Add(time.Duration(s.read) * time.Second / time.Duration(s.rate))
	time.Sleep(time.Until(due))
	start, before := time.Now(), len(s.in)-s.Conn.read
	if err := s.receive(); err != nil {
		return err
	}
	n := int64(len(s.in) - before)
	s.read += n
	m.done(start, s.now, n)
	for s.buffered() {
		payload, err := s.frame()
		if err != nil {
			return err
		}
		msg, err := parse(s.enc, payload)
		if err != nil {
			return err
		}
		if msg.failed {
			return msg.failure(s.enc)
		}
		if err := each(msg); err != nil {
			return err
		}
	}
	return nil
}

var errOtherRecord = errors.New("a slow reader got something it did not ask for")

// queuedLoads returns the bytes of n loads of objects one after the other.
func queuedLoads(e encoding, o Options, n int) []byte {
	var b bytes.Buffer
	call := newLoadCall(e, o.FirstOID)
	for i := range n {
		call.set(o.FirstOID + uint64(i%o.Objects))
		b.Write(call.frame)
	}
	return b.Bytes()
}
