package zrpc

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Encoder appends the values of one message, in either encoding, to Buf. Its
// methods write exactly the bytes that Python's ZEO writes (zodbpickle
// protocol 3 in fast mode, or msgpack.packb with use_bin_type). It allocates
// nothing but what Buf grows by. One goroutine uses it at a time; copying it
// copies the slice header only.
//
// The vocabulary is what the two encodings have in common: containers are
// opened and closed with their number of items, since msgpack counts in front
// and pickle closes behind. The number given on closing must be the same.
//
//	e.Start()
//	e.Tuple(4)
//	e.Int(7); e.Bool(false); e.Str("loadSerial")
//	e.Tuple(2); e.ID(oid); e.ID(tid); e.EndTuple(2)
//	e.EndTuple(4)
//	e.Stop()
//
// A value that the encoding cannot express sets Err, once; what is in Buf is
// then of no use.
type Encoder struct {
	// Buf is what has been written so far, behind what NewEncoder was given.
	Buf []byte
	enc Encoding
	err error
}

// NewEncoder returns an Encoder that appends to buf.
func NewEncoder(enc Encoding, buf []byte) Encoder { return Encoder{Buf: buf, enc: enc} }

// Encoding returns the encoding being written.
func (e *Encoder) Encoding() Encoding { return e.enc }

// Err returns the first error, an *EncodeError.
func (e *Encoder) Err() error { return e.err }

func (e *Encoder) fail(format string, args ...any) {
	if e.err == nil {
		e.err = &EncodeError{Enc: e.enc, Msg: fmt.Sprintf(format, args...)}
	}
}

// Start begins a message: the protocol opcode in pickle, nothing in msgpack.
func (e *Encoder) Start() {
	if e.enc == Pickle {
		e.Buf = append(e.Buf, opProto, 3)
	}
}

// Stop ends a message: the stop opcode in pickle, nothing in msgpack.
func (e *Encoder) Stop() {
	if e.enc == Pickle {
		e.Buf = append(e.Buf, opStop)
	}
}

// Tuple opens a tuple of n items.
func (e *Encoder) Tuple(n int) {
	if e.enc == Pickle {
		if n > 3 {
			e.Buf = append(e.Buf, opMark)
		}
		return
	}
	e.array(n)
}

// EndTuple closes a tuple of n items.
func (e *Encoder) EndTuple(n int) {
	if e.enc != Pickle {
		return
	}
	switch {
	case n > 3:
		e.Buf = append(e.Buf, opTuple)
	case n > 0:
		e.Buf = append(e.Buf, opTuple1+byte(n-1))
	default:
		e.Buf = append(e.Buf, opEmptyTuple)
	}
}

// List opens a list of n items. In msgpack it is the same as a tuple.
func (e *Encoder) List(n int) {
	if e.enc == Pickle {
		e.Buf = append(e.Buf, opEmptyList)
		if n > 1 {
			e.Buf = append(e.Buf, opMark)
		}
		return
	}
	e.array(n)
}

// Item goes before item i (from 0) of a list. It writes nothing, but in
// pickle it ends a batch after each thousand items, as Python does. Leaving it
// out gives a list that is as good, in other bytes.
func (e *Encoder) Item(i int) {
	if e.enc == Pickle && i > 0 && i%pickleBatch == 0 {
		e.Buf = append(e.Buf, opAppends, opMark)
	}
}

// EndList closes a list of n items.
func (e *Encoder) EndList(n int) {
	if e.enc != Pickle {
		return
	}
	switch {
	case n > 1:
		e.Buf = append(e.Buf, opAppends)
	case n == 1:
		e.Buf = append(e.Buf, opAppend)
	}
}

// Dict opens a dict of n pairs, which follow as key, value, key, value.
func (e *Encoder) Dict(n int) {
	if e.enc == Pickle {
		e.Buf = append(e.Buf, opEmptyDict)
		if n > 1 {
			e.Buf = append(e.Buf, opMark)
		}
		return
	}
	switch {
	case n < 0 || uint64(n) > math.MaxUint32:
		e.fail("dict of %d pairs", n)
	case n < 16:
		e.Buf = append(e.Buf, mpFixMap|byte(n))
	case n <= math.MaxUint16:
		e.Buf = binary.BigEndian.AppendUint16(append(e.Buf, mpMap16), uint16(n))
	default:
		e.Buf = binary.BigEndian.AppendUint32(append(e.Buf, mpMap32), uint32(n))
	}
}

// Pair goes before pair i (from 0) of a dict, as Item does in a list.
func (e *Encoder) Pair(i int) {
	if e.enc == Pickle && i > 0 && i%pickleBatch == 0 {
		e.Buf = append(e.Buf, opSetItems, opMark)
	}
}

// EndDict closes a dict of n pairs.
func (e *Encoder) EndDict(n int) {
	if e.enc != Pickle {
		return
	}
	switch {
	case n > 1:
		e.Buf = append(e.Buf, opSetItems)
		if n%pickleBatch == 0 {
			// Python begins another batch before it sees that nothing is
			// left (with dicts, not with lists).
			e.Buf = append(e.Buf, opMark, opSetItems)
		}
	case n == 1:
		e.Buf = append(e.Buf, opSetItem)
	}
}

// Int writes an integer in its shortest form.
func (e *Encoder) Int(v int64) {
	if e.enc == Pickle {
		e.Buf = appendPickleInt(e.Buf, v)
		return
	}
	e.Buf = appendMsgpackInt(e.Buf, v)
}

// Uint writes an integer in its shortest form.
func (e *Encoder) Uint(v uint64) {
	if v <= math.MaxInt64 {
		e.Int(int64(v))
		return
	}
	if e.enc == Pickle {
		e.Buf = binary.LittleEndian.AppendUint64(append(e.Buf, opLong1, 9), v)
		e.Buf = append(e.Buf, 0)
		return
	}
	e.Buf = binary.BigEndian.AppendUint64(append(e.Buf, mpUint64), v)
}

// Bool writes True or False.
func (e *Encoder) Bool(v bool) {
	var c byte
	switch {
	case e.enc == Pickle && v:
		c = opNewTrue
	case e.enc == Pickle:
		c = opNewFalse
	case v:
		c = mpTrue
	default:
		c = mpFalse
	}
	e.Buf = append(e.Buf, c)
}

// Nil writes None.
func (e *Encoder) Nil() {
	if e.enc == Pickle {
		e.Buf = append(e.Buf, opNone)
		return
	}
	e.Buf = append(e.Buf, mpNil)
}

// Float writes a float, always as 8 bytes.
func (e *Encoder) Float(v float64) {
	if e.enc == Pickle {
		e.Buf = append(e.Buf, opBinFloat)
	} else {
		e.Buf = append(e.Buf, mpFloat64)
	}
	e.Buf = binary.BigEndian.AppendUint64(e.Buf, math.Float64bits(v))
}

// Str writes text, which must be UTF-8.
func (e *Encoder) Str(s string) {
	e.strHeader(len(s))
	e.Buf = append(e.Buf, s...)
}

func (e *Encoder) strHeader(n int) {
	if uint64(n) > math.MaxUint32 {
		e.fail("text of %d bytes", n)
		return
	}
	if e.enc == Pickle {
		e.Buf = binary.LittleEndian.AppendUint32(append(e.Buf, opBinUnicode), uint32(n))
		return
	}
	switch {
	case n < 32:
		e.Buf = append(e.Buf, mpFixStr|byte(n))
	case n <= math.MaxUint8:
		e.Buf = append(e.Buf, mpStr8, byte(n))
	case n <= math.MaxUint16:
		e.Buf = binary.BigEndian.AppendUint16(append(e.Buf, mpStr16), uint16(n))
	default:
		e.Buf = binary.BigEndian.AppendUint32(append(e.Buf, mpStr32), uint32(n))
	}
}

// Bytes writes a byte string. A nil slice is an empty byte string, not None.
func (e *Encoder) Bytes(b []byte) {
	e.BytesHeader(len(b))
	e.Buf = append(e.Buf, b...)
}

// BytesHeader announces a byte string of n bytes, 0 <= n <= MaxFrame. The n
// bytes themselves go behind what is in Buf: appended to it, or sent from
// elsewhere between this part of the message and the next.
func (e *Encoder) BytesHeader(n int) {
	if n < 0 || uint64(n) > math.MaxUint32 {
		e.fail("byte string of %d bytes", n)
		return
	}
	if e.enc == Pickle {
		if n <= math.MaxUint8 {
			e.Buf = append(e.Buf, opShortBinBytes, byte(n))
			return
		}
		e.Buf = binary.LittleEndian.AppendUint32(append(e.Buf, opBinBytes), uint32(n))
		return
	}
	switch {
	case n <= math.MaxUint8:
		e.Buf = append(e.Buf, mpBin8, byte(n))
	case n <= math.MaxUint16:
		e.Buf = binary.BigEndian.AppendUint16(append(e.Buf, mpBin16), uint16(n))
	default:
		e.Buf = binary.BigEndian.AppendUint32(append(e.Buf, mpBin32), uint32(n))
	}
}

// ID writes an oid or a tid: a byte string of 8 bytes, big-endian.
func (e *Encoder) ID(id uint64) {
	c := byte(opShortBinBytes)
	if e.enc != Pickle {
		c = mpBin8
	}
	e.Buf = binary.BigEndian.AppendUint64(append(e.Buf, c, 8), id)
}

// Raw writes one item that is already encoded: what Decoder.Raw returned in a
// message of the same encoding.
func (e *Encoder) Raw(item []byte) { e.Buf = append(e.Buf, item...) }

// PutIDs writes a list of oids or tids.
func PutIDs[T ~uint64](e *Encoder, ids []T) {
	e.List(len(ids))
	for i, id := range ids {
		e.Item(i)
		e.ID(uint64(id))
	}
	e.EndList(len(ids))
}

func (e *Encoder) array(n int) {
	switch {
	case n < 0 || uint64(n) > math.MaxUint32:
		e.fail("sequence of %d items", n)
	case n < 16:
		e.Buf = append(e.Buf, mpFixArray|byte(n))
	case n <= math.MaxUint16:
		e.Buf = binary.BigEndian.AppendUint16(append(e.Buf, mpArray16), uint16(n))
	default:
		e.Buf = binary.BigEndian.AppendUint32(append(e.Buf, mpArray32), uint32(n))
	}
}
