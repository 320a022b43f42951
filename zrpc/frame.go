package zrpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

const (
	// FrameHeaderLen is the number of bytes before the payload of a frame:
	// the payload's length, unsigned, big-endian, not counting itself.
	FrameHeaderLen = 4

	// MaxFrame is the longest payload, in bytes, that a frame can announce.
	MaxFrame = math.MaxUint32
)

// ErrIncomplete says that the bytes at hand are the beginning of a frame and
// that more are needed. It is not a fault of the peer.
var ErrIncomplete = errors.New("incomplete frame")

// FrameTooLargeError refuses a frame whose announced payload is longer than
// the receiver allows. Nothing was allocated for it, and the stream cannot be
// read any further.
type FrameTooLargeError struct {
	Size  uint64 // announced, in bytes
	Limit int    // allowed, in bytes
}

func (e *FrameTooLargeError) Error() string {
	return fmt.Sprintf("frame of %d bytes is larger than the limit of %d bytes", e.Size, e.Limit)
}

// AppendFrameHeader appends the header of a frame whose payload has n bytes,
// 0 <= n <= MaxFrame.
func AppendFrameHeader(dst []byte, n int) []byte {
	return binary.BigEndian.AppendUint32(dst, uint32(n))
}

// PutFrameHeader writes the header of a frame whose payload has n bytes,
// 0 <= n <= MaxFrame, over the first FrameHeaderLen bytes of b, where a sender
// reserved room for it.
func PutFrameHeader(b []byte, n int) {
	binary.BigEndian.PutUint32(b, uint32(n))
}

// ParseFrameHeader returns the length of the payload that follows the header
// at the start of b. It fails with ErrIncomplete if b is shorter than a
// header, and with *FrameTooLargeError if the length exceeds limit.
func ParseFrameHeader(b []byte, limit int) (n int, err error) {
	if len(b) < FrameHeaderLen {
		return 0, ErrIncomplete
	}
	size := uint64(binary.BigEndian.Uint32(b))
	// Compared as uint64: an int may have 32 bits.
	if size > uint64(max(limit, 0)) {
		return 0, &FrameTooLargeError{Size: size, Limit: limit}
	}
	return int(size), nil
}
