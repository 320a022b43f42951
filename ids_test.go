package zeolite

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestTIDFromTime(t *testing.T) {
	// Values observed from ZODB's TimeStamp.
	for _, c := range []struct {
		when time.Time
		want TID
	}{
		{time.Date(2026, 11, 21, 22, 16, 44, 5e8, time.UTC), 0x040d2c78bddddddd},
		{time.Date(2007, 5, 18, 14, 2, 22, 0, time.UTC), 0x036db5ea5ddddddd},
		{time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC), 0},
		{time.Date(1850, 1, 1, 0, 0, 0, 0, time.UTC), 0},
	} {
		if got := TIDFromTime(c.when); got != c.want {
			t.Errorf("TIDFromTime(%v) = %v, want %v", c.when, got, c.want)
		}
	}
}

func TestTIDTimeRoundTrip(t *testing.T) {
	for range 10000 {
		when := time.Unix(rand.Int64N(4e9), rand.Int64N(1e9)).UTC()
		tid := TIDFromTime(when)
		if back := tid.Time(); when.Sub(back) < 0 || when.Sub(back) > 15*time.Nanosecond {
			t.Fatalf("%v -> %v -> %v", when, tid, back)
		}
		if again := TIDFromTime(tid.Time()); again != tid {
			t.Fatalf("%v -> %v -> %v", tid, tid.Time(), again)
		}
	}
}

func TestTIDNextGrowsWhenTheClockGoesBack(t *testing.T) {
	past := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct{ prev, want TID }{
		{0x040d2c78bddddddd, 0x040d2c78bdddddde},
		{0x040d2c7fffffffff, 0x040d2c8000000000},
		// 31 December 2026 23:59 is followed by 1 January 2027 00:00.
		{TIDFromTime(time.Date(2026, 12, 31, 23, 59, 0, 0, time.UTC)) | 0xffffffff,
			TIDFromTime(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))},
		// 28 February 2026 23:59 is followed by 1 March: the calendar of
		// TIDs has days that do not exist, which are passed over.
		{TIDFromTime(time.Date(2026, 2, 28, 23, 59, 0, 0, time.UTC)) | 0xffffffff,
			TIDFromTime(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))},
	} {
		if got := c.prev.Next(past); got != c.want {
			t.Errorf("%v.Next(past) = %v, want %v", c.prev, got, c.want)
		}
	}
	now := time.Date(2026, 11, 21, 22, 16, 44, 5e8, time.UTC)
	if got := TID(5).Next(now); got != TIDFromTime(now) {
		t.Errorf("Next = %v, want the clock's tid", got)
	}
}

func TestSuccessorOfNonsense(t *testing.T) {
	// A tid may be any number; it must still grow.
	for range 10000 {
		tid := TID(rand.Uint64()>>1) | 0xffffffff
		if s := tid.Successor(); s <= tid && tid < MaxTID {
			t.Fatalf("Successor(%v) = %v", tid, s)
		}
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]OID{"0x00": 0, "0x1a2b": 0x1a2b, "17": 17, "0xffffffffffffffff": 1<<64 - 1} {
		if got, err := ParseOID(s); err != nil || got != want {
			t.Errorf("ParseOID(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0x", "x", "-1", "0x1g", "18446744073709551616", "1 2"} {
		if got, err := ParseOID(s); err == nil {
			t.Errorf("ParseOID(%q) = %v, want an error", s, got)
		}
	}
	if got := OID(0x1a2b3).String(); got != "0x01a2b3" {
		t.Errorf("String = %q", got)
	}
	tid := TID(0x040d2c78bddddddd)
	if got, err := ParseTID(tid.String()); err != nil || got != tid {
		t.Errorf("ParseTID(%v) = %v, %v", tid, got, err)
	}
	for _, s := range []string{"", "0x", "040d2c78bdddddd", "040d2c78bdddddddd", "g40d2c78bddddddd"} {
		if got, err := ParseTID(s); err == nil {
			t.Errorf("ParseTID(%q) = %v, want an error", s, got)
		}
	}
	if _, err := OIDFromBytes(make([]byte, 7)); err == nil {
		t.Error("OIDFromBytes of 7 bytes must fail")
	}
	if got, err := TIDFromBytes(tid.Bytes()); err != nil || got != tid {
		t.Errorf("TIDFromBytes = %v, %v", got, err)
	}
}

func TestUnixSeconds(t *testing.T) {
	tid := TID(0x040d2c78bddddddd)
	if got := tid.UnixSeconds(); got < 1795299404.4999 || got > 1795299404.5001 {
		t.Errorf("UnixSeconds = %f", got)
	}
}
