package zeolite

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
)

func TestConflicts(t *testing.T) {
	a, b := &ConflictError{OID: 1}, &ConflictError{OID: 2}
	for _, c := range []struct {
		err  error
		want []*ConflictError
	}{
		{nil, nil}, {io.EOF, nil}, {a, []*ConflictError{a}}, {fmt.Errorf("vote: %w", a), []*ConflictError{a}},
		{errors.Join(a, io.EOF, fmt.Errorf("and %w", errors.Join(b))), []*ConflictError{a, b}},
		{&StorageError{Message: "cannot vote", Err: b}, []*ConflictError{b}}, {&StorageError{Message: "cannot vote"}, nil},
	} {
		if got := Conflicts(c.err); !slices.Equal(got, c.want) {
			t.Errorf("Conflicts(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}
