package references

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"
	"sync"
)

// Clients that use zc.zlibstorage compress their records: ".z" and a zlib
// stream. No pickle begins so, as "." ends one.
var zlibPrefix = []byte(".z")

// maxInflated bounds what a small record can make of itself; no real one comes
// near.
var maxInflated int64 = 512 << 20

// blobInflated is enough for the class pickle of a blob.
const blobInflated = 1 << 10

// inflater is a zlib reader that is used again.
type inflater interface {
	io.ReadCloser
	zlib.Resetter
}

var inflaters sync.Pool

// inflate returns a record as it was before it was compressed, but no more of it
// than limit bytes. One that is not compressed is returned as it is.
func inflate(record []byte, limit int64) ([]byte, error) {
	deflated, ok := bytes.CutPrefix(record, zlibPrefix)
	if !ok {
		return record, nil
	}
	source := bytes.NewReader(deflated)
	z, _ := inflaters.Get().(inflater)
	var err error
	if z != nil {
		err = z.Reset(source, nil)
	} else {
		var r io.ReadCloser
		r, err = zlib.NewReader(source)
		z, _ = r.(inflater)
	}
	var plain []byte
	if err == nil {
		defer inflaters.Put(z)
		plain, err = io.ReadAll(io.LimitReader(z, limit))
	}
	if err != nil {
		return nil, formatError("it is compressed, and cannot be inflated: " + err.Error())
	}
	return plain, nil
}

// inflateAll returns a record as it was before it was compressed, if it was.
func inflateAll(record []byte) ([]byte, error) {
	plain, err := inflate(record, maxInflated+1)
	if err == nil && int64(len(plain)) > maxInflated && bytes.HasPrefix(record, zlibPrefix) {
		return nil, formatError(fmt.Sprintf("it is compressed, and has more than %d bytes", maxInflated))
	}
	return plain, err
}
