package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// DisconnectedError says that a call failed because there is no connection, or
// because it was lost before the answer came.
type DisconnectedError struct {
	// SafeToRepeat is true if repeating the call cannot do anything twice:
	// the server did not get it, or it changes nothing.
	SafeToRepeat bool
	Err          error
}

func (e *DisconnectedError) Error() string { return "disconnected from the server: " + e.Err.Error() }

// Unwrap returns why.
func (e *DisconnectedError) Unwrap() error { return e.Err }

// SafeToRepeat tells whether a call that failed with err may simply be made
// again: the failure was of the network, and cannot have changed anything.
func SafeToRepeat(err error) bool {
	var d *DisconnectedError
	return errors.As(err, &d) && d.SafeToRepeat
}

// errBehind is why a connection is refused whose server has less than the
// cache: as after a backup was restored. Nothing could be trusted then.
type errBehind struct{ server, cache zeolite.TID }

func (e *errBehind) Error() string {
	return fmt.Sprintf("the server's last transaction, %v, is older than the last one this client knows, %v: "+
		"has a backup been restored? (start with an empty cache to go on)", e.server, e.cache)
}

// asError turns the failure of a call into what callers are told. read says
// that the call changes nothing.
func (s *Storage) asError(err error, read bool) error {
	var (
		lost   *zrpc.ConnError
		raised *zrpc.RemoteError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &lost):
		if s.ctx.Err() != nil {
			return fmt.Errorf("%w: %w", zeolite.ErrClosed, err)
		}
		return &DisconnectedError{SafeToRepeat: read || !lost.MaybeSent, Err: err}
	case errors.As(err, &raised) && err == error(raised):
		// An exception that has no counterpart is a failure of the storage.
		return &zeolite.StorageError{Class: raised.Class, Message: "the server raised an exception", Err: raised}
	}
	return err
}

// ctxErr prefers the reason of a context that ended because the storage was
// closed.
func (s *Storage) ctxErr(ctx context.Context) error {
	if s.ctx.Err() != nil {
		return zeolite.ErrClosed
	}
	return ctx.Err()
}
