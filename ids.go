package zeolite

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// OID names an object. On the wire and on disk it is 8 bytes, big-endian.
// OIDs order as unsigned integers, which is the order of their bytes.
type OID uint64

// RootOID is the object from which all others of a database are reached.
const RootOID OID = 0

// TID names a transaction, and so the database as it was just after it. On
// the wire and on disk it is 8 bytes, big-endian. The high 32 bits count
// minutes since 1900 in a calendar of 31-day months, the low 32 bits are the
// second within the minute in units of 60/2³² s (ZODB's TimeStamp). TIDs order
// as unsigned integers.
type TID uint64

const (
	// ZeroTID names no transaction: the last transaction of an empty
	// storage, the serial of an object that does not exist yet.
	ZeroTID TID = 0

	// MaxTID is later than any transaction: LoadBefore(oid, MaxTID) loads
	// the current revision.
	MaxTID TID = 0x7fffffffffffffff
)

// IDLen is the length in bytes of an OID or a TID on the wire and on disk.
const IDLen = 8

// Bytes returns the 8 big-endian bytes of the OID.
func (o OID) Bytes() []byte { return binary.BigEndian.AppendUint64(nil, uint64(o)) }

// String formats the OID as 0x followed by at least two hexadecimal digits,
// without leading zero bytes, as ZODB's oid_repr does.
func (o OID) String() string { return idRepr(uint64(o)) }

// OIDFromBytes reads an OID from exactly 8 big-endian bytes.
func OIDFromBytes(b []byte) (OID, error) {
	if len(b) != IDLen {
		return 0, fmt.Errorf("an oid has 8 bytes, not %d", len(b))
	}
	return OID(binary.BigEndian.Uint64(b)), nil
}

// ParseOID reads an OID as String writes it (hexadecimal after 0x) or as a
// plain decimal number.
func ParseOID(s string) (OID, error) {
	n, err := parseID(s)
	if err != nil {
		return 0, fmt.Errorf("not an oid: %q (want 0x and up to 16 hexadecimal digits, or a decimal number)", s)
	}
	return OID(n), nil
}

// Bytes returns the 8 big-endian bytes of the TID.
func (t TID) Bytes() []byte { return binary.BigEndian.AppendUint64(nil, uint64(t)) }

// String formats the TID as 16 hexadecimal digits.
func (t TID) String() string { return fmt.Sprintf("%016x", uint64(t)) }

// TIDFromBytes reads a TID from exactly 8 big-endian bytes.
func TIDFromBytes(b []byte) (TID, error) {
	if len(b) != IDLen {
		return 0, fmt.Errorf("a tid has 8 bytes, not %d", len(b))
	}
	return TID(binary.BigEndian.Uint64(b)), nil
}

// ParseTID reads a TID as String writes it: 16 hexadecimal digits, with or
// without 0x in front.
func ParseTID(s string) (TID, error) {
	digits := strings.TrimPrefix(s, "0x")
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != IDLen {
		return 0, fmt.Errorf("not a tid: %q (want 16 hexadecimal digits)", s)
	}
	return TID(binary.BigEndian.Uint64(b)), nil
}

// TIDFromTime returns the TID that stands for a moment, rounded down to what a
// TID can express. Moments before 1900 give the zero TID.
func TIDFromTime(t time.Time) TID {
	t = t.UTC()
	if t.Year() < 1900 {
		return ZeroTID
	}
	minutes := ((uint64(t.Year()-1900)*12+uint64(t.Month()-1))*31+uint64(t.Day()-1))*24*60 +
		uint64(t.Hour())*60 + uint64(t.Minute())
	if minutes > 0x7fffffff {
		return MaxTID
	}
	nanos := uint64(t.Second())*1e9 + uint64(t.Nanosecond())
	low := nanosToLow(nanos)
	return TID(minutes<<32 | low)
}

// Time returns the moment the TID stands for, in UTC. A TID whose low half or
// calendar fields are out of range (a tid may be any number) gives the moment
// that plain arithmetic yields.
func (t TID) Time() time.Time {
	minutes := uint64(t) >> 32
	minute, rest := minutes%60, minutes/60
	hour, rest := rest%24, rest/24
	day, rest := rest%31, rest/31
	month, year := rest%12, rest/12
	nanos := lowToNanos(uint64(t) & 0xffffffff)
	return time.Date(1900+int(year), time.Month(month+1), int(day)+1, int(hour), int(minute),
		int(nanos/1e9), int(nanos%1e9), time.UTC)
}

// UnixSeconds returns the moment the TID stands for as seconds since 1970,
// computed from the low half without rounding to nanoseconds: the number that
// ZODB puts in history and undo entries.
func (t TID) UnixSeconds() float64 {
	whole := (t &^ 0xffffffff).Time().Unix()
	return float64(whole) + float64(uint64(t)&0xffffffff)*60/(1<<32)
}

// Next returns the TID for a transaction that follows t at the moment now:
// now's own TID if it is later than t, else the smallest TID later than t. So
// TIDs grow even when the clock goes back (TimeStamp.laterThan).
func (t TID) Next(now time.Time) TID {
	if n := TIDFromTime(now); n > t {
		return n
	}
	return t.Successor()
}

// Successor returns the smallest TID later than t: one more in the low half,
// or the start of the next minute of the calendar when the low half is full.
func (t TID) Successor() TID {
	if uint32(t) != 0xffffffff {
		return t + 1
	}
	return TIDFromTime((t &^ 0xffffffff).Time().Add(time.Minute))
}

// nanosToLow converts nanoseconds within a minute to 60/2³² s units.
func nanosToLow(nanos uint64) uint64 {
	hi, lo := bits.Mul64(nanos, 1<<32)
	q, _ := bits.Div64(hi, lo, 60e9)
	return q
}

// lowToNanos rounds up, so that nanosToLow gives the same low half back.
func lowToNanos(low uint64) uint64 {
	hi, lo := bits.Mul64(low, 60e9)
	lo, carry := bits.Add64(lo, 1<<32-1, 0)
	return (hi+carry)<<32 | lo>>32
}

func idRepr(n uint64) string {
	digits := 2
	for m := n >> 8; m != 0; m >>= 8 {
		digits += 2
	}
	return fmt.Sprintf("0x%0*x", digits, n)
}

func parseID(s string) (uint64, error) {
	if digits, ok := strings.CutPrefix(s, "0x"); ok {
		return strconv.ParseUint(digits, 16, 64)
	}
	return strconv.ParseUint(s, 10, 64)
}
