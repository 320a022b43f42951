package zrpc

import "testing"

// TestRemoteErrorText reads what logs say of exceptions: the oids in them are
// what a reader looks for.
func TestRemoteErrorText(t *testing.T) {
	oid := []byte{0, 0, 0, 0, 0, 0, 0, 0x73}
	for want, state := range map[string]Value{
		"E()":                               Tuple{},
		"E(None)":                           nil,
		"E(None, 77)":                       Tuple{nil, int64(77)},
		"E(0x0000000000000073)":             Tuple{oid},
		"E(No blob file, 0x000000000000ff)": List{"No blob file", []byte{0, 0, 0, 0, 0, 0, 0xff}},
		"E({_reason: x, _errs: ((0x0000000000000073, <m.C>))})": NewDict("_reason", "x",
			"_errs", List{Tuple{oid, &Object{Class: Global{"m", "C"}}}}),
	} {
		if got := (&RemoteError{Class: "E", State: state}).Error(); got != want {
			t.Errorf("%v is %q, want %q", state, got, want)
		}
	}
}
