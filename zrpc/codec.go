package zrpc

import "fmt"

// Encoding is how the values of a connection are written: the letter that
// begins the client's handshake.
type Encoding byte

const (
	// Pickle is Python's pickle, protocol 3, without a memo.
	Pickle Encoding = 'Z'
	// Msgpack is msgpack with separate types for text and bytes.
	Msgpack Encoding = 'M'
)

// String returns "pickle" or "msgpack".
func (e Encoding) String() string {
	switch e {
	case Pickle:
		return "pickle"
	case Msgpack:
		return "msgpack"
	}
	return fmt.Sprintf("encoding %q", byte(e))
}

// Limits bounds what a payload may cost its reader. In a field that is a
// number, zero stands for the default. Lengths are always checked against the
// bytes that are there; these limits are for what few bytes can blow up to.
type Limits struct {
	// MaxDepth is how deep containers may nest in a general value, 100 by
	// default.
	MaxDepth int
	// MaxValues is how many values one payload may hold, a shared value
	// counted each time it is referred to; 1<<20 by default.
	MaxValues int
	// MaxShared is how many bytes of text and byte strings the references
	// of a pickle's memo may add up to, beyond the length of the payload;
	// those used as the keys of dicts do so apart, whether or not the dicts
	// keep them. 16 MiB by default.
	MaxShared int
	// AllowProto5 accepts pickles of protocols 4 and 5, which files may
	// hold but which no ZEO peer sends.
	AllowProto5 bool
}

const (
	defaultMaxDepth  = 100
	defaultMaxValues = 1 << 20
	defaultMaxShared = 16 << 20
)

func (l Limits) withDefaults() Limits {
	if l.MaxDepth <= 0 {
		l.MaxDepth = defaultMaxDepth
	}
	if l.MaxValues <= 0 {
		l.MaxValues = defaultMaxValues
	}
	if l.MaxShared <= 0 {
		l.MaxShared = defaultMaxShared
	}
	return l
}

// SyntaxError says that bytes are not a whole value of their encoding, or
// more than the Limits allow.
type SyntaxError struct {
	Enc    Encoding
	Offset int // of the byte the reader was at
	Msg    string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("bad %v at byte %d: %s", e.Enc, e.Offset, e.Msg)
}

// ShapeError says that a value is not what the reader of a message expects at
// its place: another type, or another number of items.
type ShapeError struct {
	Want, Got string // "8 bytes", "text"
	Item      int    // index in the container being read, or -1
}

func (e *ShapeError) Error() string {
	if e.Item < 0 {
		return fmt.Sprintf("want %s, got %s", e.Want, e.Got)
	}
	return fmt.Sprintf("item %d: want %s, got %s", e.Item, e.Want, e.Got)
}

// EncodeError says that a value has no form in an encoding.
type EncodeError struct {
	Enc Encoding
	Msg string
}

func (e *EncodeError) Error() string { return fmt.Sprintf("cannot encode as %v: %s", e.Enc, e.Msg) }
