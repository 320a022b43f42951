package zeolite

import (
	"bytes"
	"errors"
	"testing"
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
	} {
		if err := CheckTID(test.tid, test.last); (err == nil) != test.ok {
			t.Errorf("%v after %v: %v", test.tid, test.last, err)
		}
	}
}
