package load

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// A Target says which server to talk to, and how.
type Target struct {
	// Address is host:port, or the path of a Unix socket.
	Address string
	// TLS, if set, is how to encrypt.
	TLS *tls.Config
	// Encoding is M or Z; zero takes the one the server prefers.
	Encoding byte
	// Storage is the name of the storage, by default 1.
	Storage string
}

// dialTimeout and callTimeout end a run against a server that does not answer.
const (
	dialTimeout = 30 * time.Second
	callTimeout = 2 * time.Minute
)

// A Conn is one registered connection. One goroutine may use it at a time. It
// reads whole buffers and writes only when told to flush, so that a message
// costs no system call of its own.
type Conn struct {
	net net.Conn
	enc encoding

	in   []byte // received; in[read:] is not looked at yet
	read int
	out  []byte    // to be written by flush
	now  time.Time // when something was received last
	// arrivals, if set, tells when that had come to this machine: arrived.
	arrivals *arrivals
	arrived  time.Time
	nextID   int

	// told is the last tid the server has told: by register, an invalidation
	// or the end of an own commit. It must grow; disordered counts when not.
	told       uint64
	disordered uint64
	// onInvalidation, if set, is told of each invalidation.
	onInvalidation func(tid uint64, now time.Time)
	// onBlob, if set, gets the messages of downloads.
	onBlob func(m message) error
	head   [chunkHead]byte // of a chunk that comes in pieces
}

const startBuffer = 256 << 10

// Network returns what net.Dial calls the kind of address.
func Network(address string) string {
	if strings.Contains(address, "/") {
		return "unix"
	}
	return "tcp"
}

// Dial connects and registers.
func Dial(t Target) (*Conn, error) {
	c, err := t.connect()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Address, err)
	}
	return c, nil
}

func (t Target) connect() (*Conn, error) {
	nc, err := net.DialTimeout(Network(t.Address), t.Address, dialTimeout)
	if err != nil {
		return nil, err
	}
	if t.TLS != nil {
		nc = tls.Client(nc, t.TLS)
	}
	c := &Conn{net: nc}
	if err := c.handshake(t); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) handshake(t Target) error {
	if err := c.net.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	c.in = make([]byte, 0, 512) // idle connections stay small
	greeting, err := c.frame()
	if err != nil {
		return err
	}
	if len(greeting) != 2 || greeting[1] != '5' {
		return fmt.Errorf("the greeting is %q", greeting)
	}
	letter := greeting[0]
	if t.Encoding != 0 {
		letter = t.Encoding
	}
	if c.enc, err = encodingOf(letter); err != nil {
		return err
	}
	c.out = append(c.out, 0, 0, 0, 2, letter, '5')
	storage := t.Storage
	if storage == "" {
		storage = "1"
	}
	m, err := c.Call("register", storage, false)
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	if c.told, err = c.tid(m); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	return c.net.SetDeadline(time.Time{})
}

// enlarge gives a connection that will be busy its large buffers.
func (c *Conn) enlarge() {
	in := make([]byte, len(c.in)-c.read, startBuffer)
	copy(in, c.in[c.read:])
	c.in, c.read = in, 0
	c.out = make([]byte, 0, 2*startBuffer)
}

// Close ends the connection.
func (c *Conn) Close() error { return c.net.Close() }

// flush writes what was queued.
func (c *Conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.net.Write(c.out)
	c.out = c.out[:0]
	return err
}

// send queues a call, and flushes if much is queued.
func (c *Conn) send(id any, oneWay bool, method string, args ...any) error {
	c.out = appendCall(c.out, c.enc, id, oneWay, method, args...)
	if len(c.out) >= startBuffer {
		return c.flush()
	}
	return nil
}

// buffered tells whether a whole frame is in memory already.
func (c *Conn) buffered() bool {
	b := c.in[c.read:]
	return len(b) >= 4 && len(b)-4 >= int(binary.BigEndian.Uint32(b))
}

// frame returns the next payload. It is valid until the next call.
func (c *Conn) frame() ([]byte, error) {
	for {
		b := c.in[c.read:]
		if len(b) >= 4 {
			n := int(binary.BigEndian.Uint32(b))
			if len(b)-4 >= n {
				c.read += 4 + n
				return b[4 : 4+n : 4+n], nil
			}
		}
		if err := c.receive(); err != nil {
			return nil, err
		}
	}
}

// receive reads as much as there is, and at least a byte.
func (c *Conn) receive() error {
	rest := copy(c.in, c.in[c.read:])
	c.in, c.read = c.in[:rest], 0
	if cap(c.in)-rest < cap(c.in)/2 {
		grown := make([]byte, rest, 2*cap(c.in))
		copy(grown, c.in)
		c.in = grown
	}
	var n int
	var err error
	if c.arrivals != nil {
		n, c.arrived, err = c.arrivals.read(c.in[rest:cap(c.in)])
	} else {
		n, err = c.net.Read(c.in[rest:cap(c.in)])
	}
	c.in = c.in[:rest+n]
	c.now = time.Now()
	if n > 0 {
		return nil
	}
	if err == io.EOF && rest > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

// chunkHead is more than the head of a receiveBlobChunk takes.
const chunkHead = 128

// pieces takes what comes as long as it is receiveBlobChunks of which only the
// beginning is there: piece by piece, so that nothing is moved, and nothing has
// left the processor's cache when it is looked at.
func (c *Conn) pieces() error {
	for {
		for !c.buffered() && len(c.in)-c.read < chunkHead {
			if err := c.receive(); err != nil {
				return err
			}
		}
		if c.buffered() {
			return nil
		}
		left := 4 + int(binary.BigEndian.Uint32(c.in[c.read:]))
		copy(c.head[:], c.in[c.read:])
		m, err := parse(c.enc, c.head[4:])
		if err != nil || string(m.method) != "receiveBlobChunk" {
			return nil // the whole of it will tell
		}
		rest := m.args
		for range 2 { // oid and tid
			if _, rest, err = c.enc.next(rest); err != nil {
				return err
			}
		}
		n, rest, err := c.enc.bytesHead(rest)
		if err != nil {
			return err
		}
		head := chunkHead - len(rest)
		if n > left-head {
			return errShort
		}
		c.read, left = c.read+head, left-head
		for left > 0 {
			if c.read == len(c.in) {
				if err := c.receive(); err != nil {
					return err
				}
			}
			m.piece = c.in[c.read:min(len(c.in), c.read+left)]
			c.read, left = c.read+len(m.piece), left-len(m.piece)
			if m.piece = m.piece[:min(len(m.piece), n)]; len(m.piece) > 0 {
				n -= len(m.piece)
				if err := c.onBlob(m); err != nil {
					return err
				}
			}
		}
	}
}

// reply returns the next reply, whichever it is, after it has looked at the
// one-way messages in front of it. An error reply is an error.
func (c *Conn) reply() (message, error) {
	for {
		if c.onBlob != nil {
			if err := c.pieces(); err != nil {
				return message{}, err
			}
		}
		payload, err := c.frame()
		if err != nil {
			return message{}, err
		}
		m, err := parse(c.enc, payload)
		if err != nil {
			return message{}, err
		}
		if !m.oneWay {
			if m.failed {
				return m, m.failure(c.enc)
			}
			return m, nil
		}
		if err := c.oneWay(m); err != nil {
			return message{}, err
		}
	}
}

// oneWay looks at a message that the server sent by itself.
func (c *Conn) oneWay(m message) error {
	switch string(m.method) {
	case "info":
	case "invalidateTransaction":
		tid, err := c.tid(m)
		if err != nil {
			return err
		}
		if tid <= c.told {
			c.disordered++
		}
		c.told = max(c.told, tid)
		if c.onInvalidation != nil {
			c.onInvalidation(tid, c.now)
		}
	case "receiveBlobStart", "receiveBlobChunk", "receiveBlobStop":
		if c.onBlob == nil {
			return fmt.Errorf("%s of a blob that nobody asked for", m.method)
		}
		return c.onBlob(m)
	default:
		return fmt.Errorf("the server calls %s", m.method)
	}
	return nil
}

// Call calls a method and waits for its reply; no other call may be under way.
func (c *Conn) Call(method string, args ...any) (message, error) {
	c.nextID++
	if err := c.send(c.nextID, false, method, args...); err != nil {
		return message{}, err
	}
	if err := c.flush(); err != nil {
		return message{}, err
	}
	m, err := c.reply()
	if err != nil {
		return m, fmt.Errorf("%s: %w", method, err)
	}
	if m.id != int64(c.nextID) {
		return m, fmt.Errorf("the reply to call %d has the id %d", c.nextID, m.id)
	}
	return m, nil
}

// tid returns the first scalar of the arguments or the result, which is to be
// a tid.
func (c *Conn) tid(m message) (uint64, error) {
	s, _, err := c.enc.next(m.args)
	if err != nil {
		return 0, err
	}
	tid, ok := s.name()
	if !ok {
		return 0, errors.New("not a tid")
	}
	return tid, nil
}
