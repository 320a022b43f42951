package zeolite

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func TestTxnMetaCheck(t *testing.T) {
	long := bytes.Repeat([]byte{'x'}, MaxText+1)
	for name, test := range map[string]struct {
		meta TxnMeta
		ok   bool
	}{
		"empty":          {TxnMeta{}, true},
		"longest":        {TxnMeta{User: long[1:], Description: long[1:], Extension: long[1:]}, true},
		"packed":         {TxnMeta{Status: 'p'}, true},
		"long user":      {TxnMeta{User: long}, false},
		"long text":      {TxnMeta{Description: long}, false},
		"long extension": {TxnMeta{Extension: long}, false},
		"status":         {TxnMeta{Status: 'c'}, false},
	} {
		err := test.meta.Check()
		if (err == nil) != test.ok || err != nil && !errors.As(err, new(*StorageError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckTID(t *testing.T) {
	for _, test := range []struct {
		tid, last TID
		ok        bool
	}{
		{ZeroTID, 5, true},
		{6, 5, true},
		{5, 5, false},
		{4, 5, false},
		{MaxTID, 5, false},
		{lastGivenTID, 5, true},
		{lastGivenTID + 1, 5, false},
		{lastGivenTID + 2, lastGivenTID, false},
		{lastGivenTID + 1, lastGivenTID, true},
		{lastGivenTID.Next(time.Now()), lastGivenTID, true},
		{MaxTID, MaxTID - 1, false},
	} {
		if err := CheckTID(test.tid, test.last); (err == nil) != test.ok {
			t.Errorf("%v after %v: %v", test.tid, test.last, err)
		}
	}
}

func TestCheckOID(t *testing.T) {
	for _, test := range []struct {
		oid, last OID
		ok        bool
	}{
		{0, 0, true},
		{1 << 40, 5, true},
		{1<<62 + 1000, 5, true}, // by a DemoStorage
		{lastGivenOID, 5, true},
		{lastGivenOID + 1, lastGivenOID, false},
		{lastGivenOID + 1, lastGivenOID + 1, true},
		{lastOID, lastOID, true},
		{lastOID + 1, lastOID + 1, false},
	} {
		if err := CheckOID(test.oid, test.last); (err == nil) != test.ok || err != nil && !errors.As(err, new(*StorageError)) {
			t.Errorf("%v with %v the largest: %v", test.oid, test.last, err)
		}
	}
}
