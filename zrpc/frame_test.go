package zrpc

import (
	"bytes"
	"errors"
	"testing"
)

func TestFrame(t *testing.T) {
	b := append(AppendFrameHeader(nil, 2), "Z5rest"...)
	if want := []byte("\x00\x00\x00\x02Z5rest"); !bytes.Equal(b, want) {
		t.Fatalf("frame %q, want %q", b, want)
	}
	for n := range FrameHeaderLen + 2 {
		if _, _, err := parseFrame(b[:n], 2); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%d bytes: %v, want ErrIncomplete", n, err)
		}
	}
	payload, rest, err := parseFrame(b, 2)
	if err != nil || string(payload) != "Z5" || string(rest) != "rest" || cap(payload) != 2 {
		t.Errorf("%q, %q, %v", payload, rest, err)
	}
	var tooLarge *FrameTooLargeError
	if _, _, err := parseFrame(b, 1); !errors.As(err, &tooLarge) || tooLarge.Size != 2 || tooLarge.Limit != 1 {
		t.Errorf("limit 1: %v", err)
	}
	if payload, rest, err := parseFrame([]byte{0, 0, 0, 0, 9}, 0); err != nil || len(payload) != 0 || len(rest) != 1 {
		t.Errorf("empty frame: %q, %q, %v", payload, rest, err)
	}
	if _, err := ParseFrameHeader([]byte{0xff, 0xff, 0xff, 0xff}, -1); !errors.As(err, &tooLarge) || tooLarge.Size != MaxFrame {
		t.Errorf("largest frame: %v", err)
	}
	reserved := make([]byte, FrameHeaderLen, 10)
	PutFrameHeader(reserved, 0x01020304)
	if n, err := ParseFrameHeader(reserved, 1<<30); n != 0x01020304 || err != nil {
		t.Errorf("header %x: %d, %v", reserved, n, err)
	}
}

// parseFrame splits b into the payload of the frame at its start and what follows
// it; both alias b. Errors are those of ParseFrameHeader, and ErrIncomplete if the
// payload is not complete.
func parseFrame(b []byte, limit int) (payload, rest []byte, err error) {
	n, err := ParseFrameHeader(b, limit)
	if err != nil {
		return nil, b, err
	}
	b2 := b[FrameHeaderLen:]
	if len(b2) < n {
		return nil, b, ErrIncomplete
	}
	return b2[:n:n], b2[n:], nil
}
