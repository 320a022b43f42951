//go:build 386 || arm || mips || mipsle

package filestorage

import (
	"bytes"
	"testing"
)

// Where an int has 32 bits, the length of a record may not fit.
func TestCheckRecordTooLargeForMemory(t *testing.T) {
	c := &checker{w: newWindow(bytes.NewReader(make([]byte, 4096)))}
	var buf []byte
	if b, err := c.read(c.w, &recHeader{dataLen: 1<<32 + 5}, &buf); err == nil {
		t.Errorf("%d bytes are taken for all", len(b))
	}
}
