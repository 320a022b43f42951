//go:build !linux

package load

import (
	"errors"
	"net"
	"time"
)

// arrivals is for systems whose time stamps we know.
type arrivals struct{}

func newArrivals(net.Conn) (*arrivals, error) { return nil, nil }

func (*arrivals) read([]byte) (int, time.Time, error) {
	return 0, time.Time{}, errors.ErrUnsupported
}
