package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/zeolite-go/zeolite"
)

// SQLSTATE codes that mean something particular here.
const (
	codeLockTimeout  = "55P03" // lock_not_available
	codeDeadlock     = "40P01"
	codeOutOfMemory  = "53200" // also: no room in the lock table
	codeNoPrivilege  = "42501"
	codeNoObject     = "42704" // also: there is no such large object
	codeReadOnly     = "25006"
	codeNotSupported = "0A000"
)

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// fault makes an error of the database one of the contract. doing says what
// failed: "cannot load an object".
func (s *Storage) fault(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		if s.ctx.Err() != nil && errors.Is(context.Cause(ctx), zeolite.ErrClosed) {
			return zeolite.ErrClosed
		}
		return ctx.Err()
	}
	if s.ctx.Err() != nil {
		return zeolite.ErrClosed // the pools are closing under the call
	}
	var ours *zeolite.StorageError
	if errors.As(err, &ours) {
		return err
	}
	if sqlState(err) == codeOutOfMemory {
		return &zeolite.StorageError{Message: "postgres: " + doing +
			" (a transaction that changes many objects needs a larger max_locks_per_transaction)", Err: err}
	}
	return &zeolite.StorageError{Message: "postgres: " + doing, Err: err}
}

// errEmptyRecord refuses what other back ends cannot keep: in Data.fs a record
// of length 0 is a reference to an earlier one.
var errEmptyRecord = &zeolite.StorageError{Message: "a record cannot be empty"}
