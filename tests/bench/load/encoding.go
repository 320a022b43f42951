package load

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A kind is the type of a scalar.
type kind byte

const (
	end kind = iota // the message is over
	null
	boolean
	integer
	float
	bytesKind
	text
)

// A scalar is one value of a message that is no container. b aliases the
// message.
type scalar struct {
	kind kind
	n    int64 // of integers; 1 for true
	b    []byte
}

// name returns a scalar of eight bytes, an oid or a tid, as a number.
func (s scalar) name() (uint64, bool) {
	if s.kind != bytesKind || len(s.b) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(s.b), true
}

// An encoding writes calls, and reads messages as the flat sequence of their
// scalars. What a message is made of follows from its method, so containers
// are skipped: it is cheap, and the same for both encodings.
type encoding interface {
	letter() byte
	// appendValue appends one argument: nil, bool, int, uint64 (an oid or a
	// tid, eight bytes), []byte, string, pair or emptyMap.
	appendValue(dst []byte, v any) []byte
	// appendMessage appends a call without its frame.
	appendMessage(dst []byte, id any, oneWay bool, method string, args []any) []byte
	// next reads the first scalar of b, and returns what is behind it.
	next(b []byte) (scalar, []byte, error)
	// bytesHead reads the first scalar up to its content: it is to be a bytes
	// value, of that length, and the content is behind the head.
	bytesHead(b []byte) (length int, rest []byte, err error)
}

// A pair is a tuple of two oids or tids, the id of a load.
type pair [2]uint64

// emptyMap is a map without elements.
type emptyMap struct{}

func encodingOf(letter byte) (encoding, error) {
	switch letter {
	case 'M':
		return msgpack{}, nil
	case 'Z':
		return pickle{}, nil
	}
	return nil, fmt.Errorf("there is no encoding %q", letter)
}

// appendCall appends a call in its frame.
func appendCall(dst []byte, e encoding, id any, oneWay bool, method string, args ...any) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = e.appendMessage(dst, id, oneWay, method, args)
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

var errNoBytes = errors.New("not a bytes value")

var errShort = errors.New("message ends too early")

// take splits off n bytes.
func take(b []byte, n int) ([]byte, []byte, error) {
	if n < 0 || n > len(b) {
		return nil, nil, errShort
	}
	return b[:n:n], b[n:], nil
}

// A message is one frame, its head taken apart.
type message struct {
	pair   pair  // the id, if it is one of a load
	id     int64 // the id, if it is a number
	oneWay bool
	failed bool // an error reply
	method []byte
	args   []byte // what is behind the method, encoded
	piece  []byte // of a receiveBlobChunk that comes in pieces; not in args then
}

// parse reads the head of a message.
func parse(e encoding, payload []byte) (m message, err error) {
	s, rest, err := e.next(payload)
	if err != nil {
		return m, err
	}
	switch s.kind {
	case integer:
		m.id = s.n
	case bytesKind:
		var s2 scalar
		if s2, rest, err = e.next(rest); err != nil {
			return m, err
		}
		oid, ok1 := s.name()
		tid, ok2 := s2.name()
		if !ok1 || !ok2 {
			return m, errors.New("id is neither a number nor the pair of a load")
		}
		m.pair = pair{oid, tid}
	default:
		return m, errors.New("id is neither a number nor the pair of a load")
	}
	flag, rest, err := e.next(rest)
	if err != nil {
		return m, err
	}
	method, rest, err := e.next(rest)
	if err != nil {
		return m, err
	}
	if method.kind != text || (flag.kind != integer && flag.kind != boolean) {
		return m, errors.New("flag or name of the message is of the wrong type")
	}
	m.method, m.args = method.b, rest
	m.oneWay = flag.n == 1
	m.failed = flag.n == 2
	return m, nil
}

// failure returns the error of an error reply.
func (m message) failure(e encoding) error {
	class, _, err := e.next(m.args)
	if err != nil {
		return fmt.Errorf("error reply that cannot be read: %w", err)
	}
	return &ServerError{string(class.b)}
}

// A ServerError is an error reply.
type ServerError struct{ Class string }

func (e *ServerError) Error() string { return "the server answers " + e.Class }

// answers tells whether an error is an error reply of a class of that name.
func answers(err error, class string) bool {
	var e *ServerError
	return errors.As(err, &e) && e.Class == "ZODB.POSException."+class
}
