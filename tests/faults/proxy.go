package faults

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync"
	"sync/atomic"
)

// maxFrame bounds what the proxy buffers of one frame.
const maxFrame = 256 << 20

// Direction says which way a frame goes.
type Direction string

// The two directions.
const (
	ClientToServer Direction = "c2s"
	ServerToClient Direction = "s2c"
)

// Moment says on which side of a frame a connection is cut.
type Moment string

// The two moments: the frame is lost with the connection, or it still arrives.
const (
	Before Moment = "before"
	After  Moment = "after"
)

// Cut ends a connection at the next frame of a name and direction.
type Cut struct {
	Dir  Direction
	Name string
	When Moment
}

// Proxy forwards ZEO connections to a server, frame by frame. All its methods
// may be called from any goroutine.
type Proxy struct {
	target   string
	listener net.Listener
	done     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	links  map[*link]struct{}
	counts map[Direction]map[string]int
	cuts   []Cut
}

// link is one forwarded connection: two sockets and a goroutine for each
// direction.
type link struct {
	client, server net.Conn
	// deaf are the sides that get nothing any more: of a client and a server
	// that is fast, the answer could else be there before the cut.
	deaf map[net.Conn]*atomic.Bool
}

// NewProxy listens on a port of its own and forwards to target, a TCP address.
func NewProxy(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{target: target, listener: l, links: map[*link]struct{}{}}
	p.Reset()
	p.done.Add(1)
	go p.accept()
	return p, nil
}

// Addr is the address that clients connect to.
func (p *Proxy) Addr() *net.TCPAddr { return p.listener.Addr().(*net.TCPAddr) }

// Counts returns how many messages of each name passed in one direction since
// the last Reset. Frames that are not messages count under "".
func (p *Proxy) Counts(dir Direction) map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts[dir])
}

// Reset sets all counts to zero.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts = map[Direction]map[string]int{ClientToServer: {}, ServerToClient: {}}
}

// CutAt arranges for the connection that next sees such a frame to end there.
func (p *Proxy) CutAt(c Cut) error {
	if (c.Dir != ClientToServer && c.Dir != ServerToClient) || (c.When != Before && c.When != After) {
		return fmt.Errorf("cannot cut %q %q a frame", c.Dir, c.When)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts = append(p.cuts, c)
	return nil
}

// Armed tells whether a connection is still to be cut.
func (p *Proxy) Armed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.cuts) > 0
}

// Drop ends all connections that are open now.
func (p *Proxy) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close()
	}
}

// Close ends everything and waits for it.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.listener.Close()
	p.Drop()
	p.done.Wait()
}

func (p *Proxy) accept() {
	defer p.done.Done()
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", p.target)
		if err != nil {
			c.Close() // as if nobody listened
			continue
		}
		l := &link{client: c, server: s, deaf: map[net.Conn]*atomic.Bool{c: {}, s: {}}}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			l.close()
			return
		}
		p.links[l] = struct{}{}
		p.mu.Unlock()
		var both sync.WaitGroup
		both.Go(func() { p.forward(ClientToServer, c, s, l) })
		both.Go(func() { p.forward(ServerToClient, s, c, l) })
		p.done.Go(func() {
			both.Wait()
			l.close()
			p.mu.Lock()
			delete(p.links, l)
			p.mu.Unlock()
		})
	}
}

// forward copies frames one way until either side ends, then passes the end on.
func (p *Proxy) forward(dir Direction, from, to net.Conn, l *link) {
	defer closeWrite(to)
	for {
		frame, err := readFrame(from)
		if err != nil {
			return
		}
		name, _ := Name(frame[4:])
		when := p.see(dir, name)
		if when == Before {
			l.close()
			return
		}
		if when == After {
			l.deaf[from].Store(true)
		}
		if l.deaf[to].Load() {
			continue
		}
		if _, err := to.Write(frame); err != nil {
			l.close()
			return
		}
		if when == After {
			// The receiver gets the frame and then the end; the sender loses
			// its connection at once.
			closeWrite(to)
			from.Close()
			return
		}
	}
}

// see counts a frame and says whether to cut there.
func (p *Proxy) see(dir Direction, name string) Moment {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[dir][name]++
	for i, c := range p.cuts {
		if c.Dir == dir && c.Name == name {
			p.cuts = append(p.cuts[:i], p.cuts[i+1:]...)
			return c.When
		}
	}
	return ""
}

func (l *link) close() {
	l.client.Close()
	l.server.Close()
}

func closeWrite(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite() // it may be closed already
	}
}

// readFrame returns a frame with its length in front.
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, errors.New("frame too large for a test")
	}
	frame := make([]byte, 4+n)
	copy(frame, head[:])
	_, err := io.ReadFull(r, frame[4:])
	return frame, err
}
